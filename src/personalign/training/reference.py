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
from personalign.models import Part, routed
from personalign.progress import bar
from personalign.training.examples import content
from personalign.trees import Tree, logprobs, tree_of

Ids = tuple[int, ...]


def reference_sums(
    model: Any, base: str, trees: Sequence[Tree], row_tokens: int, *, adapter: str | None = None
) -> list[list[float]]:
    """For each tree the summed log-probability of each counted node under the base, or under a frozen adapter on it.

    Trees of several personas may be given together: a prompt with its answers is scored once, whichever of them each
    persona prefers. Kept below the cache, keyed by `base` (the fingerprint of the weights, the adapter's included),
    precision and every token: the same data on the same base is never scored twice.
    """
    paths = [[_path(tree, index) for index in tree.counted] for tree in trees]
    unique = {frozenset(tree): _by_prompt(tree) for tree in paths}
    merged = [
        tree_of([(list(prompt), list(map(list, found))) for prompt, found in tree.items()]) for tree in unique.values()
    ]
    values = iter(_scored(model, base, merged, row_tokens, adapter))
    known = {
        key: {(prompt, answer): next(values) for prompt, found in tree.items() for answer in found}
        for key, tree in unique.items()
    }
    return [[known[frozenset(tree)][path] for path in tree] for tree in paths]


def _by_prompt(paths: list[tuple[Ids, Ids]]) -> dict[Ids, list[Ids]]:
    """The answers under each prompt (mostly there is one), each answer once."""
    found: dict[Ids, list[Ids]] = {}
    for prompt, answer in dict.fromkeys(paths):
        found.setdefault(prompt, []).append(answer)
    return found


def _path(tree: Tree, index: int) -> tuple[Ids, Ids]:
    """A counted node's (everything before it, own tokens)."""
    *above, last = tree.path(index)
    return tuple(token for node in above for token in tree.nodes[node].ids), tuple(tree.nodes[last].ids)


def _scored(model: Any, base: str, trees: Sequence[Tree], row_tokens: int, adapter: str | None) -> list[float]:
    """One sum a counted node, in order, from the cache or from the model."""
    digest = hashlib.sha256(f"{base} {next(model.parameters()).dtype} {row_tokens}".encode())
    digest.update(content(trees))
    path = home() / "reference" / f"{digest.hexdigest()[:32]}.safetensors"
    if path.is_file():
        return load_file(path)["sums"].tolist()  # type: ignore[no-any-return]
    values: list[float] = []
    training = model.training
    model.eval()
    with routed(model, [Part(0, None, adapter)]):
        size = 32  # trees a progress tick: enough to fill rows
        for at in bar(range(0, len(trees), size), "reference"):
            for nodes in logprobs(model, trees[at : at + size], row_tokens):
                values += [float(node.double().sum()) for node in nodes]
    model.train(training)
    _keep(path, torch.tensor(values, dtype=torch.float64))
    return values


def _keep(path: Path, flat: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(f".{os.getpid()}.partial")  # another run may be making the same
    with disk_errors(work):
        save_file({"sums": flat}, work)
    work.replace(path)
