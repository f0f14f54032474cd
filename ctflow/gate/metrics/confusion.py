"""Metrics of the confusion matrix: how many examples have which label and answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, codes
from ctflow.gate.intervals.significance import bootstrap_cells
from ctflow.gate.metrics.measures import pick

_MAX_CLASSES = 1_000


class Confusion:
    """A metric that is a function of the counts of each (label, prediction, prediction ...).

    Raises:
        ConfigError: there are more than 1,000 classes.
    """

    def __init__(self, models: Sequence[Predictions]) -> None:
        answers = (model.classes("prediction") for model in models)
        self._names, self._columns = codes(models[0].classes("label"), *answers)
        if len(self._names) > _MAX_CLASSES:
            raise ConfigError(f"there are {len(self._names)} classes, more than {_MAX_CLASSES}")

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        cells, counts = self._cells(rows)
        values: Floats = self._statistic(cells, counts[None, :])[0]
        return values

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        cells, counts = self._cells(rows)
        return bootstrap_cells(counts, lambda drawn: self._statistic(cells, drawn), count, rng)

    def _cells(self, rows: Ints | None) -> tuple[list[Ints], Ints]:
        """The distinct (label, prediction, ...) and how many examples have each."""
        size = len(self._names)
        key: Ints = np.zeros(len(pick(self._columns[0], rows)), dtype=np.int64)
        for column in self._columns:
            key = key * size + pick(column, rows)
        cells, counts = np.unique(key, return_counts=True)
        columns = []
        for _ in self._columns:
            columns.append(cells % size)
            cells = cells // size
        return columns[::-1], counts.astype(np.int64)

    @abstractmethod
    def _statistic(self, cells: list[Ints], counts: Floats | Ints) -> Floats:
        """The metric of each model, shape (resamples, models).

        Args:
            cells: the label and each model's answer, of shape (cells,) each.
            counts: shape (resamples, cells).
        """

    def _sums(self, counts: Floats | Ints, groups: Ints) -> Floats:
        """Counts (resamples, cells) summed by class: (resamples, classes)."""
        sums = np.zeros((len(counts), len(self._names)))
        if len(groups):
            order = np.argsort(groups, kind="stable")
            names, starts = np.unique(groups[order], return_index=True)
            sums[:, names] = np.add.reduceat(counts[:, order], starts, axis=1)
        return sums
