"""Intervals of one model's metric: a share, a mean of shares, a mean of losses, an area.

Every interval is two-sided at ``confidence``. Which formulas, and why two of them at a time, was
chosen by simulation (``benchmarks/gate_bounds.py``): a bound is to be passed by a model that does
not reach it with probability at most ``(1 - confidence) / 2``.

Sources: Wilson, Journal of the American Statistical Association 22 (1927); Clopper and Pearson,
Biometrika 26 (1934); Zou and Donner, Statistics in Medicine 27 (2008), limits of a sum from those
of its parts (MOVER); Lam, Gopal and Qian, arXiv 2309.14621 (2023), F1 as a function of a share;
Hall, Journal of the Royal Statistical Society B 54 (1992), removal of skewness by transformation;
DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Newcombe, Statistics in Medicine 25 (2006),
559-573, the score interval of an area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from ctflow.gate.files.predictions import Floats
from ctflow.gate.intervals.significance import bisect, clopper_pearson, student

Limits = tuple[float, float]


def share_interval(hits: int, total: int, confidence: float) -> Limits:
    """Interval of a share: the hull of Wilson's and of Clopper and Pearson's.

    Wilson's alone would be passed too often by small shares (16% where 2.5% are meant, at 50 and a
    share of 0.004); with the second, no share and no total are passed more often than said. (0, 1)
    where ``total`` is 0.
    """
    if total == 0:
        return 0.0, 1.0
    low, high = wilson(hits, total, confidence)
    exact_low, exact_high = clopper_pearson(hits, total, confidence)
    return min(low, exact_low), max(high, exact_high)


def wilson(hits: int, total: int, confidence: float) -> Limits:
    """Wilson's score interval of a share."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = hits + z * z / 2
    half = z * math.sqrt(hits * (total - hits) / total + z * z / 4)
    low, high = (middle - half) / (total + z * z), (middle + half) / (total + z * z)
    # At the ends rounding would leave some 1e-17 beside 0 and 1.
    return 0.0 if hits == 0 else low, 1.0 if hits == total else high


def mean_of_shares(
    shares: Sequence[float], limits: Sequence[Limits], weights: Sequence[float]
) -> Limits:
    """Interval of a weighted sum of shares of disjoint examples, by MOVER."""
    value = below = above = 0.0
    for share, (low, high), weight in zip(shares, limits, weights, strict=True):
        value += weight * share
        below += (weight * (share - low)) ** 2
        above += (weight * (high - share)) ** 2
    return value - math.sqrt(below), value + math.sqrt(above)


def f1_limits(limits: Limits) -> Limits:
    """Limits of F1 from those of hits / (hits + false positives + false negatives)."""
    low, high = limits
    return 2 * low / (1 + low), 2 * high / (1 + high)


def mean_interval(values: Floats, degrees: int, confidence: float) -> Limits:
    """Interval of a mean: the hull of Student's, and of Student's after Hall's transformation.

    Losses are skewed: most are small. Student's interval alone would pass a bound of a mean squared
    probability error in 5% (n = 200) to 15% (n = 50), where 2.5% are meant.

    Args:
        values: shape (n,), n at least 2.
        degrees: those of Student's t.
    """
    n, mean = len(values), float(values.mean())
    deviations = values - mean
    error = math.sqrt(float((deviations**2).sum()) / (n - 1) / n)
    if error == 0:
        return mean, mean
    third = float((deviations**3).mean()) / n**2
    return skewed(mean, error, third, degrees, confidence)


def skewed(value: float, error: float, third: float, degrees: float, confidence: float) -> Limits:
    """Hull of ``value`` +- t errors, and of the same after Hall's cubic transformation.

    Args:
        error: the standard error of the value.
        third: the third central moment of the value.
    """
    t = student((1 + confidence) / 2, degrees)
    skewness = third / error**3

    def turned(y: float) -> float:
        if abs(skewness) < 1e-6:
            return y
        return 3 / skewness * (_cube_root(1 + skewness * (y - skewness / 6)) - 1)

    low, high = value - error * turned(t), value - error * turned(-t)
    return min(low, value - t * error), max(high, value + t * error)


def area_interval(positives: Floats, negatives: Floats, confidence: float) -> Limits:
    """Interval of an area under the ROC curve: the hull of two.

    One is Student's with DeLong's variance and Welch's degrees of freedom, after Hall's
    transformation, as areas near 1 are skewed. The other is Newcombe's score interval (his method
    5), which has a width also where all pairs are in the right order.

    positives, negatives: shapes (p,) and (q,), both at least 2: each example's share of the others
    that it is in the right order with (DeLong's V10 and V01), whose means are the area.
    """
    area = float(positives.mean())
    parts = [float(v.var(ddof=1)) / len(v) for v in (positives, negatives)]
    third = sum(float(((v - area) ** 3).mean()) / len(v) ** 2 for v in (positives, negatives))
    low, high = _score_area(area, len(positives), len(negatives), confidence)
    total = sum(parts)
    if total > 0:
        sizes = [len(positives) - 1, len(negatives) - 1]
        degrees = total**2 / sum(p**2 / size for p, size in zip(parts, sizes, strict=True))
        ends = skewed(area, math.sqrt(total), third, degrees, confidence)
        low, high = min(low, ends[0]), max(high, ends[1])
    return max(low, 0.0), min(high, 1.0)


def _score_area(area: float, positives: int, negatives: int, confidence: float) -> Limits:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    size = (positives + negatives) / 2 - 1

    def error(true: float) -> float:
        spread = 1 + size * (1 - true) / (2 - true) + size * true / (1 + true)
        return math.sqrt(true * (1 - true) * spread / (positives * negatives))

    low = bisect(lambda true: area - true - z * error(true), 0.0, area)
    high = bisect(lambda true: z * error(true) + area - true, area, 1.0)
    return low, high


def _cube_root(x: float) -> float:
    return float(np.cbrt(x))
