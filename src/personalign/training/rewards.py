"""What a reward model says about answers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from personalign.models import Part, routed
from personalign.progress import bar
from personalign.trees import Tree, fits_trees, pack, plain_hidden, rows_hidden


@torch.no_grad()
def rewards_of(
    model: Any, trees: Sequence[Tree], adapter: str, head: nn.Linear, row_tokens: int, *, progress: bool = False
) -> list[list[float]]:
    """For each tree the reward of each of its counted nodes: the head's value at the node's last token.

    `adapter` is the reward model's name on `model`, whatever the active one is. Dropout is off.
    """
    found: dict[tuple[int, int], float] = {}
    training = model.training
    model.eval()
    if fits_trees(model):
        rows = pack(trees, row_tokens)
        for row in bar(rows, "rewards") if progress else rows:
            with routed(model, [Part(0, None, adapter)]):
                (hidden,) = rows_hidden(model, [row])
            values = head(hidden[row.last.to(hidden.device)].float()).squeeze(-1)
            found.update(zip(row.answers, values.tolist(), strict=True))
    else:
        for index, tree in enumerate(trees):
            with routed(model, [Part(0, None, adapter)]):
                ends = [hidden[-1] for hidden in plain_hidden(model, tree)]
            for node, end in zip(tree.counted, ends, strict=True):
                found[index, node] = float(head(end.float()))
    model.train(training)
    return [[found[index, node] for node in tree.counted] for index, tree in enumerate(trees)]
