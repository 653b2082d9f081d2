"""How two things go together: correlations, and whether a model's confidence is worth what it says."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's product-moment correlation of `x` and `y`, [n] each; nan where one of them never varies.

    Raises ValueError where the shapes differ.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"a correlation needs two values of each item: shapes {left.shape} and {right.shape}")
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return math.nan
    # Scaled first, as squares of very small values would vanish; clipped, as rounding can pass 1.
    left, right = (each / np.abs(each).max() for each in (left - left.mean(), right - right.mean()))
    return float(np.clip(left @ right / math.sqrt((left @ left) * (right @ right)), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of `x` and `y`, [n] each, ties at their mean rank; nan and errors as `pearson`."""
    return pearson(_ranks(x), _ranks(y))


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, edges: ArrayLike
) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error (Guo et al. 2017, eq. 3), and the bins that hold something, for a reliability diagram.

    `confidence` and `correct` are [n]: the probability that each answer was given and whether it was right (0 to 1).
    A bin holds the confidences above its lower and up to its upper edge, the first its lower edge too. The error is the
    mean of |accuracy - mean confidence| over the bins, weighted by their counts. A bin is {"low", "high", "n",
    "confidence", "accuracy"}. Raises ValueError for no values and for confidences outside the edges.
    """
    given, right, limits = (np.asarray(each, dtype=float) for each in (confidence, correct, edges))
    if given.shape != right.shape or not len(given):
        raise ValueError(f"calibration needs a confidence and an outcome of each item: {given.shape} and {right.shape}")
    if not (given >= limits[0]).all() or not (given <= limits[-1]).all():
        raise ValueError(f"confidences lie from {given.min()} to {given.max()}, outside {limits[0]} to {limits[-1]}")
    member = np.maximum(np.searchsorted(limits, given, side="left") - 1, 0)
    bins = [
        {
            "low": float(limits[at]),
            "high": float(limits[at + 1]),
            "n": int((member == at).sum()),
            "confidence": float(given[member == at].mean()),
            "accuracy": float(right[member == at].mean()),
        }
        for at in np.unique(member)
    ]
    return sum(each["n"] / len(given) * abs(each["accuracy"] - each["confidence"]) for each in bins), bins


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
