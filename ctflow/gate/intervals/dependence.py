"""How much less a series of times says than as many that do not depend on each other.

A busy moment slows several answers in a row. Limits of a quantile are then too narrow: they hang on
how often times are above it, and that count varies more than a binomial one. By how much is seen
from the counts in blocks of times that follow each other.

Sources: Heidelberger and Lewis, Operations Research 32 (1984), quantiles of dependent sequences;
Schmeiser, Operations Research 30 (1982), the variance of a mean from those of batches; Wilson and
Hilferty, Proceedings of the National Academy of Sciences 17 (1931), quantiles of chi-square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

#: Times in a block: the short ones see short runs of slow answers, the long ones slow drifts.
BLOCKS = (20, 50)
#: Fewer blocks say too little.
LEAST_BLOCKS = 10
#: What independent times reach by chance, for each length of block, does not count.
CHANCE = 0.05


def counts_as(times: Sequence[float], share: float) -> int:
    """How many independent times say as much of the ``share``-quantile: at most ``len(times)``.

    The times that are counted are those above a quantile further in, 2.5 times as many as are above
    the one asked for (at most the upper half), as there are too few of those.

    Args:
        times: in the order in which they were measured, at least one.
    """
    count = len(times)
    place = math.ceil(round(max(0.5, 1 - 2.5 * (1 - share)) * count, 9))
    limit = sorted(times)[max(place, 1) - 1]
    above = [one > limit for one in times]
    ratio = max(_ratio(above, size) for size in BLOCKS)
    return max(int(count / ratio), 1)


def _ratio(above: Sequence[bool], size: int) -> float:
    """The variance of the share above by that of independent ones; 1 where chance explains it."""
    count, blocks = len(above), len(above) // size
    share = sum(above) / count
    if blocks < LEAST_BLOCKS or share in (0.0, 1.0):
        return 1.0
    shares = [sum(above[k * size : (k + 1) * size]) / size for k in range(blocks)]
    mean = sum(shares) / blocks
    variance = sum((one - mean) ** 2 for one in shares) / (blocks - 1)
    ratio = variance * size / (share * (1 - share))
    return max(ratio, 1.0) if ratio * (blocks - 1) > chi_square(blocks - 1) else 1.0


def chi_square(degrees: int) -> float:
    """The quantile of chi-square that chance exceeds with probability ``CHANCE``."""
    part = 2 / (9 * degrees)
    return degrees * float(1 - part + NormalDist().inv_cdf(1 - CHANCE) * math.sqrt(part)) ** 3
