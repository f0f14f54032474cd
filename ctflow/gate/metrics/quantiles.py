"""Quantiles of a column, of one model or of two on the same examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ctflow.gate.files.predictions import Floats, Ints
from ctflow.gate.intervals.significance import CHUNK, binomial_tail, bootstrap_rows
from ctflow.gate.metrics.measures import Bools, Indexes, pick

#: With fewer examples beyond a quantile, on either side, it has no interval.
LEAST_BEYOND = 5
#: Of more examples than this, only those near the quantile are drawn one by one,
MANY = 5_000
#: which are those within so many standard deviations of its rank.
NEAR = 7.0


class Quantiles:
    """A quantile of a column: the least value that so many are not above (``inverted_cdf``)."""

    def __init__(self, columns: Sequence[Floats], at: float) -> None:
        self._columns = columns
        self._at = at

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.array([self._quantile(pick(c, rows)[None, :])[0] for c in self._columns])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        columns = [pick(c, rows) for c in self._columns]
        if len(columns[0]) > MANY:
            return self._drawn_near(columns, count, rng)

        def statistic(drawn: Indexes) -> Floats:
            return np.stack([self._quantile(column[drawn]) for column in columns], axis=1)

        return bootstrap_rows(len(columns[0]), statistic, count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        first, second = (pick(c, rows) for c in self._columns[:2])
        return np.asarray(first != second)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: a quantile may move by anything when a single example changes."""
        first, second = self._columns[:2]
        return 0.0 if np.array_equal(pick(first, rows), pick(second, rows)) else math.inf

    def flaw(self, rows: Ints | None) -> str:
        """Why its interval cannot be told from so few examples, or ""."""
        n = len(pick(self._columns[0], rows))
        beyond = min(self._at, 1 - self._at) * n
        if beyond > LEAST_BEYOND - 1e-9:
            return ""
        return f"{beyond:.3g} of {n} examples lie beyond the quantile, fewer than {LEAST_BEYOND}"

    def limits(self, rows: Ints | None, model: int, confidence: float) -> tuple[float, float]:
        """Each model's own interval, from order statistics; infinite where there are too few.

        Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2: the number of examples
        below the true quantile is binomial, whatever the distribution.
        """
        ordered = np.sort(pick(self._columns[model], rows))
        n, tail = len(ordered), (1 - confidence) / 2
        below = _least(lambda k: binomial_tail(k, n, self._at) > tail, n)
        above = _least(lambda k: binomial_tail(k, n, self._at) >= 1 - tail, n) + 1
        low = float(ordered[below - 1]) if below >= 1 else -math.inf
        high = float(ordered[above - 1]) if above <= n else math.inf
        return low, high

    def _drawn_near(
        self, columns: Sequence[Floats], count: int, rng: np.random.Generator
    ) -> Floats:
        """Resampled quantiles: of examples far from them it only counts on which side they are."""
        cells, sizes = self._cells(np.stack(columns))
        n, step = int(sizes.sum()), max(1, CHUNK // len(sizes))
        found = []
        for start in range(0, count, step):
            drawn = rng.multinomial(n, sizes / n, size=min(step, count - start))
            found.append(np.stack([_at_rank(self._place(n), c, drawn) for c in cells], axis=1))
        return np.concatenate(found)

    def _cells(self, columns: Floats) -> tuple[Floats, Ints]:
        """The distinct examples, shape (models, cells), and how many are of each.

        A value far from its model's quantile is infinite.
        """
        n = columns.shape[1]
        reach = NEAR * math.sqrt(n * self._at * (1 - self._at))
        first = max(math.floor(self._place(n) - reach), 0)
        last = min(math.ceil(self._place(n) + reach), n - 1)
        ends = np.partition(columns, (first, last), axis=1)[:, (first, last)]
        below, above = columns < ends[:, :1], columns > ends[:, 1:]
        is_far = (below | above).all(axis=0)
        near, sizes = np.unique(columns[:, ~is_far], axis=1, return_counts=True)
        sides = np.where(above[:, is_far], np.inf, -np.inf)
        key = (above[:, is_far] << np.arange(len(columns))[:, None]).sum(axis=0)
        _, one, counts = np.unique(key, return_index=True, return_counts=True)
        return np.concatenate([near, sides[:, one]], axis=1), np.concatenate([sizes, counts])

    def _quantile(self, values: Floats) -> Floats:
        place = self._place(values.shape[1])
        return np.asarray(np.partition(values, place, axis=1)[:, place])

    def _place(self, n: int) -> int:
        """The rank of the quantile among ``n`` values, from 0."""
        return min(max(math.ceil(self._at * n - 1e-9) - 1, 0), n - 1)


def _at_rank(place: int, values: Floats, counts: Ints) -> Floats:
    """In each row of ``counts``, shape (resamples, values): the value of that rank."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(counts[:, order], axis=1)
    return np.asarray(values[order][(upto > place).argmax(axis=1)])


def _least(holds: Callable[[int], bool], n: int) -> int:
    """The least of 0 to ``n`` from which on it holds; it does for ``n``."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
