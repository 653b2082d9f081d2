"""Walks a recipe: make -> persona -> data -> train -> evaluate -> report, in one run directory.

    runs/<name>/recipe.yaml, versions.json          what was asked for, and what ran it
    runs/<name>/stages/<stage>.json                 inputs and outputs of each stage that is done, as hashes
    runs/<name>/ledger.sqlite, made/                what a language model made, once for all personas, and what that cost
    runs/<name>/persona.yaml, data/, train/ (adapter/, metrics.jsonl), evaluation/, report.{md,html,json}, figures/
    runs/<name>/sft/, reward/, ppo/                 in place of train/, where it is a list of steps
    runs/<name>/<persona>/..., .../seed-<n>/...     the same again for each of several personas and training seeds

A stage runs again when its inputs are others than those it ran with, or its outputs are no longer as it left them. An
interrupted one is simply called again: training and evaluation find by themselves what of the work is done. Nothing is
ever deleted.
"""

import json
import platform
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from personalign import __version__
from personalign.cache import Stage, bring_up_to_date
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.locks import locked
from personalign.processes import rank, wait
from personalign.recipe import Recipe, dump
from personalign.stages import make_stage
from personalign.stages import stages as stages_of
from personalign.terminal import side_by_side, wrap

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def run(recipe: Recipe, stages: Mapping[str, Stage] | None = None) -> Path:
    """Bring every stage that the recipe asks for up to date, in order, and return the run directory.

    Several personas and seeds go through it stage by stage, side by side. `stages` are done instead of the recipe's.
    Raises UserError for a folder that holds something else, cannot be written or is in use, and whatever a stage refuses.
    """
    whole, main = recipe.folder(), rank() == 0
    if main:
        prepare(whole)
    busy = f"{whole}: another run is at work in it; wait for it, or give another `output` folder."
    with locked(whole / ".lock", busy) if main else nullcontext():
        if main:
            dump(recipe, whole / "recipe.yaml")
        if stages is None and recipe.make is not None:
            bring_up_to_date("make", make_stage(), [(recipe, whole)])
            wait()  # a persona that it makes is, from here on, a file of the run
        personas = {name: (each, each.folder()) for name, each in recipe.each().items()}
        singles = {
            "/".join(filter(None, [name, seed])): (each, each.folder())
            for name, (persona, _) in personas.items()
            for seed, each in persona.by_seed().items()
        }
        for each, folder in [*personas.values(), *singles.values()] if main else ():
            if folder != whole:
                prepare(folder)
                dump(each, folder / "recipe.yaml")
        for_single, for_persona = stages_of(recipe) if stages is None else (stages, {})
        for runs, todo in ((singles, for_single), (personas, for_persona)):
            for name, stage in todo.items():
                for folder in bring_up_to_date(name, stage, list(runs.values()), list(runs)):
                    if main:
                        write_whole(folder / "versions.json", json.dumps(_versions(recipe), indent=1) + "\n")
    return whole


def show(recipe: Recipe) -> None:
    """Print what came of it: adapters, verdicts on reward models, the table, the answers side by side, and the reports."""
    if rank() != 0:
        return
    personas = recipe.each().values()
    for persona in personas:
        for single in persona.by_seed().values():
            _show_training(single)
    if recipe.evaluate is None:
        return
    if len(personas) > 1:
        for persona in personas:
            print(f"report: {persona.folder() / 'report.html'}")
        return
    _show_measured(recipe)


def _show_training(recipe: Recipe) -> None:
    folder, language = recipe.folder(), recipe.report.language or recipe.language
    for name, step in recipe.steps().items():
        adapter = folder / name / "adapter"
        print(f"adapter: {adapter}")
        if step.method == "reward":
            from personalign.evaluation.gate import read_gate
            from personalign.evaluation.gate_report import gate_table

            if (gate := read_gate(adapter)) is not None:
                print(f"\n{gate_table(gate, language)}\n")
        if (after := folder / name / "before_after.json").is_file():
            from personalign.evaluation.before_after_report import before_after_table

            print(f"\n{before_after_table(json.loads(after.read_text(encoding='utf-8')), language)}")
            print(f"report: {folder / name / 'before-after.html'}")


def _show_measured(recipe: Recipe) -> None:
    from personalign.evaluation.report import table
    from personalign.evaluation.views import arm_label

    folder, language = recipe.folder(), recipe.report.language or recipe.language
    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    columns = shutil.get_terminal_size((110, 24)).columns
    print(f"\n{table(summary, language)}")
    for answer in summary["answers"]:
        print("\n".join(wrap(f"> {answer['prompt']}", columns)))
        said = {arm_label(arm, language): text for arm, text in answer["answers"].items()}
        print(side_by_side(said, columns) + "\n")
    print(f"report: {folder / 'report.html'}")


def prepare(folder: Path) -> None:
    """Make sure that the run directory is one, and can be written."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "stages").is_dir():
        raise UserError(f"{folder}: holds files that are no run of personalign; give another `output` folder.")
    try:
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise UserError(
            f"{folder}: the run folder cannot be written ({error.strerror}); give another `output` folder."
        ) from None


def _versions(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {"personalign": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"platform": platform.platform(), "seed": recipe.seed}
