"""Preference pairs of a wanted shape, put together from real text with its natural spread of lengths."""

import json
import random
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

Length = Callable[[str], int]


def read_texts(path: Path) -> list[tuple[str, str, str]]:
    """(instruction, chosen, rejected) of a JSON list of Machine-Mindset rows `{instruction, input, output: [I, E]}`.

    The extraverted answer is the chosen one; rows with an empty answer or two equal ones are left out.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    texts = [(row["instruction"].strip(), row["output"][1].strip(), row["output"][0].strip()) for row in rows]
    return [text for text in texts if all(text) and text[1] != text[2]]


def sample(texts: list[tuple[str, str, str]], count: int, length: Length, mean: float) -> list[tuple[str, str, str]]:
    """`count` rows whose answers have `mean` tokens on average, with their natural spread, shortest first.

    Of the rows in the order of their answers' length, as many of the shortest are kept as have that mean; the sample
    stands at even distances among them, so that its mean is theirs.
    """
    sizes = {text: (length(text[1]) + length(text[2])) / 2 for text in texts}
    ordered = sorted(sizes, key=lambda text: sizes[text])
    kept, total = 0, 0.0
    while kept < len(ordered) and total + sizes[ordered[kept]] <= mean * (kept + 1):
        total += sizes[ordered[kept]]
        kept += 1
    if kept < count:
        raise SystemExit(
            f"Only {kept} pairs have answers short enough for a mean of {mean:.0f} tokens; {count} are needed."
        )
    return [ordered[int((number + 0.5) * kept / count)] for number in range(count)]


def shaped_pairs(
    path: Path, tokenizer: Any, count: int, prompt_tokens: float, answer_tokens: float, seed: int = 0
) -> list[dict[str, Any]]:
    """`count` pairs as protocol rows whose prompts and answers have about these mean lengths in tokens.

    Answers are whole real answers. A prompt is a real instruction, with whole other texts of the data put before it
    as background wherever the mean so far is too small. Deterministic. Raises SystemExit if the data has too few.
    """

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def render(content: str) -> str:
        messages = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    texts = read_texts(path)
    chosen_texts = sample(texts, count, length, answer_tokens - 1)  # and the end token
    random.Random(seed).shuffle(chosen_texts)
    used = set(chosen_texts)
    background = cycle(answer for text in texts if text not in used and length(answer := text[1]) <= 2 * answer_tokens)
    rows, total = [], 0
    for number, (instruction, chosen, rejected) in enumerate(chosen_texts, start=1):
        content = instruction
        while total + length(render(content)) < prompt_tokens * number - prompt_tokens / 4:
            content = f"{next(background)}\n\n{content}"
        total += length(render(content))
        messages = [{"role": "user", "content": content}]
        rows.append({"messages": messages, "prompt": render(content), "chosen": chosen, "rejected": rejected})
    return rows
