"""Challenger against champion: the gain in one metric on the same examples, with its interval."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ctflow.config.metric_names import RIGHT_WRONG, is_lower_better, is_of_queries, is_right_wrong
from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.function_intervals import Samples, gain_interval
from ctflow.gate.groups import group_codes, grouped_interval, parts_of_gain
from ctflow.gate.intervals.large import IDLE, needs_no_resampling
from ctflow.gate.intervals.likelihood import likelihood_interval
from ctflow.gate.intervals.midp import right_wrong
from ctflow.gate.intervals.significance import (
    delong_interval,
    least_informative,
    mover,
    percentile_interval,
    quantile_error,
    resamples,
    t_interval,
)
from ctflow.gate.metrics.agreement import Agreement
from ctflow.gate.metrics.areas import MeanArea, RocAuc, RocAucOvo
from ctflow.gate.metrics.average_precision import AveragePrecision
from ctflow.gate.metrics.by_class import ByClass
from ctflow.gate.metrics.functions import Function
from ctflow.gate.metrics.measures import Means, Measure, RightWrong
from ctflow.gate.metrics.ndcg import Ndcg
from ctflow.gate.metrics.quantiles import Quantiles
from ctflow.gate.metrics.scores import measure
from ctflow.model import Comparison

if TYPE_CHECKING:
    from ctflow.config.gate_metric import MetricOf

#: Below so many of the rarer class, no interval of an area under the curve keeps its level.
LEAST_OF_A_CLASS = 30
#: The metrics that this is for.
RANKINGS = (RocAuc, MeanArea, AveragePrecision)
#: Where a lower end is near to its limit, resamples are doubled up to this many,
MAX_RESAMPLES = 64_000
#: and while they draw no more examples than this in all: some seconds.
MAX_DRAWS = 400_000_000
#: From so many examples on, means are guarded against a disaster that the set does not hold; on
#: fewer, that would cost too much power.
GUARDED = 1_000

Test = Literal["auto", "bootstrap", "mcnemar"]


class Paired:
    """One metric of two models whose predictions answer the same evaluation set.

    Raises:
        ConfigError: the predictions do not give the metric, or the test does not fit it.
    """

    def __init__(
        self,
        metric: str,
        challenger: Predictions,
        champion: Predictions,
        *,
        test: Test = "auto",
        exact: bool = False,
        lower_better: bool | None = None,
        positive: str | None = None,
        of: MetricOf | None = None,
        weight: str | None = None,
        group: str | None = None,
        block: str | None = None,
        seed: int = 0,
    ) -> None:
        if test == "mcnemar" and not is_right_wrong(metric):
            raise ConfigError(
                f"McNemar's test is for right or wrong answers, not for {metric}",
                next=f"use 'test: bootstrap', or one of {', '.join(RIGHT_WRONG)}",
            )
        self._metric = metric
        self._groups: Ints | None = None
        if group is not None and not is_of_queries(metric):
            self._groups = group_codes(challenger, group, block)
        self._literal = exact
        self._counts = is_right_wrong(metric) and test != "bootstrap" and not (group or weight)
        self._measure: Measure = measure(
            metric, [challenger, champion], positive, of, weight, group
        )
        lower = is_lower_better(metric) if lower_better is None else lower_better
        self._sign = -1.0 if lower else 1.0
        words = f"{seed} {challenger.evaluation_set} {metric}"
        self._seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")
        #: What a function of the project said of some examples: it is dear to ask again.
        self._samples: dict[bytes | None, Samples] = {}

    def compare(
        self, confidence: float, rows: Ints | None = None, size: int = 0, limit: float = 0.0
    ) -> Comparison:
        """The gain on those examples (all: None); positive when the challenger is better.

        ``low`` and ``high`` are the two-sided interval at ``confidence``; infinite where nothing
        can be said. ``size`` is the number of all examples, ``limit`` what ``low`` is to reach.
        """
        examples = size if rows is None else len(rows)
        if isinstance(self._measure, Ndcg):
            queries = self._measure.of(rows)
            found = self._compare(confidence, queries, self._measure.count(queries), limit)
            return replace(found, examples=examples, groups=found.examples)
        return self._compare(confidence, rows, examples, limit)

    def _compare(
        self, confidence: float, rows: Ints | None, examples: int, limit: float
    ) -> Comparison:
        challenger, champion = self._measure.values(rows).tolist()
        p_value: float | None = None
        if self._counts and isinstance(self._measure, RightWrong):
            ours, theirs = self._measure.right(rows)
            better, worse = int((ours > theirs).sum()), int((ours < theirs).sum())
            p_value, low, high, method = right_wrong(
                better, worse, examples, confidence, exact=self._literal
            )
            gain = (better - worse) / examples
        else:
            gain = self._sign * (challenger - champion)
            if isinstance(self._measure, Function) and math.isfinite(gain):
                samples = self._samples_of(self._measure, rows)
                low, high, method = gain_interval(samples, self._sign, confidence, limit)
            else:
                low, high, method = self._interval(rows, examples, gain, confidence, limit)
        return Comparison(
            metric=self._metric,
            challenger=challenger,
            champion=champion,
            gain=gain + 0.0,
            low=low,
            high=high,
            confidence=confidence,
            method=method,
            examples=examples,
            p_value=p_value,
            groups=self._count_groups(rows),
            differ=self._count_differing(rows) if math.isfinite(gain) else None,
        )

    def _samples_of(self, function: Function, rows: Ints | None) -> Samples:
        key = None if rows is None else rows.tobytes()
        if key not in self._samples:
            self._samples[key] = Samples(function, rows, self._groups, self._seed)
        return self._samples[key]

    def _count_differing(self, rows: Ints | None) -> int | None:
        """On how many examples the two differ in what the metric sees; None: it is not known."""
        if isinstance(self._measure, Function):
            return None
        return int(self._measure.differs(rows).sum())

    def flaw(self, rows: Ints | None, over: str = "champion") -> str:
        """Why the two cannot be compared on those examples (all: None), or ""."""
        stray = self._measure.unlabelled(rows) if isinstance(self._measure, ByClass) else None
        if stray is None:
            return ""
        name, model = stray
        other = "balanced_accuracy" if self._metric == "recall_macro" else "the _weighted one"
        who = over if model else "challenger"
        return (
            f"class {shown(name)!r} is answered by the {who} and has no examples, so it counts as "
            f"0: add examples of it, or use {other}"
        )

    def _count_groups(self, rows: Ints | None) -> int | None:
        if self._groups is None:
            return None
        return len(np.unique(self._groups if rows is None else self._groups[rows]))

    def _interval(
        self, rows: Ints | None, examples: int, gain: float, confidence: float, limit: float
    ) -> tuple[float, float, str]:
        measured = self._measure
        if not math.isfinite(gain):
            return -math.inf, math.inf, "undefined"
        if isinstance(measured, RANKINGS) and (few := measured.rarest(rows)) < LEAST_OF_A_CLASS:
            why = f"{few} examples of the rarer class, fewer than {LEAST_OF_A_CLASS}"
            return -math.inf, math.inf, why
        if isinstance(measured, Quantiles) and (why := measured.flaw(rows)):
            return -math.inf, math.inf, why
        if self._groups is not None:
            parts = parts_of_gain(measured, rows, self._sign, self._metric)
            groups = self._groups if rows is None else self._groups[rows]
            differs = measured.differs(rows)
            return grouped_interval(measured, parts, differs, groups, confidence, self._seed)
        if isinstance(measured, ByClass) and (classes := measured.pairs(rows)):
            return *mover(classes, confidence), "Tango's score interval by class, joined by MOVER"
        differ = int(measured.differs(rows).sum())
        informative = measured.informative(rows) if isinstance(measured, Means) else differ
        if isinstance(measured, RANKINGS):
            informative = min(informative, measured.rarest(rows))
        if informative < least_informative(confidence):
            # It holds 0: a gain is not shown. It is still bounded, by how many examples there are
            # in which a difference could have shown, so that two models that hardly differ may be
            # within a margin.
            slack = measured.slack(rows, confidence)
            method = f"the two differ on {differ} of {examples} examples, too few to resample"
            return min(gain - slack, 0.0), max(gain + slack, 0.0), method
        ends, named, samples = self._by_formula(rows, examples, gain, informative, confidence)
        if ends is not None and isinstance(measured, RocAucOvo):
            return *ends, named  # its pairs would take minutes to resample, and not move an end
        if ends is not None and needs_no_resampling(samples, informative, confidence):
            return *ends, f"{named}{IDLE}"
        gains, error = self._draw(rows, examples, informative, confidence, limit)
        low, high = percentile_interval(gains, informative, confidence)
        method = f"paired bootstrap, {len(gains)} resamples (Monte Carlo error {error:.1g})"
        if ends is None:
            return low, high, method
        # The hull: of few or skewed differences, now the one and now the other is too short.
        return min(low, ends[0]), max(high, ends[1]), f"{method} and {named}"

    def _by_formula(
        self, rows: Ints | None, examples: int, gain: float, informative: int, confidence: float
    ) -> tuple[tuple[float, float] | None, str, list[Floats]]:
        """An interval without resampling where there is one, its name, and what it is made of."""
        measured = self._measure
        if isinstance(measured, Means):
            ours, theirs = measured.linear(rows)
            parts = self._sign * (ours - theirs)
            worst = measured.imagined(rows) if examples >= GUARDED else 0.0
            ends = t_interval(parts, gain, informative, confidence)
            if not worst:
                return ends, "Student's t", [parts]
            # Half of one: a whole one takes most of the power, and lets no fewer disasters pass.
            low, high = likelihood_interval(parts, informative, confidence, worst / 2)
            named = "Student's t and empirical likelihood, with half an imagined disaster"
            return (min(ends[0], low), max(ends[1], high)), named, [parts]
        if isinstance(measured, RocAuc):
            ones, zeros = (self._sign * part for part in measured.components(rows))
            ends = delong_interval(ones, zeros, gain, confidence)
            return ends, "DeLong's interval", [ones, zeros]
        if isinstance(measured, (Agreement, AveragePrecision, MeanArea)):
            parts = self._sign * measured.influence(rows)
            return t_interval(parts, gain, informative, confidence), "Student's t", [parts]
        return None, "", []

    def _draw(
        self, rows: Ints | None, examples: int, informative: int, confidence: float, limit: float
    ) -> tuple[Floats, float]:
        """Resampled gains, and the Monte Carlo error of the interval's lower end.

        They are doubled while the end is too near to ``limit`` for another seed to agree.
        """
        rng = np.random.default_rng(self._seed)
        gains: Floats = np.zeros(0)
        count = resamples(examples, confidence)
        while True:
            drawn = self._measure.resample(rows, count, rng)
            gains = np.concatenate([gains, self._sign * (drawn[:, 0] - drawn[:, 1])])
            low, _ = percentile_interval(gains, informative, confidence)
            error = quantile_error(gains, informative, confidence)
            count = len(gains)
            if abs(low - limit) > 3 * error or 2 * count > MAX_RESAMPLES:
                return gains, error
            if 2 * count * examples > MAX_DRAWS:
                return gains, error
