"""A step of a run that is done once: it runs again only when what it depends on, or what it left, has changed."""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalign.files import write_whole
from personalign.recipe import Recipe

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A step: what its result depends on (as JSON), how it is made, and the files and folders that it leaves."""

    inputs: Callable[[Recipe, Path], Inputs]
    make: Callable[[Recipe, Path], None]
    outputs: tuple[str, ...]


def bring_up_to_date(name: str, stage: Stage, recipe: Recipe, folder: Path) -> bool:
    """Make the stage unless folder/stages/<name>.json says that nothing has changed since it was made.

    Its inputs must be those it was made from and its outputs as it left them. Returns whether it was made now. The
    record is written last, so that a stage killed at any moment is made again.
    """
    inputs = json.loads(json.dumps(stage.inputs(recipe, folder)))
    record = _record(folder, name)
    if record and record["inputs"] == inputs and record["outputs"] == _hashes(folder, stage.outputs):
        _say(f"{name:<9} done before")
        return False
    changed = [key for key in inputs if record and record["inputs"].get(key) != inputs[key]]
    _say(f"{name:<9} starts" + (f" again ({', '.join(changed)} changed)" if changed else ""))
    started = time.monotonic()
    stage.make(recipe, folder)
    seconds = round(time.monotonic() - started, 1)
    record = {"stage": name, "inputs": inputs, "outputs": _hashes(folder, stage.outputs), "seconds": seconds}
    write_whole(folder / "stages" / f"{name}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _say(f"{name:<9} done in {seconds:.0f} s")
    return True


def made(folder: Path, name: str) -> dict[str, str]:
    """SHA-256 of each file that a stage left, by path below the run directory; {} where it has not run."""
    record = _record(folder, name)
    return record["outputs"] if record else {}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, "missing" where there is none."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
