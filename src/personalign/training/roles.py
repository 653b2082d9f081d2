"""PPO's four roles on one base: policy, reference, reward and value, each an adapter (or none), two with a head."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from personalign.models import Part, routed
from personalign.trees import Row, Tree, fits_trees, plain_hidden, plain_logprobs, row_logprobs, rows_hidden

Scores = Callable[[Sequence[Tree]], list[list[float]]]  # for each tree the score of each of its counted nodes


@dataclass(frozen=True)
class Roles:
    """Adapters of one model by name, the value model's head, and what scores answers (the reward model, or a function).

    Policy and value are trained. The reference None is the bare base.
    """

    policy: str
    reference: str | None
    value: str
    value_head: nn.Linear
    scores: Scores


def through(model: Any, adapter: str | None) -> AbstractContextManager[None]:
    """Forward and backward passes inside the block go through one adapter (None: the bare base), without dropout."""
    return routed(model, [Part(0, None, adapter)])


def row_policy(model: Any, row: Row) -> torch.Tensor:
    """Log-probabilities [counted tokens] (fp32) of a row, differentiable."""
    if fits_trees(model):
        return row_logprobs(model, row)
    return torch.cat([part for tree in row.trees for part in plain_logprobs(model, tree)])


def row_values(model: Any, row: Row, head: nn.Linear) -> torch.Tensor:
    """Values [counted tokens] (fp32) of the states before each token of a row, as the head has them; differentiable."""
    if fits_trees(model):
        (hidden,) = rows_hidden(model, [row])
        before = hidden[row.source.to(hidden.device)]
    else:
        before = torch.cat([part[:-1] for tree in row.trees for part in plain_hidden(model, tree)])
    return head(before.to(head.weight)).squeeze(-1)  # type: ignore[no-any-return]
