"""Means in which examples count unequally: by a column of weights.

A weighted mean is the ratio of two sums, and has a ratio's parts (the delta method: Cochran,
Sampling Techniques (1977), chapter 6). Uneven weights tell less than as many equal ones: as much as
(sum w)^2 / sum w^2 of them (Kish, Survey Sampling (1965), section 11.7).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctflow.config.metric_names import is_loss
from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.metrics.measures import Means, Measure, Ratios, RightWrong, pick


def weights_of(models: Sequence[Predictions], column: str) -> Floats:
    """The weights of the examples, shape (n,), the same for all models.

    Raises:
        ConfigError: there is no such column, a weight is below 0, all are 0, or two models' differ.
    """
    found = []
    for model in models:
        if column not in model.columns:
            raise ConfigError(f"there is no column {shown(column)!r} to weight by")
        try:
            found.append(model.numbers(column))
        except UsageError as error:
            raise ConfigError(str(error)) from None
    weights = found[0]
    if (weights < 0).any():
        raise ConfigError(f"a weight in {shown(column)} is below 0")
    if not weights.any():
        raise ConfigError(f"all weights in {shown(column)} are 0")
    if any(not np.allclose(weights, other, rtol=1e-9, atol=0) for other in found[1:]):
        raise ConfigError(f"the examples have other weights in {shown(column)}")
    return weights


def weighted(measure: Measure, name: str, weights: Floats) -> Weighted:
    """The measure, with each example counted by its weight.

    Raises:
        ConfigError: it is no mean over examples.
    """
    if isinstance(measure, RightWrong):
        right = [one.astype(np.float64) for one in measure.right(None)]
        values = [1 - one for one in right] if name == "error_rate" else right
        return Weighted("", values, weights, 1.0, is_right_wrong=True)
    if type(measure) is Means and name != "r2":
        values = [features[0] for features in measure.features]
        return Weighted(name, values, weights, measure.most)
    raise ConfigError(f"{shown(name)} does not go with 'weight'")


class Weighted(Ratios):
    """A weighted mean, or its root.

    Args:
        values: for each model, shape (n,).
        most: by how much a value may change at most, where that is known.
    """

    def __init__(
        self,
        name: str,
        values: Sequence[Floats],
        weights: Floats,
        most: float | None,
        *,
        is_right_wrong: bool = False,
    ) -> None:
        super().__init__([np.stack([weights * one, weights]) for one in values], most)
        self._name = name
        self._weights = weights
        self._is_right_wrong = is_right_wrong

    def linear(self, rows: Ints | None) -> Floats:
        """See ``Means``."""
        parts = super().linear(rows)
        if self._name != "rmse":
            return parts
        squares = parts.mean(axis=1, keepdims=True)
        roots = np.sqrt(squares)
        slopes = np.divide(0.5, roots, out=np.zeros_like(roots), where=roots > 0)
        return np.asarray(roots + slopes * (parts - squares))

    def worst(self, rows: Ints | None) -> float:
        """See ``Means``: of the example with the largest weight."""
        weights = pick(self._weights, rows)
        mean = float(weights.mean())
        if self._worst is not None:
            return self._worst * float(weights.max()) / mean
        if is_loss(self._name) and self._name != "rmse":
            return max(float(pick(f, rows)[0].max()) for f in self._features) / mean
        parts = self.linear(rows)
        return float(parts.max() - parts.min())

    def imagined(self, rows: Ints | None) -> float:
        """See ``Means``: of right or wrong none, as without weights; else one of middling weight.

        One of the largest weight would be a disaster and a rare weight at once, and takes the power
        of some thousand examples.
        """
        if self._is_right_wrong:
            return 0.0
        weights = pick(self._weights, rows)
        return self.worst(rows) * float(weights.mean()) / float(weights.max())

    def effective(self, rows: Ints | None) -> int:
        """How many equal examples tell as much."""
        return effective(pick(self._weights, rows))

    def informative(self, rows: Ints | None) -> int:
        """How many equal examples those tell as much as, on which the first two models differ."""
        return effective(pick(self._weights, rows)[self.differs(rows)])

    def _finish(self, means: Floats) -> Floats:
        found = super()._finish(means)
        return np.asarray(np.sqrt(found) if self._name == "rmse" else found)


def effective(weights: Floats) -> int:
    """Kish's effective number of examples, rounded down."""
    squares = float((weights**2).sum())
    return int(float(weights.sum()) ** 2 / squares + 1e-9) if squares > 0 else 0
