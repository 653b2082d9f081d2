"""A dry run: every stage of a recipe on a tiny random model of the same architecture, before anything large is fetched.

It reads the data files that are here to the end, so that a bad row shows now, trains on a handful of their rows, and says
what it could not check. Nothing is written outside of a temporary folder, and no language model is asked for anything.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from personalign import pipeline, rows
from personalign import recipe as recipes
from personalign.datasets import Conversation, Pair, Prompt, Ranking, everyday
from personalign.datasets.records import opening
from personalign.errors import UserError
from personalign.processes import world
from personalign.recipe import Recipe
from personalign.runs import adapter_folder, reward_folder
from personalign.sources import EVERYDAY, PLACE, Data
from personalign.steps import SETTINGS

PERSONAS = SEEDS = 2  # that are trained; the files of all are read
ROWS = 12
CHARACTERS = 120  # of a message: a tiny model reads bytes, three to a Korean syllable
SMALL = {
    "epochs": 1.0, "max_steps": 2, "batch": 4, "row_tokens": 2048, "max_length": 4096, "too_long": "truncate",
    "evaluate_every": 2, "checkpoint_every": 1, "trackers": [], "max_memory": None, "ignore_memory": True, "start": None,
}  # fmt: skip
SMALL_PPO = {
    "steps": 2, "batch": 2, "answers": 2, "minibatch": 1, "ppo_epochs": 1, "max_new_tokens": 8, "ignore_gate": True
}  # fmt: skip
EVALUATED = {"share": 0.02, "pairs": 2, "answers": 1}


def dry_run(recipe: Recipe) -> None:
    """Run the recipe's every stage in little, and print what was checked and what was not.

    Raises UserError for whatever the real run would refuse, as far as a tiny model can tell.
    """
    if world() > 1:
        raise UserError("--dry-run: start it without accelerate launch; one process is enough for it.")
    from personalign.models.stand_in import real_config, save_stand_in
    from personalign.terminal import quiet_loading

    started = time.monotonic()
    quiet_loading()
    config, real = real_config(recipe.model, recipe.trust_remote_code)
    with TemporaryDirectory(prefix="personalign-") as work, _home(Path(work) / "home"), _one_thread():
        folder = Path(work) / "model"
        save_stand_in(recipe.model, config, real, folder, recipe.trust_remote_code)
        small, notes = _small(recipe, Path(work))
        reads = "bytes, with the special tokens and the template" if real is None else "the tokens"
        kind = config.get_text_config().model_type
        print(f"model     a tiny random {kind} that reads {reads} of {recipe.model}")
        print("\n".join(notes), flush=True)
        pipeline.run(small)
        _say_passed(small)
    for line in memory_lines(recipe, config):
        print(line)
    print(f"dry run   passed in {time.monotonic() - started:.0f} s; the weights themselves were not looked at")


def memory_lines(recipe: Recipe, config: Any) -> list[str]:
    """What each step will need at its peak on a GPU, in GiB: an estimate from the base's configuration."""
    from personalign.training.budget import gib, in_words
    from personalign.training.memory import estimate, shape_of

    count = sum(len(persona.by_seed()) for persona in recipe.each().values())
    lines = []
    for name, step in recipe.steps().items():
        settings = SETTINGS[step.method](**step.model_dump(include=set(SETTINGS[step.method].model_fields)))
        precision = "bf16" if step.precision == "auto" else step.precision
        adapters = 1 if step.method == "ppo" else count
        try:
            found = estimate(
                shape_of(config), settings, precision=precision, quantise=recipe.quantise, adapters=adapters
            )
        except (KeyError, AttributeError) as error:
            lines.append(f"memory    {name}: not estimated, for the size of {error} in this architecture is not known")
            continue
        several = f" for {adapters} adapters in one pass" if adapters > 1 else ""
        lines.append(
            f"memory    {name}{several}: about {gib(found['peak'])} at the peak, an estimate for a GPU in {precision} and rows "
            f"of {step.row_tokens} tokens ({in_words(found)})"
        )
    return lines


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Caches of a dry run go with it."""
    before = os.environ.get("PERSONALIGN_HOME")
    os.environ["PERSONALIGN_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["PERSONALIGN_HOME"]
        if before is not None:
            os.environ["PERSONALIGN_HOME"] = before


@contextmanager
def _one_thread() -> Iterator[None]:
    """A tiny model gains nothing from more, and on a busy machine threads that wait for one another cost minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _small(recipe: Recipe, work: Path) -> tuple[Recipe, list[str]]:
    """The recipe in little, and what is to be said about it."""
    notes = [*_to_be_made(recipe), *_sampled(recipe, work)]
    small = recipe.model_dump(mode="json")
    small |= {
        "make": None,
        "model": str(work / "model"),
        "output": str(work / "run"),
        "data": _small_data(recipe.data, work / "data"),
    }
    if isinstance(recipe.persona, tuple) and len(recipe.persona) > PERSONAS:
        small["persona"] = small["persona"][:PERSONAS]
        notes.append(f"personas  the first {PERSONAS} of {len(recipe.persona)} are trained and measured")
    if recipe.evaluate is not None:
        small["evaluate"] |= EVALUATED
    if recipe.adapter is not None:
        adapter_folder(recipe.adapter)
        small["adapter"] = None
        notes.append(f"adapter   {recipe.adapter} is there; a tiny model cannot carry it, so only the base is measured")
    if recipe.quantise is not None and find_spec("bitsandbytes") is None:
        small["quantise"] = None
        notes.append(f"quantise  bitsandbytes is not installed, so {recipe.quantise} was not checked")
    if recipe.train is not None:
        steps = [_small_step(recipe, name, work, notes) for name in recipe.steps()]
        if any(step["method"] == "ppo" and "reward" not in step for step in steps) and "reward" not in recipe.steps():
            rows.write_rows(work / "rankings.jsonl", _made_up("reward", recipe.language))
            steps.insert(0, {"method": "reward", **SMALL, "data": {"source": str(work / "rankings.jsonl")}})
        small["train"] = steps if len(steps) > 1 or isinstance(recipe.train, tuple) else steps[0]
    return recipes.build(small), notes


def _to_be_made(recipe: Recipe) -> list[str]:
    """What the recipe's `make` would do; its settings were checked when the recipe was read.

    Raises UserError for prompts that are none, and for a budget in dollars that could not be kept.
    """
    if recipe.make is None:
        return []
    from personalign.clients import price_of
    from personalign.making import check_prompts, key_missing

    check_prompts(recipe.make.prompts)
    name = recipe.make.client
    if recipe.make.budget_usd is not None and price_of(name, recipe.make.prices_by_model()) is None:
        raise UserError(
            f"make.budget_usd: the price of {name} is not known, so it cannot be kept; give make.prices, or make.budget_tokens."
        )
    missing = key_missing(name)
    return [
        f"make      {', '.join(recipe.make.names())} with {name}: nothing is asked in a dry run"
        + (f"; before the real one, set {missing}" if missing else "")
    ]


def _small_step(recipe: Recipe, name: str, work: Path, notes: list[str]) -> dict[str, Any]:
    """A step of two optimiser steps, in the recipe's own settings but for its size."""
    from personalign.models import choose_device
    from personalign.training.budget import memory_limit
    from personalign.training.trackers import require_trackers

    step = recipe.steps()[name]
    require_trackers(step.trackers)
    if step.max_memory is not None:
        memory_limit(step.max_memory, choose_device())
    small = step.model_dump(mode="json") | SMALL | {"batch": min(step.batch, 4), "seeds": min(step.seeds, SEEDS)}
    if step.seeds > SEEDS:
        notes.append(f"seeds     {SEEDS} of {step.seeds} are trained")
    if step.data is not None:
        small["data"] = _small_data(recipe.data_of(step), work / "data" / name)
    if step.start is not None:
        if step.start in recipe.steps():
            small["start"] = step.start
        else:
            notes.append(
                f"{name:<9} {adapter_folder(step.start, 'start:')} is there; here it starts from the tiny model"
            )
    if step.optimizer == "paged_adamw_8bit" and choose_device().type != "cuda":
        small["optimizer"] = "adamw"
        notes.append(f"{name:<9} paged_adamw_8bit needs CUDA, so it was not checked: adamw stands in")
    if step.method == "ppo":
        small |= SMALL_PPO
        if step.reward not in recipe.steps():
            del small["reward"]
            found = reward_folder(str(step.reward), "reward:")
            notes.append(f"{name:<9} {found} is there; here a tiny reward model stands in")
    return small


def _small_data(data: Data, folder: Path) -> dict[str, Any]:
    """The recipe's data, as `_sampled` wrote them."""
    if data.source == (EVERYDAY,):
        return {"source": EVERYDAY, "limit": 8}
    return {"source": str(folder / f"{PLACE}.jsonl"), "held_out": 0.34 if data.held_out else 0.0}


def _sampled(recipe: Recipe, work: Path) -> list[str]:
    """Write a handful of every file's rows below work/data; of files that are not here, rows of our own. Says which."""
    notes: list[str] = []
    missing: dict[str, str] = {}
    for single in recipe.each().values():
        for place, (method, data, _) in rows.places(single).items():
            if data.source == (EVERYDAY,):
                continue
            absent = [source for source in data.source if source.startswith("hf:") or not Path(source).is_file()]
            if absent:
                found = _made_up(method, recipe.language)
                missing |= dict.fromkeys(absent, ", ".join(_form(found[0])))
            else:
                train, held_out = rows.rows_of(single, method, data)
                found = _few([*train, *held_out])
                said = f"{', '.join(data.source)}: {len(train)} rows to learn from, {len(held_out)} held out"
                notes.append(f"data      {said}; {len(found)} used here")
            assert not isinstance(single.persona, tuple)
            rows.write_rows(work / place / f"{recipes.label(single.persona)}.jsonl", found)
    for form in dict.fromkeys(missing.values()):
        names = [source for source, own in missing.items() if own == form]
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        verb = "are" if len(names) > 1 else "is"
        notes.append(f"data      {shown} {verb} not here: {ROWS} rows of our own ({form}) stand in")
    return notes


def _few(found: rows.Rows) -> list[rows.AnyRow]:
    """Up to a dozen rows with prompts of their own, evenly spaced, every text cut short."""
    each = list({opening(row): row for row in found}.values())
    count = min(ROWS, len(each))
    return [_cut(each[at * len(each) // count]) for at in range(count)]


def _cut(row: rows.AnyRow) -> rows.AnyRow:
    def short(messages: list[Any]) -> list[Any]:
        return [{**message, "content": message["content"].strip()[:CHARACTERS]} for message in messages]

    if isinstance(row, Conversation):
        return Conversation(short(row.messages), row.source)
    if isinstance(row, Pair):
        return Pair(short(row.prompt), row.chosen[:CHARACTERS], row.rejected[:CHARACTERS], row.source)
    if isinstance(row, Ranking):
        return Ranking(short(row.prompt), [text[:CHARACTERS] for text in row.completions], row.ranks, row.source)
    return Prompt(short(row.prompt), row.source)


def _made_up(method: str | None, language: str) -> list[rows.AnyRow]:
    """Rows in the form that a method wants, from the bundled situations."""
    made: list[rows.AnyRow] = []
    for situation in everyday(language)[:ROWS]:
        prompt: list[Any] = [{"role": "user", "content": situation.text}]
        first, second, third = (situation.answers[pole] for pole in "ENI")
        if method == "sft":
            made.append(Conversation([*prompt, {"role": "assistant", "content": first}], situation.id))
        elif method == "reward":
            made.append(Ranking(prompt, [first, second, third], [0, 1, 2], situation.id))
        elif method == "ppo":
            made.append(Prompt(prompt, situation.id))
        else:
            made.append(Pair(prompt, first, third, situation.id))
    return made


def _form(row: rows.AnyRow) -> list[str]:
    return [name for name in vars(row) if name != "source"]


def _say_passed(small: Recipe) -> None:
    """A line for each stage that ran."""
    names = {
        "persona": "written and read",
        "data": "read, split, written",
        **{name: f"{step.method}, two steps, checkpoints and adapter written" for name, step in small.steps().items()},
    }
    if small.evaluate is not None:
        names |= {"evaluate": "every arm on a few items, pairs and answers", "report": "written"}
    for name, what in names.items():
        print(f"{name:<9} ok: {what}")
