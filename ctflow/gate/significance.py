"""Is a paired difference more than chance? Exact McNemar, and the paired bootstrap.

Every interval is two-sided at ``confidence``; a gain counts as shown when the interval's lower end
is beyond its limit, so that chance alone passes a model that is no better with probability at most
``(1 - confidence) / 2``.

Sources: McNemar, Psychometrika 12 (1947), in its exact (binomial) form; Clopper and Pearson,
Biometrika 26 (1934); Tango, Statistics in Medicine 17 (1998), the score interval for a paired
difference of proportions; Efron and Tibshirani, An Introduction to the Bootstrap (1993);
Hesterberg, The American Statistician 69 (2015), the percentile interval widened for small samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    return min(1.0, 2.0 * _lower_tail(min(better, worse), _log_choose(total), 0.5))


def right_wrong_interval(
    better: int, worse: int, examples: int, confidence: float
) -> tuple[float, float]:
    """Interval of the gain in accuracy, ``(better - worse) / examples``.

    The hull of two: Tango's score interval, and the interval that the exact McNemar test inverts
    to (Clopper-Pearson for the share of ``better`` among the examples on which the two differ,
    times their rate). The first is right for any limit; the second excludes 0 exactly when the
    test's p is below ``1 - confidence``, so that interval and test cannot contradict each other.
    """
    low, high = _tango(better, worse, examples, confidence)
    total = better + worse
    if total:
        share_low, share_high = _clopper_pearson(better, total, confidence)
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
    """
    tail = (1 - confidence) / 2
    if informative > 1:
        factor = math.sqrt(informative / (informative - 1))
        tail = NormalDist().cdf(-factor * _student(1 - tail, informative - 1))
    low = np.where(np.isfinite(gains), gains, -np.inf)
    high = np.where(np.isfinite(gains), gains, np.inf)
    return (
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1 - tail, method="higher")),
    )


def rule_of_three(examples: int, confidence: float) -> float:
    """How far a gain may be off of which no example gives a sign: a zero rate's score bound."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return z * z / (examples + z * z)


def _student(level: float, degrees: int) -> float:
    """Quantile of Student's t from the normal one (Cornish-Fisher, to the third order)."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _log_choose(total: int) -> Floats:
    """log C(total, k) for k = 0..total, shape (total + 1,)."""
    k = np.arange(1, total + 1, dtype=np.float64)
    steps = np.log(total - k + 1) - np.log(k)
    return np.concatenate([np.zeros(1), np.cumsum(steps)])


def _lower_tail(k: int, log_choose: Floats, share: float) -> float:
    """P(X <= k) for X binomial(total, share), 0 < share < 1."""
    total = len(log_choose) - 1
    i = np.arange(k + 1, dtype=np.float64)
    logs = log_choose[: k + 1] + i * math.log(share) + (total - i) * math.log1p(-share)
    return float(min(1.0, np.exp(logs).sum()))


def _clopper_pearson(k: int, total: int, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    log_choose = _log_choose(total)

    def upper(hits: int) -> float:
        if hits == total:
            return 1.0
        return _bisect(lambda share: _lower_tail(hits, log_choose, share) - tail, 0.0, 1.0)

    return 1.0 - upper(total - k), upper(k)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """The root of a falling function, to the last bits of the interval."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tango(better: int, worse: int, examples: int, confidence: float) -> tuple[float, float]:
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

    low = _bisect(lambda limit: statistic(limit) - z, -1.0, gain)
    high = _bisect(lambda limit: statistic(limit) + z, gain, 1.0)
    return low, high
