"""The data stage: from the sources of a recipe to rows that are trained on and rows that are kept apart.

    data/train.jsonl, data/held_out.jsonl           one thing is trained
    data/<step>/train.jsonl, .../held_out.jsonl     in a list of steps, of each
    data/held_out.jsonl, data/situations.json       what the evaluation measures

No prompt that is held out anywhere is trained on in any step: else a policy would be judged by what it has learned.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from personalign.cache import Inputs, bundled
from personalign.datasets import (
    Conversation,
    Pair,
    Prompt,
    Ranking,
    Situation,
    everyday,
    portion,
    read,
    read_conversations,
    read_pairs,
    read_prompts,
    read_rankings,
    split,
    type_pairs,
)
from personalign.datasets.records import opening
from personalign.errors import UserError
from personalign.files import file_hash, read_jsonl, write_whole
from personalign.recipe import Recipe
from personalign.sources import EVERYDAY, Data

AnyRow: TypeAlias = Pair | Ranking | Conversation | Prompt
Rows: TypeAlias = Sequence[AnyRow]


def places(recipe: Recipe) -> dict[str, tuple[str | None, Data, bool]]:
    """The folders of rows, "data" first: of each the method (None: no training), the data, and whether it is trained on."""
    steps = recipe.steps()
    if not isinstance(recipe.train, tuple):
        return {"data": (next((step.method for step in steps.values()), None), recipe.data, True)}
    found: dict[str, tuple[str | None, Data, bool]] = {}
    if recipe.evaluate is not None:
        found["data"] = (None, recipe.data, False)
    return found | {f"data/{name}": (step.method, recipe.data_of(step), True) for name, step in steps.items()}


def place_of(recipe: Recipe, step: str) -> str:
    """The folder of the rows that a step learns from."""
    return f"data/{step}" if isinstance(recipe.train, tuple) else "data"


def outputs(recipe: Recipe) -> tuple[str, ...]:
    """What the data stage leaves."""
    files = []
    for place, (_, _, learned) in places(recipe).items():
        files += [f"{place}/train.jsonl"] if learned else []
        files.append(f"{place}/held_out.jsonl")
    return (*files, "data/situations.json")


def inputs(recipe: Recipe, folder: Path) -> Inputs:
    """What the rows depend on."""
    answers = recipe.evaluate.answers if recipe.evaluate is not None else 0
    common: Inputs = {"poles": recipe.poles(), "answers": answers, "language": recipe.language, "seed": recipe.seed}
    each = {
        place: {"data": data.model_dump(mode="json"), "content": _contents(data), "method": method}
        for place, (method, data, _) in places(recipe).items()
    }
    return {**each["data"], **common} if list(each) == ["data"] else {**each, **common}


def _contents(data: Data) -> dict[str, str]:
    """What a source's rows depend on: a file's content, of the hub only the name."""
    if data.source == (EVERYDAY,):
        return {EVERYDAY: bundled("personalign.datasets", "everyday.jsonl")}
    for source in data.source:
        if not source.startswith("hf:") and not Path(source).is_file():
            raise UserError(
                f"data.source: {source}: there is no such file; mend the path (it starts from where you are)."
            )
    return {source: source if source.startswith("hf:") else file_hash(Path(source)) for source in data.source}


def make(recipe: Recipe, folder: Path) -> None:
    """Read, split and write the rows of every step."""
    found = {place: rows_of(recipe, method, data) for place, (method, data, _) in places(recipe).items()}
    unseen = {opening(row) for _, held_out in found.values() for row in held_out}
    for place, (_, data, learned) in places(recipe).items():
        train, held_out = found[place]
        if learned:
            kept = [row for row in train if opening(row) not in unseen]
            if len(kept) < len(train):
                print(f"{place}: {len(train) - len(kept)} rows left out: held out elsewhere", file=sys.stderr)
            write_rows(folder / place / "train.jsonl", _limited(kept, data, recipe.seed))
        write_rows(folder / place / "held_out.jsonl", held_out)
    answers = recipe.evaluate.answers if recipe.evaluate is not None else 0
    shown = [asdict(each) for each in _situations(recipe, found["data"][1], answers)] if answers else []
    write_whole(folder / "data" / "situations.json", json.dumps(shown, ensure_ascii=False, indent=1) + "\n")


def _limited(rows: Rows, data: Data, seed: int) -> Rows:
    if data.limit is None or data.limit >= len(rows):
        return rows
    if data.source == (EVERYDAY,):
        return rows[: data.limit]  # made so that any first part of it holds all axes in equal number
    chosen = set(random.Random(seed).sample(range(len(rows)), data.limit))
    return [row for at, row in enumerate(rows) if at in chosen]


def rows_of(recipe: Recipe, method: str | None, data: Data) -> tuple[Rows, Rows]:
    """(train, held out) as the method wants them; for SFT and for measuring pairs wherever the source has them."""
    if data.source == (EVERYDAY,):
        return _everyday(recipe, method)
    found: Any
    if method == "reward":
        found = _apart(
            [row for each in data.source for row in read_rankings(each, columns=data.columns, prefer=data.prefer)]
        )
    elif method == "ppo":
        found = [row for each in data.source for row in read_prompts(each, columns=data.columns)]
    elif method == "dpo" or _kinds(data, method) <= {"pairs", "rankings"}:
        found = [row for each in data.source for row in read_pairs(each, columns=data.columns, prefer=data.prefer)]
    elif "prompts" in _kinds(data, method):
        found = [row for each in data.source for row in read_prompts(each, columns=data.columns)]
    else:
        found = [row for each in data.source for row in read_conversations(each, columns=data.columns)]
    mine = portion(found, *data.portion)
    if found and not mine:
        raise UserError(f"data.portion: {list(data.portion)} of {', '.join(data.source)} holds no row; widen it.")
    return split(mine, data.held_out, recipe.seed)


def _apart(rankings: list[Ranking]) -> list[Ranking]:
    """Without the rankings in which two answers read the same: no reward can rank them, and none is judged by them."""
    kept = [
        row for row in rankings if len({" ".join(text.split()) for text in row.completions}) == len(row.completions)
    ]
    if len(kept) < len(rankings):
        print(
            f"{len(rankings) - len(kept)} of {len(rankings)} rankings left out: answers that read the same",
            file=sys.stderr,
        )
    return kept


def _kinds(data: Data, method: str | None) -> set[str]:
    """What the files hold. To learn from, a ranking is its best answer; to measure, all its pairs, or prompts alone will do."""
    kinds: set[str] = set()
    for source in data.source:
        try:
            kind: str = read(source, columns=data.columns).kind
        except UserError:
            if method is not None:
                raise
            kind = "prompts"
        kinds.add("conversations" if kind == "rankings" and method is not None else kind)
    return kinds


def _everyday(recipe: Recipe, method: str | None) -> tuple[Rows, Rows]:
    if method == "ppo":
        said = (everyday(recipe.language, "train"), everyday(recipe.language, "held_out"))
        asked = [[Prompt([{"role": "user", "content": s.text}], f"everyday:{s.id}") for s in part] for part in said]
        return asked[0], asked[1]
    poles = recipe.poles()
    if not poles:
        return [], []
    train, held_out = type_pairs(poles, recipe.language, "train"), type_pairs(poles, recipe.language, "held_out")
    if method == "reward":
        ranked = [
            [Ranking(p.prompt, [p.chosen, p.rejected], [0, 1], p.source) for p in part] for part in (train, held_out)
        ]
        return ranked[0], ranked[1]
    return train, held_out


def _situations(recipe: Recipe, held_out: Rows, count: int) -> list[Situation]:
    """Held-out prompts to be answered by every arm, evenly spaced through what there is."""
    if recipe.data.source == (EVERYDAY,):
        found = everyday(recipe.language, "held_out")
    else:
        prompts = dict.fromkeys(opening(row) for row in held_out)
        found = [Situation(f"held-out-{at}", "", "held_out", text, {}) for at, text in enumerate(prompts, 1)]
    count = min(count, len(found))
    return [found[at * len(found) // count] for at in range(count)]


def read_rows(path: Path) -> list[AnyRow]:
    """Rows as the data stage wrote them."""
    found = read_jsonl(path)
    kinds: dict[str, type[AnyRow]] = {
        "chosen": Pair,
        "completions": Ranking,
        "messages": Conversation,
        "prompt": Prompt,
    }
    return [next(kind for key, kind in kinds.items() if key in row)(**row) for row in found]


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows as JSONL, whole or not at all."""
    write_whole(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
