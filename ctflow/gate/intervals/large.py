"""So many examples that resampling would say nothing that a formula does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ctflow.gate.files.predictions import Floats

#: Sets of no more examples than this are always resampled,
MANY = 50_000
#: and so are those where fewer than this inform on the difference.
LEAST = 1_000
#: How far resampling may move an end of the interval, as a share of the interval's width.
AGREED = 0.01
#: What a method's name says then.
IDLE = " (of so many, resampling would say the same)"


def needs_no_resampling(parts: Sequence[Floats], informative: int, confidence: float) -> bool:
    """Whether a bootstrap's percentile interval would be Student's, to within 1% of its width.

    Resampling moves both ends of the normal interval by (z^2 - 1) / 6 * skewness * standard error
    the same way, where the skewness is that of the estimate, and the width 2 * z * standard error
    (Hall, The Annals of Statistics 16 (1988), 927-953: the percentile interval's first term).

    Args:
        parts: independent samples whose means, added, are the estimate: each example's part in it.
        informative: how many examples inform on the estimate.
    """
    if sum(map(len, parts)) <= MANY or informative < LEAST:
        return False
    variance = third = 0.0
    for sample in parts:
        n, centred = len(sample), sample - sample.mean()
        variance += float((centred**2).sum()) / n**2
        third += float((centred**3).sum()) / n**3
    if variance <= 0:
        return False
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    moved = abs(third) / math.sqrt(variance) ** 3 * abs(z * z - 1) / (12 * z)
    return moved <= AGREED
