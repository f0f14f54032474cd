"""Metrics as computed: the value on some examples, on resamples of them, and who differs.

Each measure is of one model, or of several whose predictions answer the same evaluation set.
Positions of examples are in id order. Formulas: see ``ctflow.gate.metrics.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ctflow.config.metric_names import is_loss
from ctflow.gate.files.predictions import Floats, Ints, Predictions, codes
from ctflow.gate.intervals.significance import bootstrap_cells, bootstrap_rows, unseen

T = TypeVar("T", bound=np.generic)
Bools = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int32]


class Measure(Protocol):
    """A metric of one or several models on the same examples (positions are in id order)."""

    def values(self, rows: Ints | None = None) -> Floats:
        """The metric on those examples (all: None), shape (models,)."""
        ...

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """The metric on ``count`` resamples of those examples, shape (count, models)."""
        ...

    def differs(self, rows: Ints | None) -> Bools:
        """On which of those examples the first two models differ in what the metric sees."""
        ...

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """How far the gain may be off where the first two models differ on very few examples."""
        ...


class RightWrong:
    """Accuracy and its complement.

    Args:
        right: for each model, which examples it is right on; shape (n,).
        wrong: the metric is the share of the others.
    """

    def __init__(self, right: Sequence[Bools], wrong: bool = False) -> None:
        self._right = right
        self._wrong = wrong

    def right(self, rows: Ints | None) -> list[Ints]:
        """For each model, 1 where it is right and 0 where not."""
        return [pick(right, rows).astype(np.int64) for right in self._right]

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return self._turn(np.array([right.mean() for right in self.right(rows)]))

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        models = len(self._right)
        key = sum(right << j for j, right in enumerate(self.right(rows)))
        cells, counts = np.unique(key, return_counts=True)
        bits = np.stack([(cells >> j) & 1 for j in range(models)], axis=1)
        return bootstrap_cells(counts, lambda c: self._turn(c @ bits / counts.sum()), count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        first, second = self.right(rows)[:2]
        return np.asarray(first != second)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``."""
        differ = self.differs(rows)
        return unseen(int(differ.sum()), len(differ), confidence)

    def _turn(self, rates: Floats) -> Floats:
        return 1.0 - rates if self._wrong else rates


def right_answers(models: Sequence[Predictions]) -> list[Bools]:
    """For each model, where its prediction is the label; shape (n,)."""
    answers = [model.classes("prediction") for model in models]
    _, (labels, *found) = codes(models[0].classes("label"), *answers)
    return [answer == labels for answer in found]


class Means:
    """Metrics that are a function of the means of a few numbers an example."""

    def __init__(self, name: str, features: Sequence[Floats], worst: float | None = None) -> None:
        self._worst = worst
        #: For each model, shape (features, examples).
        self._features = features
        self._name = name

    @property
    def features(self) -> Sequence[Floats]:
        """For each model, shape (features, examples)."""
        return self._features

    @property
    def most(self) -> float | None:
        """By how much one example's value may change at most, where that is known."""
        return self._worst

    def informative(self, rows: Ints | None) -> int:
        """On how many of those examples the first two models differ."""
        return int(self.differs(rows).sum())

    @property
    def examples(self) -> int:
        """How many there are."""
        return self._features[0].shape[-1]

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.array([self._finish(pick(f, rows).mean(axis=-1)) for f in self._features])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        features = [pick(f, rows) for f in self._features]

        def statistic(drawn: Indexes) -> Floats:
            means = [np.stack([x[drawn].mean(axis=1) for x in f]) for f in features]
            return np.stack([self._finish(m) for m in means], axis=1)

        return bootstrap_rows(features[0].shape[-1], statistic, count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        first, second = (pick(f, rows) for f in self._features[:2])
        return np.asarray((first != second).any(axis=0))

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``."""
        differ = self.differs(rows)
        return self.worst(rows) * unseen(int(differ.sum()), len(differ), confidence)

    def linear(self, rows: Ints | None) -> Floats:
        """Each example's part in each model's metric, to first order; shape (models, n)."""
        parts = []
        for features in self._features:
            f = pick(features, rows)
            m = f.mean(axis=-1)
            value = float(self._finish(m))
            slope = np.zeros(len(m))
            slope[0] = 1.0
            if self._name == "rmse":
                slope[0] = 0.5 / value if value > 0 else 0.0
            elif self._name == "r2":
                spread = m[2] - m[1] ** 2
                slope[:] = (-1 / spread, -2 * m[0] * m[1] / spread**2, m[0] / spread**2)
            parts.append(value + slope @ (f - m[:, None]))
        return np.stack(parts)

    def worst(self, rows: Ints | None) -> float:
        """The most that one example may change the metric times n, as far as can be known.

        A Brier score has a worst value. Of a loss it is the largest one seen, as the least is 0;
        of any other number the distance of the largest from the smallest.
        """
        if self._worst is not None:
            return self._worst
        parts = self.linear(rows)
        least = 0.0 if is_loss(self._name) else float(parts.min())
        return float(parts.max()) - least

    def imagined(self, rows: Ints | None) -> float:
        """What one more example could lose that is as bad as can be; 0: nothing is imagined."""
        return self.worst(rows)

    def _finish(self, means: Floats) -> Floats:
        """Means of shape (features, ...) -> the metric, shape (...)."""
        if self._name == "rmse":
            return np.asarray(np.sqrt(means[0]))
        if self._name == "r2":
            spread = means[2] - means[1] ** 2
            some = spread > 1e-12 * np.maximum(means[2], 1e-300)
            ratio = np.divide(means[0], spread, out=np.full_like(spread, np.nan), where=some)
            return np.asarray(1.0 - ratio)
        return np.asarray(means[0])


class Ratios(Means):
    """The sum of one column by the sum of another, which is not negative.

    Its linear parts are those of the delta method (Cochran, Sampling Techniques (1977), chapter 6).
    """

    def __init__(self, features: Sequence[Floats], worst: float | None = None) -> None:
        super().__init__("ratio", features, worst)

    def linear(self, rows: Ints | None) -> Floats:
        """See ``Means``."""
        parts = []
        for features in self._features:
            upper, lower = pick(features, rows)
            mean = float(lower.mean())
            value = float(upper.mean()) / mean
            parts.append(value + (upper - value * lower) / mean)
        return np.stack(parts)

    def _finish(self, means: Floats) -> Floats:
        some = means[1] > 0
        nothing = np.full_like(means[0], np.nan)
        return np.asarray(np.divide(means[0], means[1], out=nothing, where=some))


def pick(array: npt.NDArray[T], rows: Ints | None) -> npt.NDArray[T]:
    """Those examples, the last axis; all of them where ``rows`` is None."""
    return array if rows is None else array[..., rows]
