"""How far labels and answers agree beyond chance: Matthews' correlation and Cohen's kappa.

Formulas are scikit-learn's. With s examples, c of them right, and t and p of each class as label
and as answer: ``mcc`` is (cs - sum tp) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) (Gorodkin,
Computational Biology and Chemistry 28, 2004), and 0 where only one class is answered; ``kappa`` is
(cs - sum tp) / (s^2 - sum tp) (Cohen, Educational and Psychological Measurement 20, 1960).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctflow.gate.files.predictions import Floats, Ints, Predictions
from ctflow.gate.intervals.significance import CHUNK, unseen
from ctflow.gate.metrics.confusion import Confusion
from ctflow.gate.metrics.measures import Bools, pick

#: The step of the differences that stand for derivatives, as a share of the examples.
_STEP = 1e-6


class Agreement(Confusion):
    """``mcc`` or ``kappa``."""

    def __init__(self, name: str, models: Sequence[Predictions]) -> None:
        super().__init__(models)
        self._is_mcc = name == "mcc"

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        first, second = (pick(column, rows) for column in self._columns[1:3])
        return np.asarray(first != second)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarest class has can tell; from -1 to 1."""
        rarest = int(np.unique(pick(self._columns[0], rows), return_counts=True)[1].min())
        differ = int(self.differs(rows).sum())
        return 2 * unseen(differ, max(rarest, differ), confidence)

    def influence(self, rows: Ints | None) -> Floats:
        """Each example's part in the first model's value less the second's, shape (n,).

        Its mean is that difference; of one model alone, its value.
        """
        cells, counts = self._cells(rows)
        total = int(counts.sum())
        base = self._difference(cells, counts[None, :].astype(np.float64))
        step = max(1, CHUNK // len(counts))
        parts = []
        for start in range(0, len(counts), step):
            some = np.arange(start, min(start + step, len(counts)))
            more = np.repeat(counts[None, :].astype(np.float64), len(some), axis=0)
            more[np.arange(len(some)), some] += _STEP * total
            parts.append((self._difference(cells, more) - base) / _STEP)
        by_cell = np.concatenate(parts)
        by_cell -= by_cell @ counts / total
        size = len(self._names)
        places = size ** np.arange(len(cells))[::-1]
        key = np.stack(cells, axis=1) @ places
        of = np.stack([pick(column, rows) for column in self._columns], axis=1) @ places
        return np.asarray(by_cell[np.searchsorted(key, of)] + base)

    def _difference(self, cells: list[Ints], counts: Floats) -> Floats:
        values = self._statistic(cells, counts)
        return values[:, 0] - values[:, 1] if values.shape[1] > 1 else values[:, 0]

    def _statistic(self, cells: list[Ints], counts: Floats | Ints) -> Floats:
        label, *answers = cells
        actual = self._sums(counts, label)
        total = actual.sum(axis=1)
        values = []
        for answer in answers:
            predicted = self._sums(counts, answer)
            right = counts[:, answer == label].sum(axis=1).astype(np.float64)
            chance = (predicted * actual).sum(axis=1)
            above = right * total - chance
            if self._is_mcc:
                spread = (total**2 - (predicted**2).sum(axis=1)) * (
                    total**2 - (actual**2).sum(axis=1)
                )
                whole, undefined = np.sqrt(np.maximum(spread, 0.0)), 0.0
            else:
                whole, undefined = total**2 - chance, np.nan
            out = np.full(len(above), undefined)
            values.append(np.divide(above, whole, out=out, where=whole > 0))
        return np.stack(values, axis=1)
