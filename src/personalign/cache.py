"""A step of a run that is done once: it runs again only when what it depends on, or what it left, has changed."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from personalign.files import file_hash, write_whole
from personalign.processes import rank, wait
from personalign.recipe import Recipe

Inputs = dict[str, Any]
Run = tuple[Recipe, Path]  # an ordinary recipe, and the folder that its results go into


@dataclass(frozen=True)
class Stage:
    """A step: what its result depends on (as JSON), how it is made, and the files and folders that it leaves.

    `make` makes it for one run, in the main process. With `make_all` instead, several runs are made in one pass in which
    every process takes part.
    """

    inputs: Callable[[Recipe, Path], Inputs]
    make: Callable[[Recipe, Path], None] | None
    outputs: tuple[str, ...]
    make_all: Callable[[Sequence[Run]], None] | None = None


def bring_up_to_date(name: str, stage: Stage, runs: Sequence[Run], labels: Sequence[str] = ("",)) -> list[Path]:
    """Make the stage in each run's folder unless its stages/<name>.json says that nothing has changed since it was made.

    Its inputs must be those it was made from and its outputs as it left them. Returns the folders where it was made now.
    The record is written last, so that a stage killed at any moment is made again. `labels` name the runs to the user.
    Processes other than the main one only take part in `make_all`, for which they wait.
    """
    main, due = rank() == 0, []
    if stage.make_all is not None:
        wait()  # for the main process, until all that comes before is there
    elif not main:
        return []
    for (recipe, folder), label in zip(runs, labels, strict=True):
        inputs = json.loads(json.dumps(stage.inputs(recipe, folder)))
        record = _record(folder, name)
        if record and record["inputs"] == inputs and record["outputs"] == _hashes(folder, stage.outputs):
            _say(name, label, "done before")
            continue
        changed = [key for key in inputs if record and record["inputs"].get(key) != inputs[key]]
        _say(name, label, "starts" + (f" again ({', '.join(changed)} changed)" if changed else ""))
        if stage.make is not None:
            started = time.monotonic()
            stage.make(recipe, folder)
            _done(name, stage, folder, inputs, started, label)
        due.append((recipe, folder, inputs, label))
    if due and stage.make_all is not None:
        wait()  # until every process has seen what is due
        started = time.monotonic()
        stage.make_all([(recipe, folder) for recipe, folder, _, _ in due])
        for _, folder, inputs, label in due if main else ():
            _done(name, stage, folder, inputs, started, label)
    return [folder for _, folder, _, _ in due]


def _done(name: str, stage: Stage, folder: Path, inputs: Inputs, started: float, label: str) -> None:
    seconds = round(time.monotonic() - started, 1)
    record = {"stage": name, "inputs": inputs, "outputs": _hashes(folder, stage.outputs), "seconds": seconds}
    write_whole(folder / "stages" / f"{name}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _say(name, label, f"done in {seconds:.0f} s")


def made(folder: Path, name: str) -> dict[str, str]:
    """SHA-256 of each file that a stage left, by path below the run directory; {} where it has not run."""
    record = _record(folder, name)
    return record["outputs"] if record else {}


def bundled(package: str, name: str) -> str:
    """SHA-256 of a file that comes with this package."""
    return file_hash(Path(str(resources.files(package) / name)))


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / "stages" / f"{name}.json"
    record: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return record


def _hashes(folder: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    """Hash of every file that is one of the outputs or lies in one."""
    found: dict[str, str] = {}
    for output in outputs:
        path = folder / output
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        found |= {each.relative_to(folder).as_posix(): file_hash(each) for each in files}
    return found


def _say(name: str, label: str, what: str) -> None:
    if rank() == 0:
        print(f"{name:<9} {label + ' ' if label else ''}{what}", file=sys.stderr, flush=True)
