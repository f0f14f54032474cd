"""Right or wrong answers of two models on the same examples: McNemar's test in its mid-p form.

The exact test is cautious: few differing examples allow few p-values, so that its true level is
often half of what was asked. Mid-p counts half of the chance of what was seen. Source: Fagerland,
Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).

Given the number of examples that differ, mid-p may exceed its level; over that number's chance it
does not, so long as it varies. Enumeration shows at most 2.5% at confidence 0.95 where the exact
test takes over as said at ``MOST``.
"""

from __future__ import annotations

from ctflow.gate.intervals.significance import (
    binomial_tail,
    bisect,
    mcnemar,
    right_wrong_interval,
    tango,
)

#: Where more than this many examples differ, or more than half of them, the exact test decides:
#: there mid-p can exceed its level (of few examples by much, of many by parts in ten thousand).
MOST = 1_000


def mid_p(better: int, worse: int) -> float:
    """Two-sided mid-p value of McNemar's test.

    better, worse: examples that only the challenger, only the champion got right. Under no
    difference ``better`` is binomial(better + worse, 1/2); p is twice the smaller tail, in which
    the count that was seen has half its weight.
    """
    total = better + worse
    return 2.0 * _mid_tail(min(better, worse), total, 0.5) if total else 1.0


def mid_p_interval(
    better: int, worse: int, examples: int, confidence: float
) -> tuple[float, float]:
    """Interval of the gain in accuracy, ``(better - worse) / examples``.

    The hull of two: Tango's score interval (Statistics in Medicine 17, 1998), which is right for
    any limit, and the one that mid-p inverts to: its limits of the share of ``better`` among the
    examples that differ, times their rate. It excludes 0 exactly when ``mid_p`` is below
    ``1 - confidence``; where Tango's alone reaches over 0 (from a confidence of 0.995 on, whose
    far tails it takes too wide), mid-p's end stands.
    """
    low, high = tango(better, worse, examples, confidence)
    total = better + worse
    if total == 0:
        return low, high
    rate = total / examples
    own_low = -(2 * _upper(worse, total, confidence) - 1) * rate
    own_high = (2 * _upper(better, total, confidence) - 1) * rate
    low = own_low if low <= 0 < own_low else min(low, own_low)
    high = own_high if own_high < 0 <= high else max(high, own_high)
    return low, high


def right_wrong(
    better: int, worse: int, examples: int, confidence: float, exact: bool = False
) -> tuple[float, float, float, str]:
    """(p-value, low, high, method) for the gain in accuracy.

    exact: the exact test always, whose level holds for each number of differing examples.
    """
    differ = better + worse
    if exact or 2 * differ > examples or differ > MOST:
        ends = right_wrong_interval(better, worse, examples, confidence)
        return mcnemar(better, worse), *ends, "exact McNemar test; score and exact interval"
    ends = mid_p_interval(better, worse, examples, confidence)
    return mid_p(better, worse), *ends, "mid-p McNemar test; score and mid-p interval"


def _mid_tail(k: int, total: int, share: float) -> float:
    """P(X < k) + P(X = k)/2 for X binomial(total, share)."""
    below = binomial_tail(k - 1, total, share) if k else 0.0
    return (below + binomial_tail(k, total, share)) / 2


def _upper(k: int, total: int, confidence: float) -> float:
    """Upper mid-p limit of a share of which ``k`` of ``total`` were seen."""
    if k == total:
        return 1.0
    level = (1 - confidence) / 2
    return bisect(lambda share: _mid_tail(k, total, share) - level, 0.0, 1.0)
