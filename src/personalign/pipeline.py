"""Walks a recipe: persona -> data -> train -> evaluate -> report, in one run directory.

    runs/<name>/recipe.yaml, versions.json          what was asked for, and what ran it
    runs/<name>/stages/<stage>.json                 inputs and outputs of each stage that is done, as hashes
    runs/<name>/persona.yaml, data/, train/ (adapter/, metrics.jsonl), evaluation/, report.{md,html,json}, figures/

A stage runs again when its inputs are others than those it ran with, or its outputs are no longer as it left them. An
interrupted one is simply called again: training and evaluation find by themselves what of the work is done. Nothing is
ever deleted.
"""

import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from personalign import __version__
from personalign.cache import Stage, bring_up_to_date
from personalign.errors import UserError
from personalign.files import write_whole
from personalign.locks import locked
from personalign.recipe import Recipe, dump
from personalign.stages import STAGES
from personalign.terminal import side_by_side, wrap

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def run(recipe: Recipe, stages: Mapping[str, Stage] = STAGES) -> Path:
    """Bring every stage that the recipe asks for up to date, in order, and return the run directory.

    Raises UserError for a folder that holds something else, cannot be written or is in use, and whatever a stage refuses.
    """
    folder = _prepare(recipe)
    left_out = {"train"} if recipe.train is None else set()
    left_out |= {"evaluate", "report"} if recipe.evaluate is None else set()
    busy = f"{folder}: another run is at work in it; wait for it, or give another `output` folder."
    with locked(folder / ".lock", busy):
        dump(recipe, folder / "recipe.yaml")
        for name, stage in stages.items():
            if name not in left_out and bring_up_to_date(name, stage, recipe, folder):
                write_whole(folder / "versions.json", json.dumps(_versions(recipe), indent=1) + "\n")
    return folder


def show(recipe: Recipe) -> None:
    """Print what came of it: where the adapter lies, the table, the answers side by side, and where the report lies."""
    folder = recipe.folder()
    if recipe.train is not None:
        print(f"adapter: {folder / 'train' / 'adapter'}")
    if recipe.evaluate is None:
        return
    from personalign.evaluation.report import table
    from personalign.evaluation.views import arm_label

    language = recipe.report.language or recipe.language
    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    columns = shutil.get_terminal_size((110, 24)).columns
    print(f"\n{table(summary, language)}")
    for answer in summary["answers"]:
        print("\n".join(wrap(f"> {answer['prompt']}", columns)))
        said = {arm_label(arm, language): text for arm, text in answer["answers"].items()}
        print(side_by_side(said, columns) + "\n")
    print(f"report: {folder / 'report.html'}")


def _prepare(recipe: Recipe) -> Path:
    """The run directory, which can be written."""
    folder = recipe.folder()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "stages").is_dir():
        raise UserError(f"{folder}: holds files that are no run of personalign; give another `output` folder.")
    try:
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise UserError(
            f"{folder}: the run folder cannot be written ({error.strerror}); give another `output` folder."
        ) from None
    return folder


def _versions(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {"personalign": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"platform": platform.platform(), "seed": recipe.seed}
