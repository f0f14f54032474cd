"""Metrics as computed: the value on some examples, on resamples of them, and who differs.

Each measure is of one model, or of several whose predictions answer the same evaluation set.
Positions of examples are in id order. Formulas: see ``ctflow.gate.scores``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ctflow.errors import ConfigError
from ctflow.gate.predictions import Floats, Ints, Predictions, codes, shown
from ctflow.gate.significance import bootstrap_cells, bootstrap_rows

T = TypeVar("T", bound=np.generic)
Indexes = npt.NDArray[np.int32]

AVERAGES = ("macro", "weighted")
_MAX_CLASSES = 1_000
_RANKS = 4_096


class Measure(Protocol):
    """A metric of one or several models on the same examples (positions are in id order)."""

    #: Answers in [0, 1] for each example, so that few differing examples bound the gain.
    by_class: bool

    def values(self, rows: Ints | None = None) -> Floats:
        """The metric on those examples (all: None), shape (models,)."""
        ...

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """The metric on ``count`` resamples of those examples, shape (count, models)."""
        ...

    def informative(self, rows: Ints | None) -> int:
        """On how many of those examples the first two models differ in what the metric sees."""
        ...


class RightWrong:
    """Accuracy and its complement."""

    by_class = True

    def __init__(self, models: Sequence[Predictions], wrong: bool) -> None:
        labels = models[0].classes("label")
        self._right = [
            np.array([a == b for a, b in zip(labels, m.classes("prediction"), strict=True)])
            for m in models
        ]
        self._wrong = wrong

    def right(self, rows: Ints | None) -> list[Ints]:
        """For each model, 1 where it is right and 0 where not."""
        return [_pick(right, rows).astype(np.int64) for right in self._right]

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

    def informative(self, rows: Ints | None) -> int:
        """See ``Measure``."""
        first, second = self.right(rows)[:2]
        return int((first != second).sum())

    def _turn(self, rates: Floats) -> Floats:
        return 1.0 - rates if self._wrong else rates


class ByClass:
    """Metrics of the confusion matrix: precision, recall, F1, balanced accuracy."""

    by_class = True

    def __init__(self, base: str, wanted: str, models: Sequence[Predictions]) -> None:
        self._base, self._wanted = base, wanted
        columns = [models[0].classes("label"), *(m.classes("prediction") for m in models)]
        self._names, self._columns = codes(*columns)
        if len(self._names) > _MAX_CLASSES:
            raise ConfigError(f"there are {len(self._names)} classes, more than {_MAX_CLASSES}")
        if wanted not in AVERAGES and wanted not in columns[0]:
            raise ConfigError(f"no example has the label {shown(wanted)!r}")
        self._target = self._names.index(wanted) if wanted not in AVERAGES else -1

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        cells, counts = self._cells(rows)
        values: Floats = self._statistic(cells, counts[None, :])[0]
        return values

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        cells, counts = self._cells(rows)
        return bootstrap_cells(counts, lambda drawn: self._statistic(cells, drawn), count, rng)

    def informative(self, rows: Ints | None) -> int:
        """See ``Measure``."""
        label, first, second = (_pick(column, rows) for column in self._columns[:3])
        seen = first != second
        if self._target >= 0:
            t = self._target
            seen &= (label == t) | (first == t) | (second == t)
        return int(seen.sum())

    def _cells(self, rows: Ints | None) -> tuple[list[Ints], Ints]:
        """The distinct (label, prediction, ...) and how many examples have each."""
        size = len(self._names)
        key: Ints = np.zeros(len(_pick(self._columns[0], rows)), dtype=np.int64)
        for column in self._columns:
            key = key * size + _pick(column, rows)
        cells, counts = np.unique(key, return_counts=True)
        columns = []
        for _ in self._columns:
            columns.append(cells % size)
            cells = cells // size
        return columns[::-1], counts.astype(np.int64)

    def _statistic(self, cells: list[Ints], counts: Ints) -> Floats:
        label = cells[0]
        actual = self._sums(counts, label)
        values = []
        for answer in cells[1:]:
            hit = answer == label
            hits = self._sums(counts[:, hit], label[hit])
            values.append(self._score(hits, self._sums(counts, answer), actual))
        return np.stack(values, axis=1)

    def _sums(self, counts: Ints, groups: Ints) -> Floats:
        """Counts (resamples, cells) summed by class: (resamples, classes)."""
        sums = np.zeros((len(counts), len(self._names)))
        if len(groups):
            order = np.argsort(groups, kind="stable")
            names, starts = np.unique(groups[order], return_index=True)
            sums[:, names] = np.add.reduceat(counts[:, order], starts, axis=1)
        return sums

    def _score(self, hits: Floats, predicted: Floats, actual: Floats) -> Floats:
        part, whole = {
            "precision": (hits, predicted),
            "recall": (hits, actual),
            "f1": (2 * hits, predicted + actual),
            "balanced_accuracy": (hits, actual),
        }[self._base]
        each = np.divide(part, whole, out=np.zeros_like(hits), where=whole > 0)
        if self._target >= 0:
            occurs = actual[:, self._target] > 0
            return np.where(occurs, each[:, self._target], np.nan)
        if self._wanted == "weighted":
            return np.asarray((each * actual).sum(axis=1) / actual.sum(axis=1))
        seen = actual > 0 if self._base == "balanced_accuracy" else predicted + actual > 0
        count = seen.sum(axis=1)
        least = 2 if self._base == "balanced_accuracy" else 1
        mean: Floats = np.divide(
            (each * seen).sum(axis=1), count, out=np.full(len(each), np.nan), where=count >= least
        )
        return mean

    def pairs(self, rows: Ints | None) -> list[tuple[int, int, int]] | None:
        """Where the metric is the mean of the classes' recalls: each class's right answers.

        (only the first model right, only the second, examples) of each; None for other metrics.
        """
        if self._base not in ("recall", "balanced_accuracy") or self._wanted == "weighted":
            return None
        label, first, second = (_pick(column, rows) for column in self._columns[:3])
        found = np.unique(label) if self._target < 0 else np.array([self._target])
        answers = np.concatenate([first, second])
        if self._base == "recall" and self._target < 0 and not np.isin(answers, found).all():
            return None  # a class without examples counts as recall 0, and has no interval
        parts = []
        for name in found.tolist():
            of = label == name
            ours, theirs = first[of] == name, second[of] == name
            parts.append((int((ours > theirs).sum()), int((ours < theirs).sum()), int(of.sum())))
        return parts

    def influence(self, rows: Ints | None) -> Floats | None:
        """Each example's part in the first model's value less the second's, shape (n,).

        Its mean is that difference. None where the metric is not a mean of recalls.
        """
        if self.pairs(rows) is None:
            return None
        label, first, second = (_pick(column, rows) for column in self._columns[:3])
        found = np.unique(label) if self._target < 0 else np.array([self._target])
        differ = (first == label).astype(np.float64) - (second == label)
        parts = np.zeros(len(label))
        total = 0.0
        for name in found.tolist():
            of = label == name
            mean = float(differ[of].mean())
            total += mean / len(found)
            parts[of] = (differ[of] - mean) * len(label) / of.sum() / len(found)
        return np.asarray(parts + total)

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the class has on which the metric hangs: its own, or the rarest."""
        label = _pick(self._columns[0], rows)
        if self._target >= 0:
            return int((label == self._target).sum())
        return int(np.unique(label, return_counts=True)[1].min())


class Means:
    """Metrics that are a function of the means of a few numbers an example."""

    by_class = False

    def __init__(self, name: str, features: Sequence[Floats]) -> None:
        #: For each model, shape (features, examples).
        self._features = features
        self._name = name

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        return np.array([self._finish(_pick(f, rows).mean(axis=-1)) for f in self._features])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        features = [_pick(f, rows) for f in self._features]

        def statistic(drawn: Indexes) -> Floats:
            means = [np.stack([x[drawn].mean(axis=1) for x in f]) for f in features]
            return np.stack([self._finish(m) for m in means], axis=1)

        return bootstrap_rows(features[0].shape[-1], statistic, count, rng)

    def informative(self, rows: Ints | None) -> int:
        """See ``Measure``."""
        first, second = (_pick(f, rows) for f in self._features[:2])
        return int((first != second).any(axis=0).sum())

    def linear(self, rows: Ints | None) -> Floats:
        """Each example's part in each model's metric, to first order; shape (models, n)."""
        parts = []
        for features in self._features:
            f = _pick(features, rows)
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
        """The most that one example may change the metric times n, as far as can be known."""
        if self._name == "brier":
            return 1.0
        if self._name in ("score", "r2"):
            first, second = self.linear(rows)[:2]
            return float(np.abs(first - second).max())
        return float(self.linear(rows).max())

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


class RocAuc:
    """Area under the ROC curve of two classes; ties count half."""

    by_class = False

    def __init__(self, models: Sequence[Predictions], positive: str) -> None:
        labels = models[0].classes("label")
        self._positive = np.array([label == positive for label in labels])
        self._scores = []
        for model in models:
            columns = model.probabilities
            if positive not in columns and len(columns) == 1:
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

    def informative(self, rows: Ints | None) -> int:
        """See ``Measure``; no more than the examples of the rarer class."""
        positive = _pick(self._positive, rows)
        first, second = (_pick(scores, rows) for scores in self._scores[:2])
        differ = first != second
        both = (positive.sum(), len(positive) - positive.sum(), differ.sum())
        return int(min(both))

    def rarest(self, rows: Ints | None) -> int:
        """How many examples the rarer class has."""
        positive = _pick(self._positive, rows)
        return int(min(positive.sum(), len(positive) - positive.sum()))

    def components(self, rows: Ints | None) -> tuple[Floats, Floats]:
        """Each positive's and each negative's part in the difference of the first two areas."""
        positive = _pick(self._positive, rows)
        parts = []
        for key, size in self._keys(rows)[:2]:
            counts = np.bincount(key, minlength=2 * size).reshape(size, 2).astype(np.float64)
            zeros, ones = counts[:, 0], counts[:, 1]
            below = (np.cumsum(zeros) - zeros / 2) / zeros.sum()
            above = 1 - (np.cumsum(ones) - ones / 2) / ones.sum()
            ranks = key // 2
            parts.append((below[ranks[positive]], above[ranks[~positive]]))
        (p1, n1), (p2, n2) = parts
        return p1 - p2, n1 - n2

    def influence(self, rows: Ints | None) -> Floats:
        """Each example's part in the first model's area less the second's, shape (n,)."""
        positive = _pick(self._positive, rows)
        ones, zeros = self.components(rows)
        gain = float(ones.mean())
        parts = np.full(len(positive), gain)
        parts[positive] += (ones - gain) * len(positive) / len(ones)
        parts[~positive] += (zeros - gain) * len(positive) / len(zeros)
        return parts

    def _keys(self, rows: Ints | None) -> list[tuple[Ints, int]]:
        """For each model: twice the rank of each score, plus 1 for a positive; number of ranks."""
        positive = _pick(self._positive, rows)
        keys = []
        for scores in self._scores:
            values, ranks = np.unique(_pick(scores, rows), return_inverse=True)
            keys.append((2 * ranks.astype(np.int64) + positive, len(values)))
        return keys


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


def _pick(array: npt.NDArray[T], rows: Ints | None) -> npt.NDArray[T]:
    return array if rows is None else array[..., rows]
