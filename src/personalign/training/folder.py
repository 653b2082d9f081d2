"""The files of a training run: metrics.jsonl grows, training.json marks it as finished, earlier runs are kept."""

import json
import sys
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a JSONL file that only grows; a half-written last one is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def finished(folder: Path, digest: str) -> dict[str, Any] | None:
    """What training.json says, if it is of this digest and its adapter is still there."""
    path = folder / "training.json"
    if path.is_file():
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if summary["digest"] == digest and (folder / "adapter" / "adapter_model.safetensors").is_file():
            return summary
    return None


def set_aside(folder: Path) -> None:
    """Move what an earlier run with other settings left in the folder to folder/earlier-N: nothing computed is lost.

    A run that was killed before its first checkpoint left only a log of steps that are now made again.
    """
    left = [path for path in folder.iterdir() if not path.name.startswith(("earlier-", "."))]
    if [path.name for path in left] == ["metrics.jsonl"]:
        left[0].unlink()
    elif left:
        number = 1 + sum(1 for _ in folder.glob("earlier-*"))
        aside = folder / f"earlier-{number}"
        aside.mkdir()
        for path in left:
            path.rename(aside / path.name)
        said = f"{folder}: holds a run with other settings or data; moved it to {aside.name} and started anew"
        print(said, file=sys.stderr)
