"""Log-probabilities under the frozen base, computed once for a dataset and kept on disk by content."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from personalign.errors import disk_errors
from personalign.home import home
from personalign.models import adapter_disabled
from personalign.progress import bar
from personalign.training.examples import content
from personalign.trees import Tree, logprobs


def reference_sums(model: Any, base: str, trees: Sequence[Tree], row_tokens: int) -> list[list[float]]:
    """For each tree the summed log-probability of each counted node under the base, its adapter switched off.

    Kept below the cache, keyed by `base` (the fingerprint of the weights), precision and every token of the trees: the
    same data on the same base is never scored twice.
    """
    digest = hashlib.sha256(f"{base} {next(model.parameters()).dtype} {row_tokens}".encode())
    digest.update(content(trees))
    path = home() / "reference" / f"{digest.hexdigest()[:32]}.safetensors"
    counts = [len(tree.counted) for tree in trees]
    if path.is_file():
        flat = load_file(path)["sums"]
    else:
        values: list[float] = []
        training = model.training
        model.eval()
        with adapter_disabled(model):
            size = 32  # trees a progress tick: enough to fill rows
            for at in bar(range(0, len(trees), size), "reference"):
                for nodes in logprobs(model, trees[at : at + size], row_tokens):
                    values += [float(node.double().sum()) for node in nodes]
        model.train(training)
        flat = torch.tensor(values, dtype=torch.float64)
        _keep(path, flat)
    return [part.tolist() for part in flat.split(counts)]


def _keep(path: Path, flat: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(f".{os.getpid()}.partial")  # another run may be making the same
    with disk_errors(work):
        save_file({"sums": flat}, work)
    work.replace(path)
