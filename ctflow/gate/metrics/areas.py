"""The area under the ROC curve: its value, on resamples, and each example's part in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.intervals.significance import bootstrap_rows, unseen
from ctflow.gate.metrics.measures import Bools, Indexes, pick

_RANKS = 4_096


class RocAuc:
    """Area under the ROC curve of two classes; ties count half.

    Args:
        against: the class that counts as the other one; all others without it.
    """

    def __init__(
        self, models: Sequence[Predictions], positive: str, against: str | None = None
    ) -> None:
        labels = models[0].classes("label")
        self._positive = labels.equal(positive)
        self._negative = ~self._positive if against is None else labels.equal(against)
        #: The examples that were last asked for, and their keys.
        self._ranked: tuple[Ints | None, list[tuple[Ints, int]]] | None = None
        self._scores = [class_scores(model, positive) for model in models]

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.array([_area(key, size) for key, size in self._keys(rows)])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        return bootstrap_rows(self.count(rows), self.drawn(rows), count, rng)

    def drawn(self, rows: Ints | None) -> Callable[[Indexes], Floats]:
        """The metric of those among ``rows`` that are drawn, as ``bootstrap_rows`` wants it."""
        keys = [_coarse(key, size) for key, size in self._keys(rows)]
        shift = self.values(rows) - np.array([_area(key, size) for key, size in keys])

        def statistic(drawn: Indexes) -> Floats:
            areas = [[_area(key[row], size) for key, size in keys] for row in drawn]
            return np.asarray(np.array(areas) + shift)

        return statistic

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``: which examples stand otherwise among those of the other class."""
        positive, negative = pick(self._positive, rows), pick(self._negative, rows)
        found = np.zeros(len(positive), dtype=np.bool_)
        found[positive], found[negative] = (part != 0 for part in self.components(rows))
        return found

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarer class has can tell."""
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(self.rarest(rows), differ), confidence)

    def count(self, rows: Ints | None) -> int:
        """How many examples there are."""
        return len(pick(self._positive, rows))

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the rarer class has."""
        return int(min(pick(one, rows).sum() for one in (self._positive, self._negative)))

    def components(self, rows: Ints | None) -> tuple[Floats, Floats]:
        """Each positive's and each negative's part in the difference of the first two areas.

        Of one model alone: in its area.
        """
        positive, negative = pick(self._positive, rows), pick(self._negative, rows)
        parts = []
        for key, size in self._keys(rows)[:2]:
            zeros, ones = _counted(key, size)
            below = (np.cumsum(zeros) - zeros / 2) / zeros.sum()
            above = 1 - (np.cumsum(ones) - ones / 2) / ones.sum()
            ranks = key // 2
            parts.append((below[ranks[positive]], above[ranks[negative]]))
        if len(parts) == 1:
            return parts[0]
        (p1, n1), (p2, n2) = parts
        return p1 - p2, n1 - n2

    def influence(self, rows: Ints | None) -> Floats:
        """Each example's part in the first area less the second, or in the only one; shape (n,)."""
        positive, negative = pick(self._positive, rows), pick(self._negative, rows)
        ones, zeros = self.components(rows)
        gain = float(ones.mean())
        parts = np.full(len(positive), gain)
        parts[positive] += (ones - gain) * len(positive) / len(ones)
        parts[negative] += (zeros - gain) * len(positive) / len(zeros)
        return parts

    def _keys(self, rows: Ints | None) -> list[tuple[Ints, int]]:
        """For each model: twice the rank of each score, plus 1 for a positive; number of ranks.

        Examples of neither class have a key beyond all ranks.
        """
        if self._ranked is None or self._ranked[0] is not rows:
            positive, negative = pick(self._positive, rows), pick(self._negative, rows)
            counts = positive | negative
            keys: list[tuple[Ints, int]] = []
            for scores in self._scores:
                values, ranks = np.unique(pick(scores, rows)[counts], return_inverse=True)
                key = np.full(len(positive), 2 * len(values), np.int64)
                key[counts] = 2 * ranks + positive[counts]
                keys.append((key, len(values)))
            self._ranked = rows, keys
        return self._ranked[1]


class MeanArea:
    """A mean of areas under the ROC curve: of the classes, or of pairs of them."""

    def __init__(self, areas: Sequence[RocAuc]) -> None:
        self._areas = areas

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.asarray(np.mean([area.values(rows) for area in self._areas], axis=0))

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        parts = [area.drawn(rows) for area in self._areas]

        def statistic(drawn: Indexes) -> Floats:
            return np.asarray(np.mean([part(drawn) for part in parts], axis=0))

        return bootstrap_rows(self._areas[0].count(rows), statistic, count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        return np.asarray(np.any([area.differs(rows) for area in self._areas], axis=0))

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarest class has can tell."""
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(self.rarest(rows), differ), confidence)

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the rarest class has."""
        return min(area.rarest(rows) for area in self._areas)

    def influence(self, rows: Ints | None) -> Floats:
        """As ``RocAuc.influence``."""
        return np.asarray(np.mean([area.influence(rows) for area in self._areas], axis=0))


class RocAucOvr(MeanArea):
    """The mean over the classes of the area of each against all others, as ``roc_auc_ovr``."""

    def __init__(self, models: Sequence[Predictions]) -> None:
        super().__init__([RocAuc(models, name) for name in _many_classes(models)])


class RocAucOvo(MeanArea):
    """The mean over the ordered pairs of classes of the area of one against the other.

    Source: Hand and Till, Machine Learning 45 (2001); ranked by the first one's probability.
    """

    def __init__(self, models: Sequence[Predictions]) -> None:
        pairs = permutations(_many_classes(models), 2)
        super().__init__([RocAuc(models, *pair) for pair in pairs])


def _many_classes(models: Sequence[Predictions]) -> list[str]:
    classes = sorted(models[0].classes("label").distinct)
    if len(classes) < 3:
        raise ConfigError(f"there are {len(classes)} classes", next="use roc_auc")
    for model in models:
        for name in classes:
            if name not in model.probabilities:
                raise ConfigError(f"there is no column p_{shown(name)}")
    return classes


def class_scores(model: Predictions, positive: str) -> Floats:
    """The probability of the positive class, or the score; shape (n,).

    Raises:
        ConfigError: there is neither.
    """
    columns = model.probabilities
    if len(columns) == 1 and set(columns) <= set(model.classes("label").distinct) - {positive}:
        # Of two classes, the one column that is there is of the other one.
        return 1 - model.numbers(next(iter(columns.values())))
    column = columns.get(positive, "score")
    if column not in model.columns:
        raise ConfigError(f"there is no column p_{shown(positive)} and no score")
    return model.numbers(column)


def _coarse(key: Ints, size: int) -> tuple[Ints, int]:
    """Ranks in at most ``_RANKS`` steps: resampling then stays within the processor's cache."""
    if size <= _RANKS:
        return key, size
    return 2 * (key // 2 * _RANKS // size) + key % 2, _RANKS


def _counted(key: Ints, size: int) -> tuple[Floats, Floats]:
    """How many negatives and how many positives have each rank, shape (size,) each."""
    counts = np.bincount(key, minlength=2 * size)[: 2 * size].astype(np.float64)
    return counts[::2], counts[1::2]


def _area(key: Ints, size: int) -> float:
    """The share of (positive, negative) pairs in the right order; NaN without such a pair."""
    zeros, ones = _counted(key, size)
    pairs = zeros.sum() * ones.sum()
    below = np.cumsum(zeros) - zeros / 2
    return float(ones @ below / pairs) if pairs else math.nan
