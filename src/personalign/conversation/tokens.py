"""From conversations to token ids, and which of them count."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from personalign.conversation.messages import Message, name
from personalign.conversation.templates import Layout, encode, probe, remedy, render
from personalign.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _Rewritten(UserError):
    """The template renders an answer differently once the conversation goes on."""


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation that ends with a user message, the assistant's turn opened after it; exactly one BOS.

    One BOS if the template or the tokenizer writes one; none where neither does (ChatML, Qwen). Raises UserError as
    render does.
    """
    return _bos(tokenizer) + encode(tokenizer, render(tokenizer, messages, add_generation_prompt=True))


def answer_ids(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str) -> list[int]:
    """Token ids of the assistant's answer to that conversation, its end token included and nothing after it.

    `prompt_ids(messages) + answer_ids(messages, answer)` is what the model would have seen and written: where the
    tokenizer merges across the boundary, the answer is tokenised by itself. Blanks around the answer are the template's
    affair (Llama 3 and Gemma trim them, ChatML keeps them). Raises UserError as render does, and when the template
    rewrites the answer.
    """
    prompt, text = _turn(tokenizer, probe(tokenizer), [*messages, Message(role="assistant", content=answer)])
    return _continue(tokenizer, prompt, encode(tokenizer, prompt), text)


def conversation_tokens(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and for each whether it counts: assistant answers with their end tokens do.

    It ends with the end token of the last answer. Raises UserError as render does, when the last message is not an
    answer, and for a template that rewrites earlier answers (Qwen3 removes their thinking block): see
    conversation_sequences.
    """
    layout = probe(tokenizer)
    whole = render(tokenizer, messages)
    if messages[-1]["role"] != "assistant":
        raise UserError(f"{name(len(messages), 'user')} is the last and has no answer: remove it or add the answer.")
    text, ids, counts = "", list[int](), list[bool]()
    for position, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        prompt, answer = _turn(tokenizer, layout, messages[:position])
        if not (prompt.startswith(text) and whole.startswith(prompt + answer)):
            raise _Rewritten(
                f"The chat template renders {name(position, 'assistant').lower()} differently once the conversation "
                f"goes on, so its answers cannot all count in one sequence: {remedy(tokenizer)}, "
                "or train on one answer at a time."
            )
        for part, count in ((prompt[len(text) :], False), (answer, True)):
            new = _continue(tokenizer, text, ids, part)
            text, ids, counts = text + part, ids + new, counts + [count] * len(new)
    bos = _bos(tokenizer)
    return bos + ids, [False] * len(bos) + counts


def conversation_sequences(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]
) -> list[tuple[list[int], list[bool]]]:
    """Sequences as of conversation_tokens in which every answer counts once, after the prompt that generation sees.

    One sequence for the whole conversation; under a template that rewrites earlier answers, one for each answer.
    """
    try:
        return [conversation_tokens(tokenizer, messages)]
    except _Rewritten:
        sequences = []
        for position, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = prompt_ids(tokenizer, messages[:position])
                answer = answer_ids(tokenizer, messages[:position], message["content"])
                sequences.append((prompt + answer, [False] * len(prompt) + [True] * len(answer)))
        return sequences


def end_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids at which generation stops: the token that ends an answer under this template, and the tokenizer's EOS."""
    eos = tokenizer.eos_token_id
    return list(dict.fromkeys([probe(tokenizer).end_id, *([eos] if eos is not None else [])]))


def _bos(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return [tokenizer.bos_token_id] if probe(tokenizer).prepends_bos else []


def _turn(tokenizer: "PreTrainedTokenizerBase", layout: Layout, messages: Sequence[Message]) -> tuple[str, str]:
    """The rendered prompt of a conversation's last answer, and that answer up to and with its end token."""
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = render(tokenizer, messages)
    written = whole[len(prompt) :]
    content = messages[-1]["content"].strip()
    if not whole.startswith(prompt) or not written.endswith(layout.end + layout.tail) or content not in written:
        raise UserError(f"The chat template rewrites {name(len(messages), 'assistant').lower()} ({content[:40]!r}).")
    return prompt, written.removesuffix(layout.tail)


def _continue(tokenizer: "PreTrainedTokenizerBase", before: str, before_ids: list[int], text: str) -> list[int]:
    """Token ids of `text` after `before`, whose ids stay as they are: generation cannot go back and merge."""
    ids = encode(tokenizer, before + text)
    if ids[: len(before_ids)] == before_ids:
        return ids[len(before_ids) :]
    # The two merge at their boundary (ChatML's "assistant\n" and an answer that begins with a newline). Tokenised
    # alone, a text may get a dummy space in front (SentencePiece); after a character that merges with nothing it does
    # not.
    for lead in ("\x01", ":", "|"):
        lead_ids, ids = encode(tokenizer, lead), encode(tokenizer, lead + text)
        if lead_ids and ids[: len(lead_ids)] == lead_ids:
            return ids[len(lead_ids) :]
    return encode(tokenizer, text)
