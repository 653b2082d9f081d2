"""Does a set go on saying something new as it grows? Each text against all before it, and the clusters that they form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalign.datasets.similarity import encode, f_measure, subsequences, tokens

ALIKE = 0.7
"""ROUGE-L F above which Alpaca threw a new instruction away (Taori et al. 2023, after Wang et al. 2022), and so does `dedupe`."""
CLOSE = 0.5
"""Above this a text comes close to an earlier one. In sets that people wrote (self-instruct's seeds, MT-Bench, SocialIQA's
contexts) at most 4 % of the texts do, in sets of statements that a model wrote (Perez et al. 2022) 56 to 87 %."""
LEAST = 20
"""How many more rows of a stretch must repeat earlier ones than do not, before it is called a collapse. Of 10,000 rows of
which 30 % repeat an earlier one, at random places, one set in two thousand has such a stretch (n (p / (1 - p))^20)."""
STEPS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Growth:
    """What each of n texts has in common with those before it; the first has nothing before it (score 0, place -1)."""

    nearest: NDArray[np.float64]  # ROUGE-L F with the most similar earlier text, [n]
    place: NDArray[np.int64]  # which one that is, [n]
    average: NDArray[np.float64]  # mean over all earlier texts, [n]
    cluster: NDArray[np.int64]  # the first text of the cluster that it belongs to, [n]


@dataclass(frozen=True)
class Stretch:
    """Texts `start` to `end` (exclusive): the share of them that repeats an earlier one, and that share before `start`."""

    start: int
    end: int
    repeats: float
    before: float


def growth(texts: Sequence[str], threshold: float = ALIKE) -> Growth:
    """Compare every text with all before it, by ROUGE-L F; single-link clusters above `threshold`."""
    n = len(texts)
    nearest, average = np.zeros(n), np.zeros(n)
    place, cluster = np.full(n, -1), np.arange(n)
    for at, scores in enumerate(earlier(texts)):
        if not at:
            continue
        place[at] = scores.argmax()
        nearest[at], average[at] = scores[place[at]], scores.mean()
        joined = np.unique(cluster[:at][scores > threshold])
        if len(joined):
            cluster[:at][np.isin(cluster[:at], joined)] = joined[0]
            cluster[at] = joined[0]
    return Growth(nearest, place, average, cluster)


def earlier(texts: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """For each text its ROUGE-L F with every text before it, in order: arrays of 0, 1, 2, ... scores."""
    encoded = encode([tokens(text) for text in texts], {})
    lengths = np.array([len(text) for text in encoded], dtype=float)
    for at, common in enumerate(subsequences(encoded)):
        yield f_measure(common, len(encoded[at]), lengths[:at])


def collapse(repeats: Sequence[bool] | NDArray[np.bool_]) -> Stretch | None:
    """The stretch of texts in which most repeat an earlier one, from exactly where it begins; None where there is none.

    `repeats` says of each text in order whether some earlier one is more similar than the threshold. The stretch is the one
    with the largest excess of texts that repeat over texts that do not (the maximum-sum segment of +1 and -1), and it
    counts if the excess is `LEAST` or more. So twenty repeats in a row are enough, a stretch of which half is new is not,
    and repeats that are strewn over the set make none.
    """
    best, total, start, found = LEAST - 1, 0, 0, (0, 0)
    for at, repeated in enumerate(repeats):
        if total <= 0:
            total, start = 0, at
        total += 1 if repeated else -1
        if total > best:
            best, found = total, (start, at + 1)
    if found == (0, 0):
        return None
    flags = np.asarray(repeats, dtype=bool)
    start, end = found
    return Stretch(start, end, float(flags[start:end].mean()), float(flags[:start].mean()) if start else 0.0)


def curve(found: Growth, threshold: float = ALIKE) -> list[dict[str, float]]:
    """The means of at most forty blocks of texts: {"row": the last one's number, "nearest", "average", "repeats"}.

    The first text, which has none before it, is left out; the last block may be shorter.
    """
    n = len(found.nearest)
    step = next((step for step in STEPS if n <= 40 * step), -(-n // 40))
    blocks = [slice(max(1, start), min(start + step, n)) for start in range(0, n, step)]
    return [
        {
            "row": block.stop,
            "nearest": float(found.nearest[block].mean()),
            "average": float(found.average[block].mean()),
            "repeats": float((found.nearest[block] > threshold).mean()),
        }
        for block in blocks
        if block.stop > block.start
    ]
