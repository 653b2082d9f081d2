"""How many tokens a row takes, and whether it fits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from personalign.conversation import answer_ids, conversation_sequences, prompt_ids
from personalign.datasets.records import AnyRow, Conversation, Problem, answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Size:
    """Tokens before the first that counts, of each answer, best first (a conversation: of all), and of the longest sequence."""

    prompt: int
    answers: tuple[int, ...]
    total: int

    def truncated(self, max_length: int) -> bool:
        """Some of its tokens lie beyond `max_length`."""
        return self.total > max_length

    def impossible(self, max_length: int) -> bool:
        """No counted token lies within `max_length`: there is nothing to learn from."""
        return self.prompt >= max_length


def size(row: AnyRow, tokenizer: "PreTrainedTokenizerBase") -> Size:
    """Measure a row under the tokenizer's chat template. Raises UserError where the template refuses the row."""
    if not isinstance(row, Conversation):
        prompt = len(prompt_ids(tokenizer, row.prompt))
        lengths = tuple(len(answer_ids(tokenizer, row.prompt, text)) for text in answers(row))
        return Size(prompt, lengths, prompt + max(lengths))
    sequences = conversation_sequences(tokenizer, row.messages)
    return Size(
        prompt=min(counts.index(True) for _, counts in sequences),
        answers=(sum(sum(counts) for _, counts in sequences),),
        total=max(len(ids) for ids, _ in sequences),
    )


def too_long(row: AnyRow, prompt: int, max_length: int) -> Problem:
    """Say that the row's prompt leaves no room for an answer."""
    why = f"takes {prompt} tokens alone, which leaves no room for an answer within max_length {max_length}"
    field = "messages" if isinstance(row, Conversation) else "prompt"
    return Problem(row.source, field, why, "raise max_length, shorten the prompt or delete the row")
