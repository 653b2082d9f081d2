"""The make stage: the pipelines of a recipe's `make`, one after another, for all its personas together.

<run>/ledger.sqlite                     every request and answer, and what it cost
<run>/made/<pipeline>.jsonl             its rows, and <pipeline>.quarantine.jsonl what could not be used, with the reason
<run>/made/personas/<persona>.jsonl     what each persona learns from, with <persona>.lint.txt, and who it is, .yaml
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from personalign.cache import Inputs
from personalign.clients import client, dollars, ledger, price_of
from personalign.clients.keys import Key
from personalign.errors import UserError
from personalign.files import file_hash, read_jsonl, write_whole
from personalign.make import NO_ROWS, Asked, pipeline, settings
from personalign.personas import Persona
from personalign.recipe import Recipe
from personalign.synthesis import Job, Row, template, write_rows

MADE = "made"  # the folder below that of the run
FILES = {"restyle": "restyle-pairs.jsonl"}  # with which SFT and DPO can both do something
TOGETHER = 8  # personas that answer the same turns, at most: a dialogue of more grows too long


@contextmanager
def job(
    asked: Asked, folder: Path, language: Literal["en", "ko"], seed: int, prices: Mapping[str, Any]
) -> Iterator[Job]:
    """The job of a run folder, its ledger open; says at the end, whatever the end, what was spent."""
    check_prompts(asked.prompts)
    prompts = Path(asked.prompts) if asked.prompts is not None else None
    who = client(asked.client)
    with ledger(folder, budget_usd=asked.budget_usd, budget_tokens=asked.budget_tokens) as book:
        before = book.spent
        try:
            yield Job(who, book, folder / MADE, language, seed, asked.limits, prices, prompts, asked.options)
        finally:
            cost, tokens = (after - earlier for after, earlier in zip(book.spent, before, strict=True))
            now = f"{dollars(cost)}, " if price_of(asked.client, prices) is not None else ""
            whole = f" ({dollars(book.spent[0])}, {book.spent[1]:,} with all that came before)" if before[1] else ""
            print(f"{asked.client}: {now}{tokens:,} tokens spent{whole}", file=sys.stderr)


def check_prompts(folder: str | None) -> None:
    """Read the user's own prompts before anything is paid for. Raises UserError for one that is none."""
    if folder is None:
        return
    own, ours = Path(folder), {path.name for path in (resources.files("personalign.synthesis") / "prompts").iterdir()}
    for file in ours if not own.is_dir() else sorted(ours & {path.name for path in own.iterdir()}):
        name, language, _ = file.rsplit(".", 2)
        template(name, language, own)


def key_missing(name: str) -> str | None:
    """The environment variable that has to be set before this client can be asked, None where nothing is missing."""
    key: Key | None = getattr(client(name), "key", None)
    if (
        key is None or key.value() is not None or name.startswith(("http://", "https://"))
    ):  # an address may be open to all
        return None
    return " or ".join(key.variables)


def inputs(recipe: Recipe, folder: Path) -> Inputs:
    """What the rows depend on: not the budget, nor how fast it is asked, nor what it costs.

    Nor our own prompts: data that were paid for are not made again because personalign is newer.
    """
    assert recipe.make is not None
    files = {path for step in recipe.make.steps for path in _files(list(step.values()))}
    files -= set(_files(str(folder / MADE)))  # what it makes itself
    own = sorted(Path(recipe.make.prompts).glob("*.yaml")) if recipe.make.prompts is not None else []
    return {
        "client": recipe.make.client, "options": recipe.make.options, "steps": list(recipe.make.steps),
        "language": recipe.language, "seed": recipe.seed,
        "personas": {name: who.model_dump(mode="json") for name, who in recipe.people().items()},
        "prompts": {path.name: file_hash(path) for path in own},
        "files": {str(path): file_hash(path) for path in sorted(files)},
    }  # fmt: skip


def _files(value: Any) -> Iterator[Path]:
    """Every file that a setting names, or that lies in a folder that it names."""
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _files(each)
    elif isinstance(value, str) and 0 < len(value) < 1000 and "\0" not in value and "\n" not in value:
        path = Path(value)
        try:
            if path.is_file():
                yield path
            elif path.is_dir():
                yield from (each for each in path.rglob("*") if each.is_file())
        except OSError:  # longer than a name may be: a text
            return


def make(recipe: Recipe, folder: Path) -> None:
    """Make what the recipe's `make` says, for all its personas together."""
    assert recipe.make is not None
    people, made, before = recipe.people(), folder / MADE, None
    with job(recipe.make, folder, recipe.language, recipe.seed, recipe.make.prices_by_model()) as work:
        for step in recipe.make.steps:
            ((name, given),) = step.items()
            _step(work, name, given, people, before)
            if name not in NO_ROWS:
                before = made / FILES.get(name, f"{name}.jsonl")
    rows = read_jsonl(before) if before is not None else None
    for short, who in people.items():
        path = made / "personas" / f"{short}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        who.to_yaml(path)
        if rows is not None:
            _write(path.with_suffix(".jsonl"), [row for row in rows if row.get("persona", who.name) == who.name])


def _step(work: Job, name: str, given: dict[str, Any], people: dict[str, Persona], before: Path | None) -> None:
    """Do one step, after the one whose rows are in `before`. A persona that it makes takes its place among the people."""
    run, several = pipeline(name)[1], len(people) > 1
    if name == "traits":
        for short, who in people.items():
            apart = replace(work, folder=work.folder / "traits" / short) if several else work
            found = run(apart, settings(name, given, {"name": who.name, "description": who.description}))
            people[short] = found.model_copy(update={"type": who.type})
        return
    first, who = next(iter(people.items()))
    described = work.folder / "persona.yaml"
    if name == "imitate":
        described.unlink(missing_ok=True)  # where the model describes nobody, an earlier description is not this one's
    # where several personas speak they answer the same turns
    own = {"name": who.name, "together": min(len(people), TOGETHER), "file": before}
    run(work, settings(name, given, own), list(people.values()))
    if name == "imitate" and described.is_file():
        people[first] = Persona.from_yaml(described)


def _write(path: Path, rows: Sequence[Row]) -> None:
    """What a persona learns from, looked through before it does."""
    from personalign.datasets import lint_file

    write_rows(path, rows)
    if not rows:
        raise UserError(
            f"{path}: not one row came of it; what was answered is in the *.quarantine.jsonl of {path.parents[1]}, with the "
            "reason. Ask a larger model, mend the prompts, or ask for more."
        )
    report, _ = lint_file(path)
    write_whole(path.with_suffix(".lint.txt"), report.format() + "\n")
    bad = f", {len(report.problems)} PROBLEMS" if report.problems else ""
    print(
        f"lint: {report.rows} rows{bad}, {len(report.duplicates)} duplicates; {path.with_suffix('.lint.txt')}",
        file=sys.stderr,
    )
