"""The stages of a run, each as three things: what it depends on, how it is made, what it leaves.

make -> persona -> data -> each step of training -> evaluate -> report. What a language model makes is made once for all
personas. Of several runs (personas, seeds) the training is done in one pass; the seeds of one persona are evaluated
together, in the folder that holds them.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from personalign import __version__, making, rows
from personalign.cache import Inputs, Stage, bundled, made
from personalign.datasets import Pair, Situation
from personalign.files import file_hash
from personalign.learning import learn, learning_inputs, learning_outputs, load, model_inputs
from personalign.personas import Persona
from personalign.recipe import Recipe


def make_stage() -> Stage:
    """What comes before all others, once for the whole recipe, where it has a `make`."""
    return Stage(making.inputs, making.make, ("made",))


def stages(recipe: Recipe) -> tuple[dict[str, Stage], dict[str, Stage]]:
    """What is done for every single run of the recipe, by name and in order; then what is done for each persona."""
    single = {
        "persona": Stage(_persona_inputs, _make_persona, ("persona.yaml",)),
        "data": Stage(rows.inputs, rows.make, rows.outputs(recipe)),
        **{
            step: Stage(partial(learning_inputs, step), None, learning_outputs(recipe, step), partial(learn, step))
            for step in recipe.steps()
        },
    }
    if recipe.evaluate is None:
        return single, {}
    return single, {
        "evaluate": Stage(_evaluate_inputs, _make_evaluate, ("evaluation/summary.json", "evaluation/results.jsonl")),
        "report": Stage(_report_inputs, _make_report, ("report.md", "report.html", "report.json", "figures")),
    }


def _persona_inputs(recipe: Recipe, folder: Path) -> Inputs:
    return {"persona": recipe.who().model_dump(mode="json")}


def _make_persona(recipe: Recipe, folder: Path) -> None:
    recipe.who().to_yaml(folder / "persona.yaml")


def _evaluate_inputs(recipe: Recipe, folder: Path) -> Inputs:
    assert recipe.evaluate is not None
    given = sorted(Path(recipe.adapter).glob("*")) if recipe.adapter is not None else []
    adapter: dict[str, Any] = {path.name: file_hash(path) for path in given}
    if (policy := recipe.policy()) is not None:
        seeds = {seed: made(folder / seed, policy) for seed in recipe.by_seed()}
        adapter = seeds.get("", seeds)
    first = folder / next(iter(recipe.by_seed()))
    return {
        **model_inputs(recipe), "persona": made(first, "persona"), "data": made(first, "data"),
        "adapter": adapter, "evaluate": recipe.evaluate.model_dump(mode="json"),
        "inventory": bundled("personalign.evaluation", "inventory.jsonl"), "seed": recipe.seed,
        "precision": _precision(recipe), "poles": recipe.poles(), "personalign": __version__,
    }  # fmt: skip


def _make_evaluate(recipe: Recipe, folder: Path) -> None:
    from personalign.evaluation.arms import ARMS
    from personalign.evaluation.measure import measure
    from personalign.models import load_adapter

    assert recipe.evaluate is not None
    model, tokenizer, base = load(recipe, _precision(recipe))
    policy, seeds = recipe.policy(), [seed for seed in recipe.by_seed() if seed]
    first = folder / next(iter(recipe.by_seed()))
    adapter = first / policy / "adapter" if policy is not None else recipe.adapter
    if adapter is not None and not seeds:
        model = load_adapter(model, adapter)
    held_out = rows.read_rows(first / "data" / "held_out.jsonl")
    situations = json.loads((first / "data" / "situations.json").read_text(encoding="utf-8"))
    measure(
        model,
        tokenizer,
        Persona.from_yaml(first / "persona.yaml"),
        [row for row in held_out if isinstance(row, Pair)][: recipe.evaluate.pairs],
        base={"name": recipe.model, "fingerprint": base},
        folder=folder / "evaluation",
        arms=[arm for arm in ARMS if arm.name in recipe.evaluate.arms and (adapter is not None or not arm.adapter)],
        poles=recipe.poles(),
        language=recipe.language,
        share=recipe.evaluate.share,
        situations=[Situation(**each) for each in situations],
        training=_training(first, policy) if policy is not None else None,
        seeds={seed: folder / seed / policy / "adapter" for seed in seeds} if policy is not None else None,
        seed=recipe.seed,
    )


def _precision(recipe: Recipe) -> str:
    """That of the last policy's training, in which it is measured."""
    step = recipe.steps().get(recipe.policy() or "")
    return step.precision if step is not None else "auto"


def _training(folder: Path, step: str) -> dict[str, Any]:
    """What the summary says about training (of several seeds, about that of the first)."""
    done = json.loads((folder / step / "training.json").read_text(encoding="utf-8"))
    lines = (folder / step / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "method": done["method"], "pairs": done["examples"], "steps": done["steps"], "seconds": done["seconds"],
        "dropped": done.get("dropped", 0), "truncated": done.get("truncated", 0),
        "curve": [json.loads(line) for line in lines],
    }  # fmt: skip


def _report_inputs(recipe: Recipe, folder: Path) -> Inputs:
    summary = {path: digest for path, digest in made(folder, "evaluate").items() if path.endswith("summary.json")}
    return {"summary": summary, "language": recipe.report.language or recipe.language, "personalign": __version__}


def _make_report(recipe: Recipe, folder: Path) -> None:
    from personalign.evaluation.report import write_report

    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    write_report(summary, folder, recipe.report.language or recipe.language)
