"""The area under the ROC curve: its value, on resamples, and each example's part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.measures import Bools, Indexes, pick
from ctflow.gate.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.significance import bootstrap_rows, unseen

_RANKS = 4_096


class RocAuc:
    """Area under the ROC curve of two classes; ties count half."""

    def __init__(self, models: Sequence[Predictions], positive: str) -> None:
        labels = models[0].classes("label")
        self._positive = labels.equal(positive)
        #: The examples that were last asked for, and their keys.
        self._ranked: tuple[Ints | None, list[tuple[Ints, int]]] | None = None
        self._scores = []
        for model in models:
            columns = model.probabilities
            if len(columns) == 1 and set(columns) <= set(labels.distinct) - {positive}:
                # Of two classes, the one column that is there is of the other one.
                self._scores.append(1 - model.numbers(next(iter(columns.values()))))
                continue
            column = columns.get(positive, "score")
            if column not in model.columns:
                raise ConfigError(f"there is no column p_{shown(positive)} and no score")
            self._scores.append(model.numbers(column))

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.array([_area(key, size) for key, size in self._keys(rows)])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        keys = [_coarse(key, size) for key, size in self._keys(rows)]
        shift = self.values(rows) - np.array([_area(key, size) for key, size in keys])

        def statistic(drawn: Indexes) -> Floats:
            areas = [[_area(key[row], size) for key, size in keys] for row in drawn]
            return np.asarray(np.array(areas) + shift)

        return bootstrap_rows(len(keys[0][0]), statistic, count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``: which examples stand otherwise among those of the other class."""
        positive = pick(self._positive, rows)
        found = np.zeros(len(positive), dtype=np.bool_)
        found[positive], found[~positive] = (part != 0 for part in self.components(rows))
        return found

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarer class has can tell."""
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(self.rarest(rows), differ), confidence)

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the rarer class has."""
        positive = pick(self._positive, rows)
        return int(min(positive.sum(), len(positive) - positive.sum()))

    def components(self, rows: Ints | None) -> tuple[Floats, Floats]:
        """Each positive's and each negative's part in the difference of the first two areas.

        Of one model alone: in its area.
        """
        positive = pick(self._positive, rows)
        parts = []
        for key, size in self._keys(rows)[:2]:
            counts = np.bincount(key, minlength=2 * size).reshape(size, 2).astype(np.float64)
            zeros, ones = counts[:, 0], counts[:, 1]
            below = (np.cumsum(zeros) - zeros / 2) / zeros.sum()
            above = 1 - (np.cumsum(ones) - ones / 2) / ones.sum()
            ranks = key // 2
            parts.append((below[ranks[positive]], above[ranks[~positive]]))
        if len(parts) == 1:
            return parts[0]
        (p1, n1), (p2, n2) = parts
        return p1 - p2, n1 - n2

    def influence(self, rows: Ints | None) -> Floats:
        """Each example's part in the first area less the second, or in the only one; shape (n,)."""
        positive = pick(self._positive, rows)
        ones, zeros = self.components(rows)
        gain = float(ones.mean())
        parts = np.full(len(positive), gain)
        parts[positive] += (ones - gain) * len(positive) / len(ones)
        parts[~positive] += (zeros - gain) * len(positive) / len(zeros)
        return parts

    def _keys(self, rows: Ints | None) -> list[tuple[Ints, int]]:
        """For each model: twice the rank of each score, plus 1 for a positive; number of ranks."""
        if self._ranked is None or self._ranked[0] is not rows:
            positive = pick(self._positive, rows)
            keys = []
            for scores in self._scores:
                values, ranks = np.unique(pick(scores, rows), return_inverse=True)
                keys.append((2 * ranks.astype(np.int64) + positive, len(values)))
            self._ranked = rows, keys
        return self._ranked[1]


def _coarse(key: Ints, size: int) -> tuple[Ints, int]:
    """Ranks in at most ``_RANKS`` steps: resampling then stays within the processor's cache."""
    if size <= _RANKS:
        return key, size
    return 2 * (key // 2 * _RANKS // size) + key % 2, _RANKS


def _area(key: Ints, size: int) -> float:
    """The share of (positive, negative) pairs in the right order; NaN without such a pair."""
    counts = np.bincount(key, minlength=2 * size).reshape(size, 2).astype(np.float64)
    zeros, ones = counts[:, 0], counts[:, 1]
    pairs = zeros.sum() * ones.sum()
    below = np.cumsum(zeros) - zeros / 2
    return float(ones @ below / pairs) if pairs else math.nan
