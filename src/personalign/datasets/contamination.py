"""Are there items of a benchmark in the data? A model that has learned them is measured on what it has seen."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personalign.datasets.files import Rows, read_rows
from personalign.datasets.readers import refuse
from personalign.datasets.similarity import encode, f_measure, rouge_l, tokens
from personalign.datasets.topics import words
from personalign.errors import UserError

NEAR = 0.8
"""ROUGE-L F from which on a message counts as a copy of an item: of a question of seven words six must be there."""
FEWEST = 5
"""Shorter items, and shorter messages, are not looked for: they are said by chance."""
COMMON = 10
"""A run of words that more items of a benchmark share is part of its instructions, not of an item."""
BLOCK = 512
FIELDS = ("turns", "prompt", "instruction", "question", "statement", "text")


@dataclass(frozen=True)
class Item:
    """A benchmark's text, and where it stands."""

    text: str
    source: str


@dataclass(frozen=True)
class Copy:
    """A row's message that holds a run of words of an item, or nearly equals it.

    `shared` is the run, "" where there is none; `score` is ROUGE-L F of the two whole texts.
    """

    row: str
    item: str
    text: str
    item_text: str
    shared: str
    score: float


def read_items(path: str | Path) -> list[Item]:
    """The texts of a benchmark's file: any file that `read_rows` reads, and JSON objects by name (EQ-Bench's).

    SocialIQA's context and question are one text, each turn of MT-Bench is one; else it is the first of the columns
    prompt, instruction, question, statement and text that a row has, or the longest text in it. Raises UserError for a
    file that cannot be read, and for one without a text of five words.
    """
    items = [Item(text, source) for source, row in _rows(path) for text in _texts(row)]
    items = [item for item in items if len(words(item.text)) >= FEWEST]
    if not items:
        raise UserError(f"{path}: holds no text of {FEWEST} words or more; give a file with the benchmark's questions.")
    return items


def copies(rows: Sequence[tuple[str, Sequence[str]]], items: Sequence[Item]) -> list[Copy]:
    """The items of one benchmark that `rows`, (place, messages), hold or nearly equal: for each message the likest one.

    Held: N consecutive words are the same, N being `run_length` of the items, as in GPT-3's paper (Brown et al. 2020,
    appendix C); of a shorter item all of it. Nearly equal: ROUGE-L F of a message and the item is `NEAR` or more.
    """
    said = [(place, text, words(text)) for place, messages in rows for text in messages]
    said = [each for each in said if len(each[2]) >= FEWEST]
    texts = [words(item.text) for item in items]
    n = run_length(texts)
    shared: dict[tuple[int, int], str] = {}
    runs = _runs(texts, n)
    sizes: defaultdict[str, set[int]] = defaultdict(set)  # first word of a run -> how long such runs are
    for run in runs:
        sizes[run[0]].add(len(run))
    for at, (_, _, own) in enumerate(said):
        for start, word in enumerate(own):
            for size in sizes.get(word, ()):
                run = tuple(own[start : start + size])
                for item_at in runs.get(run, ()):
                    shared.setdefault((at, item_at), " ".join(run))
    scores = dict(_near([text for _, text, _ in said], [item.text for item in items]))
    best: dict[int, Copy] = {}
    for at, item_at in sorted(shared.keys() | scores.keys()):
        (place, text, _), item = said[at], items[item_at]
        score = scores.get((at, item_at))
        if score is None:
            score = rouge_l(text, item.text)
        if at not in best or score > best[at].score:
            best[at] = Copy(place, item.source, text, item.text, shared.get((at, item_at), ""), score)
    return list(best.values())


def run_length(texts: Sequence[Sequence[str]]) -> int:
    """Words that a run needs: the 5th percentile of the items' lengths, from 8 to 13 (GPT-3's rule).

    At most 8 where most words are Korean: an eojeol holds what takes English more than a word and a half.
    """
    korean = sum("가" <= word[0] <= "힣" for text in texts for word in text)
    most = 8 if 2 * korean > sum(map(len, texts)) else 13
    return int(np.clip(np.percentile([len(text) for text in texts], 5), 8, most)) if texts else most


def _runs(texts: Sequence[list[str]], n: int) -> dict[tuple[str, ...], list[int]]:
    """Run of n words (of a shorter item all of them) -> the items that hold it, without what most items share."""
    found: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, text in enumerate(texts):
        size = min(n, len(text))
        for run in dict.fromkeys(tuple(text[start : start + size]) for start in range(len(text) - size + 1)):
            found[run].append(at)
    return {run: held for run, held in found.items() if len(held) <= COMMON}


def _near(messages: Sequence[str], items: Sequence[str]) -> Iterator[tuple[tuple[int, int], float]]:
    """((message, item), ROUGE-L F) wherever it is `NEAR` or more."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    codes: dict[str, str] = {}
    said, asked = (encode([tokens(text) for text in texts], codes) for texts in (messages, items))
    lengths = np.array([len(text) for text in asked], dtype=float)
    for start in range(0, len(said), BLOCK):
        block = said[start : start + BLOCK]
        common = cdist(block, asked, scorer=LCSseq.similarity, dtype=np.int32)
        scores = f_measure(common, np.array([[len(text)] for text in block], dtype=float), lengths)
        for at, item in np.argwhere(scores >= NEAR):
            yield (start + int(at), int(item)), float(scores[at, item])


def _rows(path: str | Path) -> Rows:
    """As `read_rows`; of a JSON object of objects every object, its place named by its key."""
    if Path(path).suffix.lower() == ".json" and Path(path).is_file():
        try:
            value = json.loads(Path(path).read_bytes())
        except ValueError:  # then read_rows says what is wrong with it, or reads it line by line
            value = None
        if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
            return [(f"{path}:{key}", each) for key, each in value.items()]
    rows, problems = read_rows(path)
    refuse(str(path), problems)
    return rows


def _texts(row: dict[str, Any]) -> Iterator[str]:
    if isinstance(row.get("context"), str) and isinstance(row.get("question"), str):
        yield f"{row['context']} {row['question']}"
        return
    for field in FIELDS:
        value = row.get(field)
        if isinstance(value, str) and value.strip():
            more = row.get("input") if field == "instruction" else ""
            yield f"{value} {more}".strip() if isinstance(more, str) else value
            return
        if isinstance(value, list) and value:
            said = [each.get("content") if isinstance(each, dict) else each for each in value]
            yield from (text for text in said if isinstance(text, str))
            return
    yield max((value for value in row.values() if isinstance(value, str)), key=len, default="")
