"""The stages of a run, each as three things: what it depends on, how it is made, what it leaves."""

import json
import random
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from personalign import __version__
from personalign.cache import Inputs, Stage, file_hash, made
from personalign.datasets import (
    Conversation,
    Pair,
    Situation,
    chosen_conversation,
    everyday,
    read,
    read_conversations,
    read_pairs,
    split,
    type_pairs,
)
from personalign.datasets.records import opening
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.personas import Persona
from personalign.recipe import EVERYDAY, Recipe
from personalign.training.settings import DpoSettings, SftSettings

Rows = list[Pair] | list[Conversation]
NOT_IN_RESULTS = {"method", "checkpoint_every", "trackers", "ignore_memory"}  # settings that leave the weights alone


def _persona_inputs(recipe: Recipe, folder: Path) -> Inputs:
    return {"persona": recipe.who().model_dump(mode="json")}


def _make_persona(recipe: Recipe, folder: Path) -> None:
    recipe.who().to_yaml(folder / "persona.yaml")


def _data_inputs(recipe: Recipe, folder: Path) -> Inputs:
    if recipe.data.source == (EVERYDAY,):
        content = {EVERYDAY: _bundled("personalign.datasets", "everyday.jsonl")}
    else:
        content = {source: _content(source) for source in recipe.data.source}
    answers = recipe.evaluate.answers if recipe.evaluate is not None else 0
    return {
        "data": recipe.data.model_dump(mode="json"), "content": content, "poles": recipe.poles(), "answers": answers,
        "language": recipe.language, "seed": recipe.seed, "method": recipe.train.method if recipe.train else None,
    }  # fmt: skip


def _content(source: str) -> str:
    """What a source's rows depend on: a file's content, of the hub only the name."""
    if source.startswith("hf:"):
        return source
    if not Path(source).is_file():
        raise UserError(f"data.source: {source}: there is no such file; mend the path (it starts from where you are).")
    return file_hash(Path(source))


def _make_data(recipe: Recipe, folder: Path) -> None:
    train, held_out = _rows(recipe)
    limit = recipe.data.limit
    if limit is not None and limit < len(train):
        if recipe.data.source == (EVERYDAY,):
            train = train[:limit]  # made so that any first part of it holds all axes in equal number
        else:
            chosen = set(random.Random(recipe.seed).sample(range(len(train)), limit))
            train = [row for at, row in enumerate(train) if at in chosen]  # type: ignore[assignment]
    _write_rows(folder / "data" / "train.jsonl", train)
    _write_rows(folder / "data" / "held_out.jsonl", held_out)
    answers = recipe.evaluate.answers if recipe.evaluate is not None else 0
    shown = [asdict(each) for each in _situations(recipe, held_out, answers)]
    write_whole(folder / "data" / "situations.json", json.dumps(shown, ensure_ascii=False, indent=1) + "\n")


def _rows(recipe: Recipe) -> tuple[Rows, Rows]:
    """(train, held out): pairs wherever the source has them, else conversations."""
    data = recipe.data
    if data.source == (EVERYDAY,):
        poles = recipe.poles()
        parts = ("train", "held_out") if poles else ()
        pairs = [type_pairs(poles, recipe.language, part) for part in parts]  # type: ignore[arg-type]
        return (pairs[0], pairs[1]) if pairs else ([], [])
    as_pairs = recipe.train is not None and recipe.train.method == "dpo"
    if as_pairs or all(read(each, columns=data.columns).kind == "pairs" for each in data.source):
        found = [row for each in data.source for row in read_pairs(each, columns=data.columns, prefer=data.prefer)]
        return split(found, data.held_out, recipe.seed)
    talks = [row for each in data.source for row in read_conversations(each, columns=data.columns)]
    return split(talks, data.held_out, recipe.seed)


def _situations(recipe: Recipe, held_out: Rows, count: int) -> list[Situation]:
    """Held-out prompts to be answered by every arm, evenly spaced through what there is."""
    if recipe.data.source == (EVERYDAY,):
        found = everyday(recipe.language, "held_out")
    else:
        prompts = dict.fromkeys(opening(row) for row in held_out)
        found = [Situation(f"held-out-{at}", "", "held_out", text, {}) for at, text in enumerate(prompts, 1)]
    count = min(count, len(found))
    return [found[at * len(found) // count] for at in range(count)]


def _train_inputs(recipe: Recipe, folder: Path) -> Inputs:
    assert recipe.train is not None
    return {
        **_model_inputs(recipe), "method": recipe.train.method,
        "settings": recipe.train.model_dump(mode="json", exclude=NOT_IN_RESULTS),
        "data": {path: digest for path, digest in made(folder, "data").items() if path != "data/situations.json"},
    }  # fmt: skip


def _model_inputs(recipe: Recipe) -> Inputs:
    from personalign.models import fingerprint

    template = recipe.template
    if template is not None and Path(template).is_file():
        template = file_hash(Path(template))
    return {"model": fingerprint(recipe.model), "template": template}


def _make_train(recipe: Recipe, folder: Path) -> None:
    from personalign.models import add_adapter, fingerprint
    from personalign.training.methods import train_dpo, train_sft

    assert recipe.train is not None
    settings = recipe.train
    rows, held_out = read_rows(folder / "data" / "train.jsonl"), read_rows(folder / "data" / "held_out.jsonl")
    if not rows:
        raise UserError("data.source: there are no rows to train on; give more rows or a smaller `data.held_out`.")
    model, tokenizer = _load(recipe)
    lora = settings.lora
    model = add_adapter(
        model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, seed=settings.seed,
        base=recipe.model,
    )  # fmt: skip
    base = fingerprint(recipe.model)
    plain = settings.model_dump(exclude={"method"})
    if settings.method == "dpo":
        train_dpo(model, tokenizer, _pairs(rows), _pairs(held_out), DpoSettings(**plain), folder / "train", base=base)
    else:
        learn, unseen = _conversations(rows), _conversations(held_out)
        train_sft(model, tokenizer, learn, unseen, SftSettings(**plain), folder / "train", base=base)


def _load(recipe: Recipe) -> tuple[Any, Any]:
    from personalign.models import load_model, resolve
    from personalign.terminal import quiet_loading

    resolve(recipe.model)  # a download, if there is one, with its own progress
    quiet_loading()
    precision = recipe.train.precision if recipe.train is not None else "auto"
    return load_model(
        recipe.model, precision=precision, template=recipe.template, trust_remote_code=recipe.trust_remote_code
    )


def _evaluate_inputs(recipe: Recipe, folder: Path) -> Inputs:
    assert recipe.evaluate is not None
    given = sorted(Path(recipe.adapter).glob("*")) if recipe.adapter is not None else []
    adapter = {path.name: file_hash(path) for path in given}
    return {
        **_model_inputs(recipe), "persona": made(folder, "persona"), "data": made(folder, "data"),
        "adapter": adapter or made(folder, "train"), "evaluate": recipe.evaluate.model_dump(mode="json"),
        "inventory": _bundled("personalign.evaluation", "inventory.jsonl"), "seed": recipe.seed,
        "precision": recipe.train.precision if recipe.train else "auto",
        "poles": recipe.poles(), "personalign": __version__,
    }  # fmt: skip


def _make_evaluate(recipe: Recipe, folder: Path) -> None:
    from personalign.evaluation.arms import ARMS
    from personalign.evaluation.measure import measure
    from personalign.models import fingerprint, load_adapter

    assert recipe.evaluate is not None
    model, tokenizer = _load(recipe)
    adapter = folder / "train" / "adapter" if recipe.train is not None else recipe.adapter
    if adapter is not None:
        model = load_adapter(model, adapter)
    pairs = _pairs(row for row in read_rows(folder / "data" / "held_out.jsonl") if isinstance(row, Pair))
    situations = json.loads((folder / "data" / "situations.json").read_text(encoding="utf-8"))
    measure(
        model,
        tokenizer,
        Persona.from_yaml(folder / "persona.yaml"),
        pairs[: recipe.evaluate.pairs],
        base={"name": recipe.model, "fingerprint": fingerprint(recipe.model)},
        folder=folder / "evaluation",
        arms=[arm for arm in ARMS if arm.name in recipe.evaluate.arms and (adapter is not None or not arm.adapter)],
        poles=recipe.poles(),
        language=recipe.language,
        share=recipe.evaluate.share,
        situations=[Situation(**each) for each in situations],
        training=_training(folder) if recipe.train is not None else None,
        seed=recipe.seed,
    )


def _training(folder: Path) -> dict[str, Any]:
    """What the summary says about training."""
    done = json.loads((folder / "train" / "training.json").read_text(encoding="utf-8"))
    lines = (folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads((folder / "stages" / "train.json").read_text(encoding="utf-8"))
    return {
        "method": record["inputs"]["method"], "pairs": done["examples"], "steps": done["steps"],
        "seconds": done["seconds"], "dropped": done.get("dropped", 0), "truncated": done.get("truncated", 0),
        "curve": [json.loads(line) for line in lines],
    }  # fmt: skip


def _report_inputs(recipe: Recipe, folder: Path) -> Inputs:
    summary = {path: digest for path, digest in made(folder, "evaluate").items() if path.endswith("summary.json")}
    return {"summary": summary, "language": recipe.report.language or recipe.language, "personalign": __version__}


def _make_report(recipe: Recipe, folder: Path) -> None:
    from personalign.evaluation.report import write_report

    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    write_report(summary, folder, recipe.report.language or recipe.language)


def _bundled(package: str, name: str) -> str:
    return file_hash(Path(str(files(package) / name)))


def read_rows(path: Path) -> list[Pair | Conversation]:
    """Rows as the data stage wrote them."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [Pair(**row) if "chosen" in row else Conversation(**row) for row in found]


def _write_rows(path: Path, rows: Rows) -> None:
    write_whole(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def _pairs(rows: Any) -> list[Pair]:
    return [row for row in rows if isinstance(row, Pair)]


def _conversations(rows: Any) -> list[Conversation]:
    return [chosen_conversation(row) if isinstance(row, Pair) else row for row in rows]


STAGES = {
    "persona": Stage(_persona_inputs, _make_persona, ("persona.yaml",)),
    "data": Stage(_data_inputs, _make_data, ("data/train.jsonl", "data/held_out.jsonl", "data/situations.json")),
    "train": Stage(_train_inputs, _make_train, ("train/adapter", "train/training.json", "train/metrics.jsonl")),
    "evaluate": Stage(_evaluate_inputs, _make_evaluate, ("evaluation/summary.json", "evaluation/results.jsonl")),
    "report": Stage(_report_inputs, _make_report, ("report.md", "report.html", "report.json", "figures")),
}
