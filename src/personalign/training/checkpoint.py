"""Checkpoints that survive a kill at any moment: tensors in safetensors, the rest in JSON, written beside and renamed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from personalign.errors import UserError, disk_errors

PREFIX = "checkpoint-"


def write_checkpoint(folder: Path, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Make `folder`/checkpoint-<step> durable, then remove older ones. There is a whole one on disk at every moment.

    Raises UserError if the disk does not take it (full, read-only); what was there before stays.
    """
    final = folder / f"{PREFIX}{step:08d}"
    work = folder / f".{PREFIX}{step:08d}.partial"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with disk_errors(work):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "tensors.safetensors")
        (work / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for path in work.iterdir():
            _sync(path)
        _sync(work)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise UserError(
            f"{final}: the checkpoint could not be written ({error.strerror or error}); free some space and run the same "
            "command again: it continues from the checkpoint before."
        ) from error
    for path in _found(folder):
        if path != final:
            shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint in `folder` as (tensors, state), or None. Raises UserError for a damaged one."""
    found = _found(folder)
    if not found:
        return None
    try:
        state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        return load_file(found[-1] / "tensors.safetensors"), state
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{found[-1]}: the checkpoint is damaged ({str(error).splitlines()[0]}); remove that folder to train from the start."
        ) from error


def remove_checkpoints(folder: Path) -> None:
    """Delete every checkpoint in `folder`, whole and partial."""
    for path in [*_found(folder), *folder.glob(f".{PREFIX}*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def _found(folder: Path) -> list[Path]:
    """Whole checkpoints (the rename is the last thing that happens to one), oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a rename alone does not order the data before it."""
    if os.name == "nt":
        return  # folders cannot be opened there; NTFS journals the rename
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
