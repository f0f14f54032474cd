"""One model by itself: its metric on some examples, with the interval that the truth is within."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from ctflow.config.metric_names import is_loss, is_of_queries, lowest
from ctflow.gate.comparison import GUARDED, LEAST_OF_A_CLASS, RANKINGS
from ctflow.gate.files.predictions import Floats, Ints, Predictions
from ctflow.gate.function_intervals import Samples, value_interval
from ctflow.gate.groups import group_codes, no_groups
from ctflow.gate.intervals.limits import (
    Limits,
    area_interval,
    f1_limits,
    mean_interval,
    mean_of_shares,
    share_interval,
)
from ctflow.gate.intervals.significance import (
    least_informative,
    percentile_interval,
    resamples,
    t_interval,
    unseen,
)
from ctflow.gate.metrics.agreement import Agreement
from ctflow.gate.metrics.areas import MeanArea, RocAuc, RocAucOvo
from ctflow.gate.metrics.average_precision import AveragePrecision
from ctflow.gate.metrics.by_class import ByClass
from ctflow.gate.metrics.functions import Function
from ctflow.gate.metrics.measures import Means, Measure, RightWrong, pick
from ctflow.gate.metrics.ndcg import Ndcg
from ctflow.gate.metrics.quantiles import Quantiles
from ctflow.gate.metrics.scores import measure
from ctflow.gate.metrics.weights import Weighted
from ctflow.model import Estimate

if TYPE_CHECKING:
    from ctflow.config.gate_metric import MetricOf
    from ctflow.config.gate_rules import GateRule

NOTHING = (-math.inf, math.inf)


class Single:
    """One metric of one model, with its interval.

    Raises:
        ConfigError: the predictions do not give the metric, or it does not go with groups.
    """

    def __init__(
        self,
        metric: str,
        predictions: Predictions,
        *,
        positive: str | None = None,
        of: MetricOf | None = None,
        weight: str | None = None,
        group: str | None = None,
        block: str | None = None,
        seed: int = 0,
    ) -> None:
        self._metric = metric
        # A root is as good as what it is the root of, and that is a mean.
        self._measure: Measure = measure(
            "mse" if metric == "rmse" else metric, [predictions], positive, of, weight, group
        )
        self._groups: Ints | None = None
        if group is not None and not is_of_queries(metric):
            self._groups = group_codes(predictions, group, block)
        words = f"{seed} {predictions.evaluation_set} {metric}"
        self._seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")

    def estimate(self, confidence: float, rows: Ints | None, examples: int) -> Estimate:
        """The metric on those ``examples`` (all: None), two-sided at ``confidence``.

        ``low`` and ``high`` are infinite where nothing can be said; the method then says why. The
        value is NaN where the metric is undefined.
        """
        groups = None
        if isinstance(self._measure, Ndcg):
            rows = self._measure.of(rows)
            groups = self._measure.count(rows)
        value = float(self._measure.values(rows)[0])
        if not math.isfinite(value):
            (low, high), method = NOTHING, "undefined"
        elif isinstance(self._measure, Function):
            samples = Samples(self._measure, rows, self._groups, self._seed)
            groups = samples.units if self._groups is not None else None
            low, high, method = value_interval(samples, confidence)
        elif self._groups is not None:
            of = pick(self._groups, rows)
            groups = len(np.unique(of))
            (low, high), method = self._grouped(rows, of, confidence)
        else:
            (low, high), method = self._interval(rows, examples, value, confidence)
        low, high = self._possible(low, high)
        if self._metric == "rmse":
            value, low, high = math.sqrt(value), math.sqrt(max(low, 0.0)), math.sqrt(high)
        return Estimate(self._metric, value, low, high, confidence, method, examples, groups)

    def _possible(self, low: float, high: float) -> Limits:
        """The interval without what the metric cannot be."""
        if math.isinf(high):
            return low, high
        if is_loss(self._metric):
            return max(low, 0.0), high
        is_free = isinstance(self._measure, (Function, Means, Quantiles))
        is_free = is_free and not is_of_queries(self._metric)
        return (low, high) if is_free else (max(low, lowest(self._metric)), min(high, 1.0))

    def _interval(
        self, rows: Ints | None, examples: int, value: float, confidence: float
    ) -> tuple[Limits, str]:
        measured = self._measure
        if isinstance(measured, RightWrong):
            hits = round(value * examples)
            return share_interval(hits, examples, confidence), "Wilson's and the exact interval"
        if isinstance(measured, RANKINGS) and (why := _few_of_a_class(measured, rows)):
            return NOTHING, why
        if isinstance(measured, RocAuc):
            ends = area_interval(*measured.components(rows), confidence)
            return ends, "DeLong's interval after Hall's transformation, and Newcombe's"
        if isinstance(measured, (Agreement, AveragePrecision, MeanArea)):
            return self._linear(measured, rows, confidence)
        if isinstance(measured, Means):
            return _mean(measured, rows, confidence)
        if isinstance(measured, ByClass):
            return self._by_class(measured, rows, confidence)
        if isinstance(measured, Quantiles):
            return measured.limits(rows, 0, confidence), "the interval between order statistics"
        return NOTHING, "no interval is known"

    def _linear(
        self,
        measured: Agreement | AveragePrecision | MeanArea,
        rows: Ints | None,
        confidence: float,
    ) -> tuple[Limits, str]:
        parts = measured.influence(rows)
        n = len(parts)
        informative = n - int(np.unique(parts, return_counts=True)[1].max())
        if informative < least_informative(confidence):
            return NOTHING, f"{informative} of {n} examples differ from the others, too few to tell"
        low, high = mean_interval(parts, informative - 1, confidence)
        if isinstance(measured, RocAucOvo):
            return (low, high), "Student's t, also after Hall's transformation"
        rng = np.random.default_rng(self._seed)
        drawn = measured.resample(rows, resamples(n, confidence), rng)[:, 0]
        ends = percentile_interval(drawn, informative, confidence)
        method = "Student's t, also after Hall's transformation, and bootstrap"
        return (min(low, ends[0]), max(high, ends[1])), method

    def _by_class(
        self, measured: ByClass, rows: Ints | None, confidence: float
    ) -> tuple[Limits, str]:
        shares = measured.shares(rows)
        turned = f1_limits if measured.is_f1 else _as_it_is
        method = "Wilson's and the exact interval"
        parts = [turned(share_interval(hits, of, confidence)) for hits, of, _ in shares]
        if len(shares) == 1:
            return parts[0], method
        values = [turned((hits / of, 1.0))[0] if of else 0.0 for hits, of, _ in shares]
        low, high = mean_of_shares(values, parts, [weight for *_, weight in shares])
        method += " by class, joined by MOVER"
        wrong = measured.wrong(rows)
        if measured.is_of_disjoint or wrong < least_informative(confidence):
            return (low, high), method
        # One example can be in the shares of two classes: MOVER alone would be too short.
        rng = np.random.default_rng(self._seed)
        drawn = measured.resample(rows, resamples(wrong, confidence), rng)[:, 0]
        ends = percentile_interval(drawn, wrong, confidence)
        return (min(low, ends[0]), max(high, ends[1])), f"{method}, and bootstrap"

    def _grouped(self, rows: Ints | None, groups: Ints, confidence: float) -> tuple[Limits, str]:
        measured = self._measure
        if isinstance(measured, RANKINGS) and (why := _few_of_a_class(measured, rows)):
            return NOTHING, why
        parts = parts_of_value(measured, rows, self._metric)
        values, sizes, differ = by_group(parts, groups)
        count = len(values)
        if differ >= least_informative(confidence):
            ends = mean_interval(values, differ - 1, confidence)
            return ends, "Student's t over the groups' sums, also after Hall's transformation"
        method = f"{differ} of {count} groups differ from the others, too few to tell"
        if not isinstance(measured, (RightWrong, Means)):
            return NOTHING, method
        worst = measured.worst(rows) if isinstance(measured, Means) else 1.0
        slack = worst * unseen(differ, count, confidence) * sizes.max() * count / len(parts)
        value = float(parts.mean())
        return (value - slack, value + slack), method


def single_of(rule: GateRule, predictions: Predictions, seed: int = 0) -> Single:
    """A rule's metric of one model. Raises ConfigError as ``Single`` does."""
    return Single(
        rule.metric,
        predictions,
        positive=rule.positive,
        of=rule.of,
        weight=rule.weight,
        group=rule.group,
        block=rule.block,
        seed=seed,
    )


def parts_of_value(measured: Measure, rows: Ints | None, metric: str) -> Floats:
    """Each example's part in the metric, to first order; shape (n,), its mean is the value.

    Raises:
        ConfigError: the metric has no such parts.
    """
    if isinstance(measured, RightWrong):
        right = measured.right(rows)[0].astype(np.float64)
        return 1 - right if metric == "error_rate" else right
    if isinstance(measured, Means):
        return np.asarray(measured.linear(rows)[0])
    parts = (
        measured.influence(rows) if isinstance(measured, (ByClass, Agreement, *RANKINGS)) else None
    )
    if parts is None:
        raise no_groups(metric)
    return parts


def by_group(parts: Floats, groups: Ints) -> tuple[Floats, Floats, int]:
    """The groups as if they were examples.

    Returns their values, whose mean is that of the parts (Cameron and Miller, Journal of Human
    Resources 50, 2015: the variance comes from the groups' sums); their sizes; and how many of them
    hold an example that is not as the commonest ones are.
    """
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups).astype(np.float64)
    mean = float(parts.mean())
    sums = np.bincount(groups, weights=parts - mean)
    values = mean + sums * len(sizes) / len(parts)
    found, counts = np.unique(parts, return_counts=True)
    return values, sizes, len(np.unique(groups[parts != found[counts.argmax()]]))


def _mean(measured: Means, rows: Ints | None, confidence: float) -> tuple[Limits, str]:
    values = np.asarray(measured.linear(rows)[0])
    n, mean = len(values), float(values.mean())
    if n < least_informative(confidence):
        return NOTHING, f"{n} examples, too few to tell"
    differ = n - int(np.unique(values, return_counts=True)[1].max())
    if isinstance(measured, Weighted):
        differ = min(differ, measured.effective(rows))
    worst = measured.worst(rows)
    if differ < least_informative(confidence):
        slack = worst * unseen(differ, n, confidence)
        return (mean - slack, mean + slack), f"{differ} of {n} examples differ from the others"
    low, high = mean_interval(values, differ, confidence)
    method = "Student's t, also after Hall's transformation"
    imagined = measured.imagined(rows) if n >= GUARDED else 0.0
    if imagined:
        ends = t_interval(values - mean, 0.0, differ, confidence, worst=imagined)
        low, high = min(low, mean + ends[0]), max(high, mean + ends[1])
        method += ", with one imagined disaster"
    return (low, high), method


def _few_of_a_class(measured: RocAuc | MeanArea | AveragePrecision, rows: Ints | None) -> str:
    few = measured.rarest(rows)
    if few >= LEAST_OF_A_CLASS:
        return ""
    return f"{few} examples of the rarer class, fewer than {LEAST_OF_A_CLASS}"


def _as_it_is(limits: Limits) -> Limits:
    return limits
