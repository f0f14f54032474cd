"""Average precision: the area under the curve of precision and recall, without interpolation.

The formula is scikit-learn's: the sum over the thresholds of (recall - recall before) * precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ctflow.gate.files.predictions import Floats, Ints, Predictions
from ctflow.gate.intervals.significance import CHUNK, unseen
from ctflow.gate.metrics.areas import class_scores
from ctflow.gate.metrics.measures import Bools, pick


class AveragePrecision:
    """Average precision of the positive one of two classes."""

    def __init__(self, models: Sequence[Predictions], positive: str) -> None:
        self._positive = models[0].classes("label").equal(positive)
        self._scores = [class_scores(model, positive) for model in models]

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        ones = np.ones((1, len(pick(self._positive, rows))))
        return np.array([one.values(ones)[0] for one in self._sorted(rows)])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        models = self._sorted(rows)
        n = len(pick(self._positive, rows))
        step = max(1, CHUNK // n)
        found = []
        for start in range(0, count, step):
            drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(step, count - start))
            found.append(np.stack([one.values(drawn) for one in models], axis=1))
        return np.concatenate(found)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``: which examples have another part in it."""
        first, second = (one.influence() for one in self._sorted(rows)[:2])
        return np.asarray(np.abs(first - second) > 1e-12)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarer class has can tell."""
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(self.rarest(rows), differ), confidence)

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the rarer class has."""
        positive = pick(self._positive, rows)
        return int(min(positive.sum(), len(positive) - positive.sum()))

    def influence(self, rows: Ints | None) -> Floats:
        """As ``RocAuc.influence``."""
        models = self._sorted(rows)
        parts = [one.influence() for one in models[:2]]
        value = self.values(rows)
        if len(parts) == 1:
            return np.asarray(parts[0] + value[0])
        return np.asarray(parts[0] - parts[1] + value[0] - value[1])

    def _sorted(self, rows: Ints | None) -> list[_Sorted]:
        positive = pick(self._positive, rows)
        return [_Sorted(pick(scores, rows), positive) for scores in self._scores]


class _Sorted:
    """One model's examples from the highest score to the lowest."""

    def __init__(self, scores: Floats, positive: Bools) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._positive = positive[self._order]
        #: The last example of each threshold, and each example's threshold.
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._at = np.searchsorted(self._ends, np.arange(len(ordered)))

    def values(self, counts: Floats | Ints) -> Floats:
        """The average precision; counts: shape (resamples, n), how often each example is there."""
        counts = counts[:, self._order]
        above = np.cumsum(counts, axis=1)[:, self._ends].astype(np.float64)
        hits = np.cumsum(counts * self._positive, axis=1)[:, self._ends].astype(np.float64)
        precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
        found = np.diff(hits, axis=1, prepend=0.0)
        total = hits[:, -1]
        sums = (found * precision).sum(axis=1)
        nothing = np.full(len(total), np.nan)
        return np.asarray(np.divide(sums, total, out=nothing, where=total > 0))

    def influence(self) -> Floats:
        """The derivative of the value by each example's weight, times n; shape (n,), mean 0.

        An example counts at its own threshold, and in the precision at all lower ones.
        """
        n = len(self._order)
        above = (self._ends + 1).astype(np.float64)
        hits = np.cumsum(self._positive)[self._ends].astype(np.float64)
        total = hits[-1]
        if total == 0:
            return np.full(n, math.nan)
        precision, found = hits / above, np.diff(hits, prepend=0.0)
        value = float((found * precision).sum() / total)
        lower = np.cumsum((found / above)[::-1])[::-1]
        wrong = np.cumsum((found * precision / above)[::-1])[::-1]
        parts = -wrong[self._at]
        parts += self._positive * (precision[self._at] + lower[self._at] - value)
        by_id = np.empty(n)
        by_id[self._order] = parts * n / total
        return by_id
