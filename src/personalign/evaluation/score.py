"""Units of evaluation: one tree each, scored by one model, kept as rows."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from personalign.trees import Tree

Row = dict[str, Any]


class Answer(NamedTuple):
    """What the model gave an answer: its summed log-probability (nat), and how many tokens that is a sum of."""

    summed: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.summed / self.tokens


@dataclass(frozen=True)
class Unit:
    """Prompts with their answers (token ids), and how the scored answers, flat and in that order, become rows.

    `rows` gives `size` of them.
    """

    prompts: list[tuple[list[int], list[list[int]]]]
    rows: Callable[[list[Answer]], list[Row]]
    size: int

    @cached_property
    def tree(self) -> "Tree":
        """The prompts and answers as one tree, common beginnings once."""
        from personalign.trees import tree_of

        return tree_of(self.prompts)


def digest(content: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of anything that JSON can write."""
    return sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def score(model: Any, units: Sequence[Unit], row_budget: int = 2048) -> Iterator[list[Row]]:
    """Rows of each unit, in order, as soon as its tree is scored; `row_budget` tokens go through the model at once."""
    from personalign.trees import logprobs

    for batch in _batches(units, row_budget):
        for unit, answers in zip(batch, logprobs(model, [unit.tree for unit in batch], row_budget), strict=True):
            yield unit.rows([Answer(float(tokens.double().sum()), len(tokens)) for tokens in answers])


def _batches(units: Sequence[Unit], budget: int) -> Iterator[list[Unit]]:
    batch: list[Unit] = []
    for unit in units:
        if batch and sum(len(other.tree) for other in [*batch, unit]) > budget:
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch
