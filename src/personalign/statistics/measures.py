"""Two numbers about a body of data: Cronbach's alpha of a questionnaire, distinct-n of texts."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike


def cronbach_alpha(matrix: ArrayLike) -> float:
    """Internal consistency k/(k-1) (1 - sum of column variances / variance of row sums) (Cronbach 1951).

    `matrix` is [presentations, items]. Nan where it says nothing: fewer than two rows or columns, a column that never
    varies, or row sums that never vary. At most 1; negative where items move against each other.
    Raises ValueError unless the matrix has two dimensions.
    """
    scores = np.asarray(matrix, dtype=float)
    if scores.ndim != 2:
        raise ValueError(f"expected [presentations, items], not shape {scores.shape}")
    rows, columns = scores.shape
    if rows < 2 or columns < 2 or (np.ptp(scores, axis=0) == 0).any():
        return math.nan
    within, total = scores.var(axis=0, ddof=1).sum(), scores.sum(axis=1).var(ddof=1)
    # Sums that cancel leave rounding noise instead of zero.
    if not total > 1e-12 * within:
        return math.nan
    return float(columns / (columns - 1) * (1 - within / total))


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Share of distinct n-grams among all n-grams of whitespace-separated words (distinct-n, Li et al. 2016).

    N-grams do not cross texts. Nan where no text has n words. It falls with the amount of text: compare like with like.
    """
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan
