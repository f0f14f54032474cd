"""Gains where the rows come in groups: several of one patient, user, image or day.

Rows of one group go the same way, so the groups are what was drawn by chance, and not the rows.
Sources: Cameron and Miller, Journal of Human Resources 50 (2015), the variance of a mean from the
sums of groups, with Student's t of one less than their number; Field and Welsh, Journal of the
Royal Statistical Society B 69 (2007), resampling of whole groups.
"""

from __future__ import annotations

import math

import numpy as np

from ctflow.config.time_blocks import block_of
from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, codes
from ctflow.gate.intervals.large import IDLE, needs_no_resampling
from ctflow.gate.intervals.significance import (
    bootstrap_rows,
    least_informative,
    percentile_interval,
    resamples,
    student,
    unseen,
)
from ctflow.gate.metrics.agreement import Agreement
from ctflow.gate.metrics.areas import MeanArea, RocAuc
from ctflow.gate.metrics.average_precision import AveragePrecision
from ctflow.gate.metrics.by_class import ByClass
from ctflow.gate.metrics.measures import Bools, Means, Measure, RightWrong


def group_codes(predictions: Predictions, column: str, block: str | None) -> Ints:
    """The group of each example, shape (n,): a text of the column, or the time block it is in.

    Raises:
        ConfigError: with ``block``, a text is no time.
    """
    texts = predictions.texts(column)
    if block is None:
        return codes(texts)[1][0]
    blocks = np.array([block_of(text, block) for text in texts.distinct], np.int64)
    return np.asarray(np.unique(blocks[texts.codes], return_inverse=True)[1])


def parts_of_gain(measure: Measure, rows: Ints | None, sign: float, metric: str) -> Floats:
    """Each example's part in the gain, to first order; shape (n,), its mean is the gain.

    Raises:
        ConfigError: the metric has no such parts.
    """
    if isinstance(measure, RightWrong):
        ours, theirs = measure.right(rows)
        return (ours - theirs).astype(np.float64)
    if isinstance(measure, Means):
        first, second = measure.linear(rows)
        return np.asarray(sign * (first - second))
    if isinstance(measure, (ByClass, RocAuc, MeanArea, AveragePrecision, Agreement)):
        parts = measure.influence(rows)
        if parts is not None:
            return np.asarray(sign * parts)
    raise no_groups(metric)


def no_groups(metric: str) -> ConfigError:
    """The error for a metric whose groups cannot be told apart."""
    return ConfigError(
        f"'group' does not go with {metric}",
        next="use accuracy, recall, balanced_accuracy, mcc, roc_auc, or a mean of losses",
    )


def grouped_interval(
    measure: Measure,
    parts: Floats,
    differs: Bools,
    groups: Ints,
    confidence: float,
    seed: int,
) -> tuple[float, float, str]:
    """(low, high, method): the hull of Student's interval over groups and of resampled groups.

    All of shape (n,): parts, see ``parts_of_gain``; differs, whether the two models differ on the
    example; groups, the group of each.
    """
    gain = float(parts.mean())
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups).astype(np.float64)
    count, n = len(sizes), len(parts)
    sums = np.bincount(groups, weights=parts - gain)
    differ = len(np.unique(groups[differs]))
    if differ < least_informative(confidence):
        method = f"the two differ in {differ} of {count} groups, too few to tell"
        if isinstance(measure, (RightWrong, Means)):
            worst = measure.worst(None) if isinstance(measure, Means) else 1.0
            slack = worst * unseen(differ, count, confidence) * sizes.max() * count / n
            return min(gain - slack, 0.0), max(gain + slack, 0.0), method
        return -math.inf, math.inf, method
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / n
    half = student((1 + confidence) / 2, differ - 1) * error
    if needs_no_resampling([sums * count / n], differ, confidence):
        method = f"Student's t over the groups' sums{IDLE}"
        return gain - half, gain + half, method
    drawn = bootstrap_rows(
        count,
        lambda rows: np.asarray(gain + sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)),
        resamples(count, confidence),
        np.random.default_rng(seed),
    )
    low, high = percentile_interval(drawn, differ, confidence)
    method = "Student's t over the groups' sums, and resampling of groups"
    return min(gain - half, low), max(gain + half, high), method
