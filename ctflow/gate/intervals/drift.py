"""How far two samples of one column are apart: PSI and the Kolmogorov-Smirnov distance.

Both are measures of size, each with an interval for what it is between the two populations. With
enough rows any difference is significant, so no p-value is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Distribution:
    """A column's numbers as steps of their cumulative distribution.

    Attributes:
        values: finite, rising, shape (k,).
        below, upto: how many numbers are less than each value, and at most as large, shape (k,).
        count: how many numbers there are, at least one. The last of ``upto`` is ``count``.
    """

    values: Floats
    below: Ints
    upto: Ints
    count: int

    @classmethod
    def of(cls, ordered: Floats) -> Distribution:
        """That of finite numbers in rising order, at least one: a step for each distinct one."""
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        ends = np.append(first[1:], len(ordered))
        return cls(ordered[first], first.astype(np.int64), ends.astype(np.int64), len(ordered))

    def thinned(self, most: int) -> Distribution:
        """At most about ``most`` steps: with those left out, no more than count / most numbers go.

        Each value that many numbers share stays, and so does what is known of it.
        """
        if len(self.values) <= most:
            return self
        wanted = np.arange(1, most) / most * self.count
        kept = np.searchsorted(self.upto, wanted)
        kept = np.unique(np.concatenate([[0], kept, [len(self.values) - 1]]))
        return Distribution(self.values[kept], self.below[kept], self.upto[kept], self.count)

    def at(self, values: Floats) -> tuple[Floats, Floats]:
        """The shares of the numbers below each of the values, and at most as large.

        Exact at values that are steps; between two steps it is what holds after the lower one.
        """
        shares = np.append(0, self.upto) / self.count
        upto = shares[np.searchsorted(self.values, values, side="right")]
        place = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        is_step = self.values[place] == values
        return np.where(is_step, self.below[place] / self.count, upto), upto


def edges_of(reference: Distribution, bins: int) -> Floats:
    """The upper edges of all bins but the last: the quantiles, where they are distinct.

    A value that takes up several quantiles is one edge. The greatest value is none, as above it
    there is nothing; only where all numbers are the same, they are a bin of their own.
    """
    wanted = np.arange(1, bins) / bins * reference.count
    # Of the two steps about a quantile the nearer one: numbers that are left out are between.
    place = np.searchsorted(reference.upto, wanted)
    before = np.maximum(place - 1, 0)
    nearer = np.where(
        wanted - reference.upto[before] < reference.upto[place] - wanted, before, place
    )
    edges: Floats = np.unique(reference.values[nearer])
    edges = edges[edges < reference.values[-1]]
    if not len(edges):
        only = reference.values[-1]
        edges = np.array([np.nextafter(only, -math.inf), only])
    return edges


def binned(numbers: Distribution, edges: Floats) -> Ints:
    """How many numbers are in each bin, shape (edges + 1,): at most the first edge, and so on."""
    upto = np.rint(numbers.at(edges)[1] * numbers.count).astype(np.int64)
    counts: Ints = np.diff(np.concatenate([[0], upto, [numbers.count]]))
    return counts


@dataclass(frozen=True)
class Psi:
    """The population stability index between two populations, from a sample of each.

    Attributes:
        plain: the index of the two samples.
        value: the same, less what chance adds to it.
        low, high: two-sided limits.
    """

    plain: float
    value: float
    low: float
    high: float


def psi(reference: Ints, counts: Ints, confidence: float) -> Psi:
    """PSI = sum of (p - q) ln(p / q) over the bins (Siddiqi, Credit Risk Scorecards, 2006, ch. 10).

    A bin that is empty counts as half an example. Between samples of one population PSI is
    (1/n + 1/m) times a chi-square of bins - 1 degrees (Yurdakul, Western Michigan University,
    2018), so that chance adds about (bins - 1)(1/n + 1/m); in general it adds the second-order term
    of the delta method. The limits solve (value - true)^2 = z^2 variance(true), where the variance
    is that of the noncentral chi-square, (2 (bins - 1) + 4 true / s) s^2 with s = 1/n + 1/m; or of
    the delta method where that is larger.

    Args:
        reference, counts: examples in each bin, shape (bins,), each with a sum above 0.
    """
    n, m = float(reference.sum()), float(counts.sum())
    p, q = np.maximum(reference, 0.5) / n, np.maximum(counts, 0.5) / m
    bins, scale = len(p), 1 / n + 1 / m
    plain = float(np.sum((p - q) * np.log(p / q)))
    # Of an empty bin's ratio nothing is known, so that no more than usual is taken off for it.
    ratio = np.where((reference > 0) & (counts > 0), q / p, 1.0)
    chance = (bins - 2 + float(ratio.sum())) / (2 * n)
    chance += (bins - 2 + float((1 / ratio).sum())) / (2 * m)
    value = max(plain - chance, 0.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # How much larger the delta method's variance is than that of small shifts, 4 value s.
    slopes = np.log(p / q) + 1 - q / p, np.log(q / p) + 1 - p / q
    variance = _variance(slopes[0], p) / n + _variance(slopes[1], q) / m
    factor = max(variance / (4 * value * scale), 1.0) if value > 0 else 1.0
    z2 = z * z * factor
    degrees = bins - 1.0
    # Samples that are more alike than chance makes them say no more than those that chance makes.
    x = max((plain - chance) / scale, -degrees / 2)
    # (x - t)^2 = z2 (2 degrees + 4 t), for t, the noncentrality.
    half = math.sqrt(max(4 * x * z2 + 4 * z2 * z2 + 2 * degrees * z2, 0.0))
    low, high = x + 2 * z2 - half, x + 2 * z2 + half
    return Psi(plain, value, min(max(low * scale, 0.0), value), max(high * scale, value))


def _variance(slopes: Floats, shares: Floats) -> float:
    shares = shares / shares.sum()
    return float(np.sum(shares * slopes**2) - np.sum(shares * slopes) ** 2)


@dataclass(frozen=True)
class Distance:
    """The greatest distance of two cumulative distributions, with two-sided limits."""

    value: float
    low: float
    high: float


def ks(reference: Distribution, numbers: Distribution, confidence: float) -> Distance:
    """The two-sample Kolmogorov-Smirnov D, with limits for that of the populations.

    Upper: at the point where the populations are farthest apart, the samples' distance is no more
    than D and is normal about theirs; so the greatest of distance + z standard errors over all
    points is an upper limit, whichever point it is. Lower: D less the width of the band that
    sup |(F_n - G_m) - (F - G)| keeps to, 2 exp(-2 c^2) at c sqrt(1/n + 1/m) (Massart, Annals of
    Probability 18, 1990; for two samples Wei and Dudley, Statistics and Probability Letters 82,
    2012).

    Where steps of the reference are left out, its distribution between two is not known: the value
    is what holds at the steps, and the upper limit counts the rest against the model.
    """
    n, m = reference.count, numbers.count
    # Just below each step, and at it: between two, distributions are within what they are there.
    mine, ours = reference.at(reference.values), numbers.at(reference.values)
    value = max(float(np.abs(one - other).max()) for one, other in zip(mine, ours, strict=True))
    gap = float(np.max(mine[0][1:] - mine[1][:-1], initial=0.0))
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    high = value
    for one, other in zip(mine, ours, strict=True):
        error = np.sqrt(_spread(one, n) + _spread(other, m))
        high = max(high, float(np.max(np.abs(one - other) + z * error)))
    width = math.sqrt(-math.log((1 - confidence) / 4) / 2 * (1 / n + 1 / m))
    return Distance(value, max(value - width, 0.0), min(high + gap, 1.0))


def _spread(shares: Floats, count: int) -> Floats:
    """The variance of shares, with half an example more on each side: none of 20 is not 0."""
    shares = (shares * count + 0.5) / (count + 1)
    return shares * (1 - shares) / count
