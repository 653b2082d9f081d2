"""Near copies: a text is dropped when it is too similar to one that was kept before it, in the order of the texts.

The rule is Alpaca's: ROUGE-L F > t against any kept text; where vectors are given, a cosine above its own threshold as well.
Nothing above a threshold is missed, and yet a good part of the pairs is never compared. For texts of m and n tokens with L
of them in common, F = 2L/(m+n), and L <= n gives F <= 2L/(m+L), which grows with L. Thus

    F > t  needs  L >= least(m), the smallest L with 2L/(m+L) > t, and by the same argument L >= least(n).

With L <= min(m, n) it follows that n >= least(m) and m >= least(n): at t = .7 a text of 20 tokens has no near copy of fewer
than 11 or more than 37. Texts are therefore compared in blocks of about one length with those in reach of it only; an LCS below
`least` is none, and the exact F, rounded as `rouge_score` rounds it, is computed of what is left and decides. `least` itself is
found with that F, so that rounding cannot come between (tests/test_dedupe.py compares all of this with all pairs).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from personalign.datasets.similarity import Language, Neighbours, encode, f_measure, neighbours, tokens
from personalign.errors import UserError
from personalign.progress import bar

BLOCK = 1024  # texts that are compared with the kept ones and with each other before the first of them is decided
GROUP = 128  # texts of about one length in such a block: one matrix of scores
LONG = 20_000  # texts from which on progress is shown

Measure = Literal["rouge-l", "cosine"]
Hits: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pairs above the threshold: the later text, the earlier one, and their similarity."""


@dataclass(frozen=True)
class Match:
    """The kept text, by its index, that a text is too similar to, how similar they are, and in which measure."""

    index: int
    score: float
    measure: Measure


@dataclass(frozen=True)
class Deduped:
    """Which texts were kept (with their neighbours, where asked for) and which were dropped because of which.

    A key is an index into `texts`. The indices in a Match or in Neighbours count all that was kept in order: first
    `against`, then `texts`; index k >= len(against) is texts[k - len(against)].
    """

    kept: dict[int, Neighbours | None]
    dropped: dict[int, Match]
    without_tokens: list[int]  # texts in which ROUGE-L finds nothing to compare: similar to none


def dedupe(
    texts: Sequence[str],
    against: Sequence[str] = (),
    *,
    threshold: float = 0.7,
    language: Language = "ko",
    most: int = 10,
    vectors: ArrayLike | None = None,
    cosine: float = 0.9,
) -> Deduped:
    """Go through `texts` in order and drop each that is too similar to one of `against` or to one kept before it.

    Args:
        against: texts that were kept earlier; they are not compared with each other. Deduplicating a list in parts,
            each against what was kept of those before, keeps the same as doing it at once.
        threshold: dropped is what has a ROUGE-L F above it. most: how many neighbours of each kept text to find, with
            its mean similarity to all before it; 0 for none, which saves the time of comparing all pairs.
        vectors: [against + texts, size], an embedding of each; dropped is also what has a cosine above `cosine`.

    Raises UserError for a threshold that is not between 0 and 1, ValueError for vectors of another number.
    """
    for name, value in (("threshold", threshold), ("cosine", cosine)):
        if not 0 < value < 1:
            raise UserError(f"{name} is {value}; write a similarity between 0 and 1, such as 0.7.")
    first, total = len(against), len(against) + len(texts)
    encoded = encode([tokens(text, language) for text in [*against, *texts]], {})
    searches: dict[Measure, _RougeL | _Cosine] = {"rouge-l": _RougeL(encoded, threshold)}
    if vectors is not None:
        searches["cosine"] = _Cosine(vectors, cosine, total)
    rows = list(range(first))  # of what is kept
    dropped: dict[int, Match] = {}
    for begin in bar(range(first, total, BLOCK), "near copies", disable=total < LONG):
        block = np.arange(begin, min(begin + BLOCK, total))
        columns = np.concatenate([np.array(rows, dtype=int), block])
        found = {measure: _by_row(search.hits(block, columns), begin) for measure, search in searches.items()}
        kept = set(rows)
        for row in block.tolist():
            match = _nearest(row, found, kept)
            if match is None:
                rows.append(row)
                kept.add(row)
            else:
                dropped[row - first] = match
    near = _neighbours(encoded, rows, first, most)
    return Deduped(
        {row - first: near.get(row) for row in rows[first:]},
        dropped,
        [row - first for row in range(first, total) if not encoded[row]],
    )


def _nearest(row: int, found: dict[Measure, dict[int, list[tuple[int, float]]]], kept: set[int]) -> Match | None:
    """The most similar kept text by the first measure that has one above its threshold, of equals the earliest."""
    for measure, hits in found.items():
        near = [(score, -other) for other, score in hits.get(row, ()) if other in kept]
        if near:
            score, other = max(near)
            return Match(-other, score, measure)
    return None


def _by_row(hits: Iterator[Hits], begin: int) -> dict[int, list[tuple[int, float]]]:
    """For each text of the block those it is near to: the nearest that was kept before the block, and all in the block."""
    found: dict[int, list[tuple[int, float]]] = {}
    for rows, others, scores in hits:
        order = np.lexsort((others, -scores, rows))
        rows, others, scores = rows[order], others[order], scores[order]
        before = np.flatnonzero(others < begin)
        nearest = before[np.unique(rows[before], return_index=True)[1]]
        for at in [*nearest.tolist(), *np.flatnonzero(others >= begin).tolist()]:
            found.setdefault(int(rows[at]), []).append((int(others[at]), float(scores[at])))
    return found


class _RougeL:
    """Pairs with a ROUGE-L F above the threshold."""

    def __init__(self, encoded: Sequence[str], threshold: float) -> None:
        self.encoded, self.threshold = encoded, threshold
        self.lengths = np.array([len(text) for text in encoded], dtype=int)
        self.least = np.array([_least(threshold, len(text)) for text in encoded], dtype=int)

    def hits(self, block: np.ndarray, columns: np.ndarray) -> Iterator[Hits]:
        """The pairs of a text of the block with an earlier one of `columns`, group by group of about one length."""
        ordered = block[np.argsort(self.lengths[block], kind="stable")]
        for group in _groups(ordered):
            least, longest = int(self.least[group[0]]), self.lengths[group[-1]]
            reach = columns[(self.lengths[columns] >= least) & (self.least[columns] <= longest)]
            lcs = process.cdist(
                [self.encoded[row] for row in group],
                [self.encoded[row] for row in reach],
                scorer=LCSseq.similarity,
                score_cutoff=least,
                dtype=np.int32,
            )
            at, column = np.divmod(np.flatnonzero(lcs), max(1, len(reach)))
            rows, others = group[at], reach[column]
            scores = f_measure(lcs[at, column], self.lengths[rows], self.lengths[others])
            wanted = (scores > self.threshold) & (others < rows)
            yield rows[wanted], others[wanted], scores[wanted]


@cache
def _least(threshold: float, length: int) -> int:
    """The fewest common tokens with which a text of `length` tokens can have an F above the threshold; at least 1."""
    start = max(1, int(threshold * length / (2 - threshold)) - 1)
    return next(common for common in count(start) if not length or f_measure(common, length, common) > threshold)


class _Cosine:
    """Pairs with a cosine above the threshold, of the rows of a matrix."""

    def __init__(self, vectors: ArrayLike, threshold: float, count: int) -> None:
        matrix = np.asarray(vectors, dtype=np.float32)
        if matrix.ndim != 2 or len(matrix) != count:
            raise ValueError(f"expected one vector for each of {count} texts, not shape {matrix.shape}")
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        self.unit = matrix / np.where(norms > 0, norms, 1)
        self.threshold = threshold

    def hits(self, block: np.ndarray, columns: np.ndarray) -> Iterator[Hits]:
        """The pairs of a text of the block with an earlier one of `columns`, group by group."""
        there = self.unit[columns]
        for group in _groups(block):
            cosines = self.unit[group] @ there.T
            at, column = np.divmod(np.flatnonzero(cosines > self.threshold), max(1, len(columns)))
            rows, others = group[at], columns[column]
            earlier = others < rows
            yield rows[earlier], others[earlier], cosines[at, column][earlier].astype(float)


def _groups(block: np.ndarray) -> list[np.ndarray]:
    return np.array_split(block, -(-len(block) // GROUP))


def _neighbours(encoded: Sequence[str], rows: Sequence[int], first: int, most: int) -> dict[int, Neighbours]:
    """The neighbours of the kept texts from `first` on, under their indices and with those of the others."""
    if not most:
        return {}
    found = neighbours([encoded[row] for row in rows], first, most)
    named = {}
    for row, one in zip(bar(rows[first:], "neighbours", disable=len(rows) < LONG), found, strict=True):
        named[row] = Neighbours(tuple((rows[at], score) for at, score in one.nearest), one.mean)
    return named
