"""A row as the model sees it: every token, and which of them count."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personalign.conversation import answer_ids, conversation_sequences, prompt_ids
from personalign.datasets.readers import Kind, read
from personalign.datasets.records import AnyRow, Conversation, Pair, answers
from personalign.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def show(row: AnyRow, tokenizer: "PreTrainedTokenizerBase", *, colour: bool = False) -> str:
    """Decode a row token by token, with the counted tokens marked.

    In colour, counted tokens are green and underlined, neighbours in two shades; plain, counted tokens stand in
    [brackets] and a · divides the others. The prompt of a pair or a ranking is shown once, before the answers, the best
    first. Raises UserError where the chat template refuses the row.
    """
    if not isinstance(row, Conversation):
        prompt = prompt_ids(tokenizer, row.prompt)
        parts = [("prompt", prompt, [False] * len(prompt))]
        texts = answers(row)
        names = (
            ["chosen", "rejected"]
            if isinstance(row, Pair)
            else [f"rank {at} of {len(texts)}" for at in range(1, len(texts) + 1)]
        )
        for name, text in zip(names, texts, strict=True):
            ids = answer_ids(tokenizer, row.prompt, text)
            parts.append((name, ids, [True] * len(ids)))
    else:
        sequences = conversation_sequences(tokenizer, row.messages)
        parts = [(f"sequence {number}", ids, counts) for number, (ids, counts) in enumerate(sequences, 1)]
    lines = [row.source]
    for name, ids, counts in parts:
        lines.append(f"-- {name}: {len(ids)} tokens, {sum(counts)} counted")
        lines.append("".join(_marked(_pieces(tokenizer, ids, counts), colour)))
    return "\n".join(lines)


def show_row(
    path: str | Path,
    row: int,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    kind: Kind | None = None,
    columns: Mapping[str, str] | None = None,
    prefer: int = 0,
    colour: bool = False,
) -> str:
    """Show one row of a file, counted as lint counts them (the line of a JSONL file, from one elsewhere).

    A ranking read as pairs shows all of them. Raises UserError where the row does not exist or is bad.
    """
    reading = read(path, kind, columns=columns, prefer=prefer)
    place = f"{path}:{row}"
    for problem in reading.problems:
        if problem.source == place:
            raise UserError(str(problem))
    shown = [show(found, tokenizer, colour=colour) for found in reading.rows if found.source == place]
    if shown:
        return "\n\n".join(shown)
    places = [int(source.rpartition(":")[2]) for source in (one.source for one in [*reading.rows, *reading.problems])]
    raise UserError(f"{path}: there is no row {row}; the rows run from {min(places)} to {max(places)}.")


def _pieces(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], counts: Sequence[bool]
) -> Iterator[tuple[str, bool]]:
    """Yield each token's text and whether it counts; joined, the texts are what the ids decode to.

    A text is what a token adds to the decoding of those before it, since some tokenizers write a token's space only
    after another; tokens that are parts of one character (as most Korean syllables are to a byte-level tokenizer)
    come as one piece.
    """
    context, start = 0, 0  # the piece before, from which decoding starts, and the piece at hand
    for end in range(1, len(ids) + 1):
        before = _decode(tokenizer, ids[context:start])
        text = _decode(tokenizer, ids[context:end])[len(before) :]
        last = end == len(ids) or counts[end] != counts[start]
        if last or not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text, counts[start]
            context, start = start, end


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text if isinstance(text, str) else "".join(text)


def _marked(pieces: Iterator[tuple[str, bool]], colour: bool) -> Iterator[str]:
    was_counted = True
    for number, (text, counted) in enumerate(pieces):
        text = "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
        text = text.replace("\n", "⏎\n")
        if colour:
            style = ("4;32" if number % 2 else "4;92") if counted else ("2" if number % 2 else "0")
            yield f"\x1b[{style}m{text}\x1b[0m"
        else:
            yield f"[{text}]" if counted else text if was_counted else f"·{text}"
        was_counted = counted
