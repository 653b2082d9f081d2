"""How near two texts are: ROUGE-L (Lin 2004) with the tokens and the arithmetic of `rouge_score`, and all pairs of many texts.

ROUGE-L F is 2PR/(P+R) with P = L/n and R = L/m, where L is the length of the longest common subsequence of m and n tokens.
Each token becomes one character of a string, so that a bit-parallel LCS (Hyyrö 2004, in rapidfuzz) does a pair in nanoseconds.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from personalign.errors import UserError

Language = Literal["en", "ko"]
# ROUGE's words are runs of a-z and 0-9, so that nothing of Hangul is left. In Korean every syllable is a token of its own
# (and a run of single letters, such as ㅋㅋㅋ, is one). Words between spaces would not do: particles and endings make
# others of them, and near copies ("추천해 줘", "추천해 주세요") fall to .3-.7. With syllables they stay above .7, and unrelated
# sentences have a mean F of .15 where their translations have .12 with ROUGE's words: one threshold does for both.
TOKENS = {"en": re.compile(r"[a-z0-9]+"), "ko": re.compile(r"[a-z0-9]+|[가-힣]|[ㄱ-ㅣ]+")}
LETTERS = re.compile("[\u1100-\u11ff]")  # syllables taken apart, as some systems store them
BLOCK = 128  # texts that are compared with all before them at once
PARTS = 32  # values of which only the largest is looked at when the largest of many are sought


def tokens(text: str, language: Language = "ko") -> list[str]:
    """What ROUGE-L compares: for "en" exactly the tokens of `rouge_score` without stemming, for "ko" Hangul syllables too.

    A text without Hangul has the same tokens in both.
    """
    if language == "ko" and LETTERS.search(text):
        text = unicodedata.normalize("NFC", text)
    return TOKENS[language].findall(text.lower())


def rouge_l(one: str, other: str, language: Language = "ko") -> float:
    """ROUGE-L F of two texts, 0 to 1, to the last bit that of `rouge_score`; 0 where one of them has no tokens."""
    left, right = tokens(one, language), tokens(other, language)
    return float(f_measure(LCSseq.similarity(left, right), len(left), len(right)))


def f_measure(lcs: Any, length: Any, lengths: Any) -> Any:
    """ROUGE-L F from the lengths of common subsequences and of the texts, numbers or arrays.

    The operations and their order are those of `rouge_score`: 2L/(m+n) is the same number but rounds otherwise, and at
    7 of 10 tokens the last bit decides whether F is above .7.
    """
    recall, precision = lcs / np.maximum(length, 1), lcs / np.maximum(lengths, 1)
    both = precision + recall
    return 2 * precision * recall / np.where(both > 0, both, 1)


def encode(texts: Sequence[Sequence[str]], codes: dict[str, str]) -> list[str]:
    """Each text as a string, a character a token. `codes` says which character stands for which token, and is added to.

    New tokens are numbered from the most frequent to the rarest: rarer tokens have larger characters. Raises UserError
    where there are more tokens than characters (1.1 million).
    """
    counts = Counter(token for text in texts for token in text if token not in codes)
    if len(codes) + len(counts) > 0x10FFFF:
        raise UserError("the texts hold more than 1.1 million different words; compare them in parts.")
    for token, _ in counts.most_common():
        codes[token] = chr(len(codes) + 1)
    return ["".join([codes[token] for token in text]) for text in texts]


@dataclass(frozen=True)
class Neighbours:
    """The texts before one that are most similar to it, (index, F) with the nearest first, and the mean F over all of them.

    The mean is None where there is no text before it.
    """

    nearest: tuple[tuple[int, float], ...]
    mean: float | None


def neighbours(encoded: Sequence[str], start: int = 0, most: int = 10) -> Iterator[Neighbours]:
    """The neighbours of each text from `start` on among all texts before it, as Alpaca keeps them with each instruction.

    `encoded` comes from `encode`. Every pair is computed; of equally similar texts the earlier one comes first.
    """
    lengths = np.array([max(1, len(text)) for text in encoded], dtype=float)
    for before, lcs in enumerate(subsequences(encoded, start), start):
        size = len(encoded[before])
        halves = lcs / (lengths[:before] + size)  # F/2 but for the last bits
        near = _largest(halves, most)
        scores = f_measure(lcs[near], size, lengths[near])
        order = np.argsort(-scores, kind="stable")[:most]
        nearest = tuple((int(near[one]), float(scores[one])) for one in order)
        yield Neighbours(nearest, 2 * float(halves.mean()) if before else None)


def subsequences(encoded: Sequence[str], start: int = 0) -> Iterator[np.ndarray]:
    """For each text from `start` on the length of its longest common subsequence with every text before it, in order."""
    for begin in range(start, len(encoded), BLOCK):
        block = encoded[begin : begin + BLOCK]
        lcs = process.cdist(block, encoded[: begin + len(block)], scorer=LCSseq.similarity, dtype=np.int32)
        for at in range(len(block)):
            yield lcs[at, : begin + at]


def _largest(values: np.ndarray, most: int) -> np.ndarray:
    """Where the `most` largest values are, with those that differ from them by rounding only and perhaps some more.

    Of the maxima of disjoint parts, the `most` largest are `most` of the values: no more than the `most`-th largest of all.
    """
    if most >= len(values):
        return np.arange(len(values))
    width = len(values) // PARTS
    maxima = values[: width * PARTS].reshape(PARTS, width).max(axis=0) if width >= most else values
    return np.flatnonzero(values >= np.partition(maxima, -most)[-most] - 1e-12) if most else np.arange(0)
