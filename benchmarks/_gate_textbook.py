"""What textbooks and many scripts ask of two models, to stand beside the gate.

Each says whether the challenger is better at 95%, two-sided: McNemar's exact test of right and
wrong answers (Psychometrika 12, 1947), Student's paired t test, DeLong's test of two areas
(Biometrics 44, 1988), and the percentile bootstrap (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993), of 1,000 resamples of rows. They know nothing of groups or
weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from ctflow.gate.files.predictions import Predictions
from ctflow.gate.metrics.areas import RocAuc
from ctflow.gate.metrics.measures import Means, Measure, RightWrong, right_answers

LEVEL = 0.05
RESAMPLES = 1_000


def passes(
    test: str, found: Measure, pair: tuple[Predictions, Predictions], lower_better: bool
) -> bool:
    """Whether that test shows the challenger, the first of the pair, to be better.

    Args:
        test: ``McNemar`` (of the answers to the positives, where the metric is recall), ``t``,
            ``DeLong`` or ``bootstrap``.
        found: the metric of the two.
        lower_better: whether it improves as it falls.
    """
    if test == "McNemar":
        if isinstance(found, RightWrong):
            return mcnemar(*(right.astype(bool) for right in found.right(None)))
        positive = pair[0].classes("label").equal("1")
        return mcnemar(*(right[positive] for right in right_answers(pair)))
    sign = -1 if lower_better else 1
    if test == "t":
        assert isinstance(found, Means)
        ours, theirs = found.linear(None)
        return paired_t(sign * (ours - theirs))
    if test == "DeLong":
        assert isinstance(found, RocAuc)
        return delong(*found.components(None))
    drawn = found.resample(None, RESAMPLES, np.random.default_rng(0))
    gains = sign * (drawn[:, 0] - drawn[:, 1])
    gains = gains[np.isfinite(gains)]
    return len(gains) > 0 and float(np.quantile(gains, LEVEL / 2)) > 0


def mcnemar(ours: Any, theirs: Any) -> bool:
    """Of right answers, shape (n,): the exact test."""
    better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return better > worse and bool(stats.binomtest(better, better + worse).pvalue < LEVEL)


def paired_t(gains: Any) -> bool:
    """Of each example's gain, shape (n,)."""
    if not gains.std():
        return bool(gains.mean() > 0)
    found = stats.ttest_1samp(gains, 0.0)
    return bool(found.statistic > 0 and found.pvalue < LEVEL)


def delong(positives: Any, negatives: Any) -> bool:
    """Of each positive's and each negative's part in the gain of the area."""
    if min(len(positives), len(negatives)) < 2:
        return False
    variance = positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives)
    gain = float(positives.mean())
    if not variance:
        return gain > 0
    return gain / math.sqrt(variance) > float(stats.norm.ppf(1 - LEVEL / 2))
