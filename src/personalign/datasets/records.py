"""What a dataset consists of: preference pairs, rankings, conversations, and the problems found while reading them."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

from personalign.conversation import Message

Row: TypeAlias = dict[str, Any]  # one row of a file, under its own column names


@dataclass(frozen=True)
class Pair:
    """A prompt, ending with the user's turn, with the answer that is preferred and the one that is not.

    `source` says where it was read, as "file:row".
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    source: str


@dataclass(frozen=True)
class Ranking:
    """A prompt, ending with the user's turn, with k >= 2 answers and the rank of each: the lowest rank is the best.

    The ranks are a permutation of 0 to k-1 or of 1 to k, as the file had them; no two answers share one.
    """

    prompt: list[Message]
    completions: list[str]
    ranks: list[int]
    source: str

    @property
    def best_first(self) -> list[str]:
        """The answers from the best to the worst."""
        return [text for _, text in sorted(zip(self.ranks, self.completions, strict=True))]


@dataclass(frozen=True)
class Prompt:
    """A prompt alone, ending with the user's turn: a policy writes the answers itself."""

    prompt: list[Message]
    source: str


@dataclass(frozen=True)
class Conversation:
    """Messages with at least one answer of the assistant; every one of its answers is learned."""

    messages: list[Message]
    source: str


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be used, and what to do about it."""

    source: str
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        field = f"`{self.field}` " if self.field else ""
        return f"{self.source}: {field}{self.problem}; {self.remedy}."


AnyRow: TypeAlias = Pair | Ranking | Conversation


def expand(ranking: Ranking) -> list[Pair]:
    """Return the k(k-1)/2 pairs that a ranking of k answers stands for, the better answer chosen in each."""
    return [Pair(ranking.prompt, *two, ranking.source) for two in combinations(ranking.best_first, 2)]


def chosen_conversation(row: Pair | Ranking) -> Conversation:
    """Return the prompt with its preferred (of a ranking: its best) answer, for supervised training."""
    return Conversation([*row.prompt, {"role": "assistant", "content": answers(row)[0]}], row.source)


def opening(row: AnyRow | Prompt) -> str:
    """Return the user's first words, whitespace evened out: rows that share them count as the same prompt.

    System prompts are left out, so that the same question put to two personas is one prompt.
    """
    messages = row.messages if isinstance(row, Conversation) else row.prompt
    return next((" ".join(message["content"].split()) for message in messages if message["role"] == "user"), "")


def answers(row: AnyRow) -> list[str]:
    """Return the texts that training looks at, where some are preferred the best first."""
    if isinstance(row, Pair):
        return [row.chosen, row.rejected]
    if isinstance(row, Ranking):
        return row.best_first
    return [message["content"] for message in row.messages if message["role"] == "assistant"]
