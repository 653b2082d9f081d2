"""A held-out part that shares no prompt with the rest."""

from hashlib import sha256
from typing import TypeVar

from personalign.datasets.records import Conversation, Pair, Prompt, Ranking, opening
from personalign.errors import UserError

AnyRow = TypeVar("AnyRow", Pair, Ranking, Conversation, Prompt)


def split(rows: list[AnyRow], held_out: float = 0.1, seed: int = 0) -> tuple[list[AnyRow], list[AnyRow]]:
    """Split rows into (train, held out), each in the order given.

    Rows with the same prompt (the user's first words) stay on one side. Which prompts are held out depends on their
    text and the seed alone, not on the order of the file: prompts are taken by their hash while they fit into
    `held_out` of all rows.

    Raises UserError where `held_out` is not in [0, 1), or where it is above 0 and there are fewer than two different
    prompts.
    """
    if not 0 <= held_out < 1:
        raise UserError(f"held_out is {held_out}; it is a share of the rows, from 0 to below 1.")
    groups: dict[str, int] = {}
    for row in rows:
        groups[opening(row)] = groups.get(opening(row), 0) + 1
    if held_out == 0:
        return list(rows), []
    if len(groups) < 2:
        raise UserError("held_out: all rows share one prompt, so none can be held out; add rows or set held_out: 0.")
    room = min(max(1, round(held_out * len(rows))), len(rows) - 1)
    taken: set[str] = set()
    for prompt in sorted(groups, key=lambda prompt: sha256(f"{seed}\n{prompt}".encode()).digest()):
        if groups[prompt] <= room:
            taken.add(prompt)
            room -= groups[prompt]
    if not taken:  # every prompt has more rows than there is room: the smallest one must do
        taken.add(min(groups, key=lambda prompt: (groups[prompt], prompt)))
    return [row for row in rows if opening(row) not in taken], [row for row in rows if opening(row) in taken]


def portion(rows: list[AnyRow], low: float, high: float) -> list[AnyRow]:
    """The rows whose prompts fall between two shares of the prompts, 0 to 1: what several steps divide a file into.

    Where a prompt falls depends on its words alone, so (0, .6) and (.6, 1) of one file, or of two that ask the same,
    never share a prompt.
    """
    return [row for row in rows if low <= int(sha256(opening(row).encode()).hexdigest(), 16) / 16**64 < high]
