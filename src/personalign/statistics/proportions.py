"""Shares and yes/no outcomes: Wilson's interval, McNemar's exact test, Holm's correction."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from personalign.statistics.resampling import Interval


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Share k of n with Wilson's score interval (Wilson 1927), which stays sensible at 0, at n and for small n.

    `k` may be fractional (ties counted half). n = 0 gives (nan, 0, 1). Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"a share needs 0 <= k <= n, not k = {k}, n = {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = (k + z2 / 2) / (n + z2)
    half = math.sqrt(z2) / (n + z2) * math.sqrt(k * (n - k) / n + z2 / 4)
    # At k = 0 and k = n a limit is exactly 0 or 1; rounding would leave 1e-17.
    return Interval(k / n, 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided exact p-value that paired yes/no outcomes `a` and `b`, [n] each, have the same rate (McNemar 1947).

    Only the discordant pairs speak: under the hypothesis each falls either way with probability 1/2. None gives 1.
    Raises ValueError where the shapes differ.
    """
    left, right = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if left.shape != right.shape:
        raise ValueError(f"paired outcomes need the same items: shapes {left.shape} and {right.shape}")
    only_a, only_b = int((left & ~right).sum()), int((right & ~left).sum())
    discordant = only_a + only_b
    return min(1.0, 2 * sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1)) / 2**discordant)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given: compare each with the family-wise error."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]
