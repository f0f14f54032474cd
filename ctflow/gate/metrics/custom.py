"""Metrics of a project's own: what a rule's ``of`` says, from columns of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, canonical, shown
from ctflow.gate.metrics.functions import Function
from ctflow.gate.metrics.measures import Means, Measure, Ratios
from ctflow.gate.metrics.quantiles import Quantiles

if TYPE_CHECKING:
    from ctflow.config.gate_metric import MetricOf


def custom_measure(of: MetricOf, models: Sequence[Predictions]) -> Measure:
    """Prepare the metric for models whose predictions answer the same evaluation set.

    Raises:
        ConfigError: these predictions do not hold what it needs.
    """
    if of.mean is not None:
        return Means("", [_column(m, of.mean)[None, :] for m in models])
    if of.sum is not None:
        return Sums([_column(m, of.sum)[None, :] for m in models])
    if of.ratio is not None:
        return Ratios([_both(m, *of.ratio) for m in models])
    if of.quantile is not None and of.at is not None:
        return Quantiles([_column(m, of.quantile) for m in models], of.at)
    if of.function is not None:
        return Function(of, models)
    table = _Costs(of, models[0])
    return Means("", [table.of(m)[None, :] for m in models], table.worst)


class Sums(Means):
    """The sum of a column: a mean, times the number of the examples in question."""

    def __init__(self, features: Sequence[Floats]) -> None:
        super().__init__("", features)

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return self._count(rows) * super().values(rows)

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        return self._count(rows) * super().resample(rows, count, rng)

    def linear(self, rows: Ints | None) -> Floats:
        """See ``Means``."""
        return self._count(rows) * super().linear(rows)

    def _count(self, rows: Ints | None) -> int:
        return self.examples if rows is None else len(rows)


class _Costs:
    """What answers cost, by label and answer.

    ``worst`` is the most by which two answers to one example can differ.
    """

    def __init__(self, of: MetricOf, model: Predictions) -> None:
        named = [
            (canonical(label), canonical(answer), cost)
            for label, row in (of.cost or {}).items()
            for answer, cost in row.items()
        ]
        self._named = {(label, answer): cost for label, answer, cost in named}
        if len(self._named) != len(named):
            raise ConfigError("'cost' names the same label and prediction twice")
        self._otherwise = of.otherwise
        labels = model.classes("label").distinct
        if not {label for label, _ in self._named} & set(labels):
            raise ConfigError(
                "no label under 'cost' occurs",
                next=f"the labels are {', '.join(shown(one) for one in sorted(labels)[:5])}",
            )
        self.worst = max(self._range(label) for label in labels)

    def of(self, model: Predictions) -> Floats:
        """The cost of each answer, shape (n,).

        Raises:
            ConfigError: of one there is none.
        """
        labels, answers = model.classes("label"), model.classes("prediction")
        width = len(answers.distinct)
        pairs, where = np.unique(
            labels.codes.astype(np.int64) * width + answers.codes, return_inverse=True
        )
        costs = [
            self._cost(labels.distinct[pair // width], answers.distinct[pair % width])
            for pair in pairs.tolist()
        ]
        return np.array(costs)[where]

    def _cost(self, label: str, answer: str) -> float:
        if (found := self._named.get((label, answer))) is not None:
            return found
        if label == answer:
            return 0.0
        if self._otherwise is None:
            raise ConfigError(
                f"no cost is given for the label {shown(label)!r} answered {shown(answer)!r}",
                next="add it under 'cost', or say 'otherwise:'",
            )
        return self._otherwise

    def _range(self, label: str) -> float:
        costs = [cost for (of, _), cost in self._named.items() if of == label]
        costs += [] if self._otherwise is None else [self._otherwise]
        costs.append(self._named.get((label, label), 0.0))
        return max(costs) - min(costs)


def _column(model: Predictions, name: str) -> Floats:
    if name not in model.columns:
        raise ConfigError(
            f"there is no column {shown(name)!r}",
            next=f"use one of {', '.join(shown(one) for one in list(model.columns)[:20])}",
        )
    try:
        return model.numbers(name)
    except UsageError as error:
        raise ConfigError(str(error)) from None


def _both(model: Predictions, upper: str, lower: str) -> Floats:
    """Both columns of a ratio, shape (2, n)."""
    found = np.stack([_column(model, upper), _column(model, lower)])
    if (found[1] < 0).any():
        raise ConfigError(
            f"{shown(lower)} is below 0 in places",
            next="the second column of a ratio is a size, such as a revenue or a count",
        )
    return found
