"""Rows of data as trees, within max_length, and how many did not fit."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from personalign.conversation import answer_ids, conversation_sequences, prompt_ids
from personalign.datasets import Conversation, Pair, Ranking
from personalign.datasets.records import answers
from personalign.errors import UserError
from personalign.trees import Tree, prompt_with_answers

AnyRow = TypeVar("AnyRow", bound=Pair | Ranking | Conversation)
TooLong = Literal["drop", "truncate", "refuse"]


def pair_trees(
    tokenizer: Any, pairs: Sequence[Pair], max_length: int, too_long: TooLong
) -> tuple[list[Tree], dict[str, int]]:
    """One tree a pair (the prompt once, then chosen, then rejected), and counts of dropped and truncated pairs.

    Raises UserError, naming the row, for a prompt that alone fills `max_length`, and as `too_long` says.
    """
    return _answer_trees(tokenizer, pairs, max_length, too_long)


def ranking_trees(
    tokenizer: Any, rankings: Sequence[Ranking], max_length: int, too_long: TooLong
) -> tuple[list[Tree], dict[str, int]]:
    """One tree a ranking: the prompt once, then its answers, the best first; counts and errors as in `pair_trees`."""
    return _answer_trees(tokenizer, rankings, max_length, too_long)


def conversation_trees(
    tokenizer: Any, conversations: Sequence[Conversation], max_length: int, too_long: TooLong
) -> tuple[list[Tree], dict[str, int]]:
    """One tree a conversation: a chain of nodes in which every answer of the assistant counts; counts as in `pair_trees`.

    Under a template that rewrites earlier answers a conversation becomes one tree for each of its answers.
    """
    trees: list[Tree] = []
    totals = {"dropped": 0, "truncated": 0}
    for conversation in conversations:
        for ids, counts in conversation_sequences(tokenizer, conversation.messages):

            def make(_: Conversation, ids: list[int] = ids, counts: list[bool] = counts) -> tuple[Tree, int, int]:
                return _chain(ids[:max_length], counts[:max_length]), counts.index(True), len(ids)

            made, counted = _within([conversation], make, max_length, too_long, every=False)
            trees += made
            totals = {key: totals[key] + counted[key] for key in totals}
    if not trees:
        raise UserError(f"no conversation fits within max_length {max_length}; raise it.")
    return trees, totals


def content(trees: Sequence[Tree]) -> bytes:
    """SHA-256 of every token of the trees and of how they hang together: two datasets that train alike have the same."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(repr([(node.parent, node.counted, list(node.ids)) for node in tree.nodes]).encode())
    return digest.digest()


def _answer_trees(
    tokenizer: Any, rows: Sequence[Pair | Ranking], max_length: int, too_long: TooLong
) -> tuple[list[Tree], dict[str, int]]:
    def make(row: Pair | Ranking) -> tuple[Tree, int, int]:
        prompt = prompt_ids(tokenizer, row.prompt)
        room = max(0, max_length - len(prompt))
        made = [answer_ids(tokenizer, row.prompt, text) for text in answers(row)]
        tree = prompt_with_answers(prompt, [answer[:room] for answer in made]) if room else Tree()
        return tree, len(prompt), len(prompt) + max(map(len, made))

    return _within(rows, make, max_length, too_long)


def _chain(ids: list[int], counts: list[bool]) -> Tree:
    """A path of nodes, split where counting starts or stops."""
    tree = Tree()
    parent, start = None, 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or counts[at] != counts[start]:
            parent = tree.add(ids[start:at], parent, counted=counts[start])
            start = at
    return tree


def _within(
    rows: Sequence[AnyRow],
    make: Callable[[AnyRow], tuple[Tree, int, int]],
    max_length: int,
    too_long: TooLong,
    every: bool = True,
) -> tuple[list[Tree], dict[str, int]]:
    trees: list[Tree] = []
    counts = {"dropped": 0, "truncated": 0}
    for row in rows:
        tree, prompt, total = make(row)
        if prompt >= max_length:
            raise UserError(
                f"{row.source}: its prompt takes {prompt} tokens, which leaves no room for an answer within max_length "
                f"{max_length}; raise max_length, shorten the prompt or delete the row."
            )
        if total > max_length and too_long == "refuse":
            raise UserError(
                f"{row.source}: prompt and answer take {total} tokens, over max_length {max_length}; raise it, or set "
                "too_long to drop or truncate."
            )
        if total > max_length:
            counts["truncated" if too_long == "truncate" else "dropped"] += 1
            if too_long == "drop":
                continue
        trees.append(tree)
    if every and not trees:
        raise UserError(
            f"no row of {len(rows)} fits within max_length {max_length}; raise it, or set too_long: truncate."
        )
    return trees, counts
