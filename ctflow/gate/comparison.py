"""Challenger against champion: the gain in one metric on the same examples, with its interval."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.measures import Measure, RightWrong
from ctflow.gate.predictions import Ints, Predictions
from ctflow.gate.scores import RIGHT_WRONG, is_lower_better, measure
from ctflow.gate.significance import (
    least_informative,
    mcnemar,
    percentile_interval,
    resamples,
    right_wrong_interval,
    rule_of_three,
)
from ctflow.model import Comparison

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
        lower_better: bool | None = None,
        seed: int = 0,
    ) -> None:
        if test == "mcnemar" and metric not in RIGHT_WRONG:
            raise ConfigError(
                f"McNemar's test is for right or wrong answers, not for {metric}",
                next=f"use 'test: bootstrap', or one of {', '.join(RIGHT_WRONG)}",
            )
        self._metric = metric
        self._exact = metric in RIGHT_WRONG and test != "bootstrap"
        self._measure: Measure = measure(metric, [challenger, champion])
        lower = is_lower_better(metric) if lower_better is None else lower_better
        self._sign = -1.0 if lower else 1.0
        words = f"{seed} {challenger.evaluation_set} {metric}"
        self._seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")

    def compare(self, confidence: float, rows: Ints | None = None, size: int = 0) -> Comparison:
        """The gain on those examples (all: None); positive when the challenger is better.

        ``low`` and ``high`` are the two-sided interval at ``confidence``; infinite where nothing
        can be said. ``size`` is the number of all examples.
        """
        examples = size if rows is None else len(rows)
        challenger, champion = self._measure.values(rows).tolist()
        p_value: float | None = None
        if self._exact and isinstance(self._measure, RightWrong):
            ours, theirs = self._measure.right(rows)
            better, worse = int((ours > theirs).sum()), int((ours < theirs).sum())
            p_value = mcnemar(better, worse)
            low, high = right_wrong_interval(better, worse, examples, confidence)
            gain = (better - worse) / examples
            method = "exact McNemar test; score and exact interval"
        else:
            gain = self._sign * (challenger - champion)
            low, high, method = self._bootstrap(rows, examples, confidence)
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
        )

    def _bootstrap(
        self, rows: Ints | None, examples: int, confidence: float
    ) -> tuple[float, float, str]:
        informative = self._measure.informative(rows)
        if informative < least_informative(confidence):
            return self._too_few(rows, examples, confidence, informative)
        count = resamples(examples, confidence)
        drawn = self._measure.resample(rows, count, np.random.default_rng(self._seed))
        gains = self._sign * (drawn[:, 0] - drawn[:, 1])
        low, high = percentile_interval(gains, informative, confidence)
        return low, high, f"paired bootstrap, {count} resamples"

    def _too_few(
        self, rows: Ints | None, examples: int, confidence: float, informative: int
    ) -> tuple[float, float, str]:
        """The interval when the two differ on too few examples for any resampling to tell.

        It always holds 0: a gain is not shown. For answers that are right or wrong it is still
        bounded, so that two models that hardly differ may be within a margin.
        """
        method = f"the two differ on {informative} of {examples} examples, too few to resample"
        if not self._measure.by_class:
            return -math.inf, math.inf, method
        challenger, champion = self._measure.values(rows).tolist()
        gain = self._sign * (challenger - champion)
        slack = rule_of_three(examples, confidence)
        return min(gain - slack, 0.0), max(gain + slack, 0.0), method
