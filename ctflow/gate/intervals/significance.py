"""Is a paired difference more than chance? Exact McNemar, and the paired bootstrap.

Every interval is two-sided at ``confidence``; a gain counts as shown when the interval's lower end
is beyond its limit, so that chance alone passes a model that is no better with probability at most
``(1 - confidence) / 2``.

Sources: McNemar, Psychometrika 12 (1947), in its exact (binomial) form; Clopper and Pearson,
Biometrika 26 (1934); Tango, Statistics in Medicine 17 (1998), the score interval for a paired
difference of proportions; Efron and Tibshirani, An Introduction to the Bootstrap (1993);
Hesterberg, The American Statistician 69 (2015), the percentile interval widened for small samples;
Zou and Donner, Statistics in Medicine 27 (2008), limits of a sum from those of its parts (MOVER);
DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), the variance of an area under the curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Numbers drawn at once; bounds the memory of a bootstrap to some tens of MB.
CHUNK = 2_000_000
RESAMPLES = 4_000
#: Resamples of individual examples where there are many: their quantiles vary less.
RESAMPLES_LARGE = 2_000
LARGE = 20_000
_RESAMPLES_MAX = 50_000


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p-value of the exact McNemar test.

    better, worse: examples that only the challenger, only the champion got right. Under no
    difference ``better`` is binomial(better + worse, 1/2); p is twice the smaller tail, at most 1.
    """
    total = better + worse
    if total == 0:
        return 1.0
    return min(1.0, 2.0 * binomial_tail(min(better, worse), total, 0.5))


def right_wrong_interval(
    better: int, worse: int, examples: int, confidence: float
) -> tuple[float, float]:
    """Interval of the gain in accuracy, ``(better - worse) / examples``.

    The hull of two: Tango's score interval, and the interval that the exact McNemar test inverts
    to (Clopper-Pearson for the share of ``better`` among the examples on which the two differ,
    times their rate). The first is right for any limit; the second excludes 0 exactly when the
    test's p is below ``1 - confidence``, so that interval and test cannot contradict each other.
    """
    low, high = tango(better, worse, examples, confidence)
    total = better + worse
    if total:
        share_low, share_high = clopper_pearson(better, total, confidence)
        rate = total / examples
        low = min(low, (2 * share_low - 1) * rate)
        high = max(high, (2 * share_high - 1) * rate)
    return low, high


def resamples(units: int, confidence: float) -> int:
    """How many resamples: enough that some twenty fall outside the interval at each end."""
    base = RESAMPLES_LARGE if units > LARGE else RESAMPLES
    return min(max(base, math.ceil(40 / (1 - confidence))), _RESAMPLES_MAX)


def bootstrap_cells(
    counts: Ints,
    statistic: Callable[[Ints], Floats],
    count: int,
    rng: np.random.Generator,
) -> Floats:
    """Resample a table of counts; the same as resampling the examples behind it, but faster.

    counts: shape (cells,), how many examples fall into each. statistic: counts of shape
    (resamples, cells) -> shape (resamples, ...). Returns shape (count, ...).
    """
    total = int(counts.sum())
    shares = counts / total
    step = max(1, CHUNK // len(counts))
    parts = [
        statistic(rng.multinomial(total, shares, size=min(step, count - start)))
        for start in range(0, count, step)
    ]
    return np.concatenate(parts)


def bootstrap_rows(
    examples: int,
    statistic: Callable[[npt.NDArray[np.int32]], Floats],
    count: int,
    rng: np.random.Generator,
) -> Floats:
    """Resample examples, each drawn with both its champion's and its challenger's answer.

    statistic: indexes of shape (resamples, examples) -> shape (resamples, ...). Returns shape
    (count, ...).
    """
    step = max(1, CHUNK // examples)
    parts = [
        statistic(
            rng.integers(0, examples, size=(min(step, count - start), examples), dtype=np.int32)
        )
        for start in range(0, count, step)
    ]
    return np.concatenate(parts)


def least_informative(confidence: float) -> int:
    """The fewest differing examples on which a sign test could ever reach the level.

    If all of m examples favour one side, the two-sided sign test gives 2 * 2**-m; with fewer than
    this many, no resampling can tell a gain from chance.
    """
    return math.floor(1 - math.log2(1 - confidence)) + 1


def percentile_interval(gains: Floats, informative: int, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrapped gains, widened for few informative examples.

    gains: shape (resamples,); those that are not finite (an undefined metric) count as the worst
    at either end. informative: the number of examples on which the two models differ. The level is
    Hesterberg's: Phi(-sqrt(m / (m - 1)) * t), t the quantile of Student's t with m - 1 degrees.
    Where fewer than five resamples lie beyond that quantile they do not say where it is: then it is
    the hull with the normal interval of the resamples' spread (Efron and Tibshirani, chapter 13).
    """
    tail = _widened(informative, confidence)
    finite = gains[np.isfinite(gains)]
    low = float(np.quantile(np.where(np.isfinite(gains), gains, -np.inf), tail, method="lower"))
    high = float(
        np.quantile(np.where(np.isfinite(gains), gains, np.inf), 1 - tail, method="higher")
    )
    if tail * len(gains) < 5 and len(finite):
        middle, half = float(finite.mean()), -NormalDist().inv_cdf(tail) * float(finite.std())
        low, high = min(low, middle - half), max(high, middle + half)
    return low, high


def quantile_error(gains: Floats, informative: int, confidence: float) -> float:
    """Monte Carlo standard error of ``percentile_interval``'s lower end.

    Half the distance of the order statistics one binomial standard deviation to either side.
    """
    tail = _widened(informative, confidence)
    ordered = np.sort(np.where(np.isfinite(gains), gains, -np.inf))
    place, step = tail * len(ordered), math.sqrt(len(ordered) * tail * (1 - tail))
    first, last = max(math.floor(place - step), 0), min(math.ceil(place + step), len(ordered) - 1)
    return float(ordered[last] - ordered[first]) / 2 if np.isfinite(ordered[first]) else 0.0


def _widened(informative: int, confidence: float) -> float:
    tail = (1 - confidence) / 2
    if informative > 1:
        factor = math.sqrt(informative / (informative - 1))
        tail = NormalDist().cdf(-factor * student(1 - tail, informative - 1))
    return tail


def mover(parts: Sequence[tuple[int, int, int]], confidence: float) -> tuple[float, float]:
    """Interval of the mean of several paired differences of proportions, of disjoint examples.

    parts: (better, worse, examples) of each, such as of each class. Tango's limits of each part,
    joined by the method of variance estimates recovery.
    """
    share = 1 / len(parts)
    gain = below = above = 0.0
    for better, worse, examples in parts:
        own = (better - worse) / examples
        low, high = tango(better, worse, examples, confidence)
        gain += share * own
        below += (share * (own - low)) ** 2
        above += (share * (high - own)) ** 2
    return gain - math.sqrt(below), gain + math.sqrt(above)


def t_interval(
    differences: Floats, gain: float, informative: int, confidence: float, worst: float = 0.0
) -> tuple[float, float]:
    """Student's interval of a mean of paired differences.

    Args:
        differences: shape (n,); each example's part in the gain, whose mean is ``gain``.
        informative: how many of them are not 0: their number less 1 are the degrees of freedom.
        worst: above 0, one imagined example is added to each end's reckoning, which loses or gains
            that much: a disaster that the set does not hold must not be taken for impossible.
    """
    n = len(differences)
    t = student((1 + confidence) / 2, max(informative - 1, 1))
    spread = float(((differences - gain) ** 2).sum())
    if not worst:
        half = t * math.sqrt(spread / max(n - 1, 1) / n)
        return gain - half, gain + half
    ends = []
    for sign in (-1.0, 1.0):
        mean = (n * gain + sign * worst) / (n + 1)
        total = spread + n * (gain - mean) ** 2 + (sign * worst - mean) ** 2
        ends.append(mean + sign * t * math.sqrt(total / n / (n + 1)))
    return ends[0], ends[1]


def delong_interval(
    positives: Floats, negatives: Floats, gain: float, confidence: float
) -> tuple[float, float]:
    """Interval of a difference of two areas under the curve, with Welch's degrees of freedom.

    positives, negatives: shapes (p,) and (q,), both at least 2: each example's part in the
    difference, the structural components V10 and V01 of DeLong and others.
    """
    parts = [float(v.var(ddof=1)) / len(v) for v in (positives, negatives)]
    sizes = [len(positives) - 1, len(negatives) - 1]
    total = sum(parts)
    if total <= 0:
        return gain, gain
    degrees = total**2 / sum(p**2 / size for p, size in zip(parts, sizes, strict=True))
    half = student((1 + confidence) / 2, degrees) * math.sqrt(total)
    return gain - half, gain + half


def unseen(differ: int, examples: int, confidence: float) -> float:
    """How far the share of losses may exceed the share seen, if all that differ were losses.

    Wilson's score limit (Journal of the American Statistical Association 22, 1927). With no
    difference at all it is z^2 / (n + z^2), about 3.8 / n at 0.95.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt(differ - differ * differ / examples + z * z / 4)
    return (differ + z * z / 2 + half) / (examples + z * z) - differ / examples


def student(level: float, degrees: float) -> float:
    """Quantile of Student's t at ``level`` above 0.5, for any positive number of degrees.

    By bisection of P(T > t) = I(degrees / (degrees + t^2); degrees/2, 1/2) / 2, where I is the
    regularized incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17).
    """

    def excess(t: float) -> float:
        share = incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)
        return share / 2 - (1 - level)

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return bisect(excess, 0.0, high)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I(x; a, b) by its continued fraction (DLMF 8.17.22), evaluated as Lentz does.

    Takes some sqrt(max(a, b)) steps.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(100_000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + term * d) or tiny)
        c = (1 + term / c) or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(front) * (fraction - 1) / a


def binomial_tail(k: int, total: int, share: float) -> float:
    """P(X <= k) for X binomial(total, share), 0 <= k <= total, 0 <= share <= 1.

    Source: NIST Digital Library of Mathematical Functions, 8.17.5.
    """
    return 1.0 if k == total else incomplete_beta(1 - share, total - k, k + 1)


def clopper_pearson(k: int, total: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a share of which ``k`` of ``total`` were seen."""
    tail = (1 - confidence) / 2

    def upper(hits: int) -> float:
        if hits == total:
            return 1.0
        return bisect(lambda share: binomial_tail(hits, total, share) - tail, 0.0, 1.0)

    return 1.0 - upper(total - k), upper(k)


def bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """The root of a falling function, to the last bits of the interval."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def tango(better: int, worse: int, examples: int, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    gain = (better - worse) / examples

    def statistic(limit: float) -> float:
        a = 2.0 * examples
        b = -better - worse + (2.0 * examples - better + worse) * limit
        c = -worse * limit * (1 - limit)
        rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = examples * (2 * rate + limit * (1 - limit))
        distance = better - worse - examples * limit
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    low = bisect(lambda limit: statistic(limit) - z, -1.0, gain)
    high = bisect(lambda limit: statistic(limit) + z, gain, 1.0)
    return low, high
