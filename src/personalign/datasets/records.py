"""What a dataset consists of: preference pairs, conversations, and the problems found while reading them."""

from dataclasses import dataclass
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


def chosen_conversation(pair: Pair) -> Conversation:
    """Return the pair's prompt with its preferred answer, for supervised training."""
    return Conversation([*pair.prompt, {"role": "assistant", "content": pair.chosen}], pair.source)


def opening(row: Pair | Conversation) -> str:
    """Return the user's first words, whitespace evened out: rows that share them count as the same prompt.

    System prompts are left out, so that the same question put to two personas is one prompt.
    """
    messages = row.prompt if isinstance(row, Pair) else row.messages
    return next((" ".join(message["content"].split()) for message in messages if message["role"] == "user"), "")


def answers(row: Pair | Conversation) -> list[str]:
    """Return the texts that training looks at."""
    if isinstance(row, Pair):
        return [row.chosen, row.rejected]
    return [message["content"] for message in row.messages if message["role"] == "assistant"]
