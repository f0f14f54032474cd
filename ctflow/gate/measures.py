"""Metrics as computed: the value on some examples, on resamples of them, and who differs.

Each measure is of one model, or of several whose predictions answer the same evaluation set.
Positions of examples are in id order. Formulas: see ``ctflow.gate.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ctflow.errors import ConfigError
from ctflow.gate.predictions import Floats, Ints, Predictions, codes, shown
from ctflow.gate.significance import bootstrap_cells, bootstrap_rows, unseen

T = TypeVar("T", bound=np.generic)
Bools = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int32]

AVERAGES = ("macro", "weighted")
_MAX_CLASSES = 1_000


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
    """Accuracy and its complement."""

    def __init__(self, models: Sequence[Predictions], wrong: bool) -> None:
        answers = [model.classes("prediction") for model in models]
        _, (labels, *found) = codes(models[0].classes("label"), *answers)
        self._right = [answer == labels for answer in found]
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


class ByClass:
    """Metrics of the confusion matrix: precision, recall, F1, balanced accuracy."""

    def __init__(self, base: str, wanted: str, models: Sequence[Predictions]) -> None:
        self._base, self._wanted = base, wanted
        columns = [models[0].classes("label"), *(m.classes("prediction") for m in models)]
        self._names, self._columns = codes(*columns)
        if len(self._names) > _MAX_CLASSES:
            raise ConfigError(f"there are {len(self._names)} classes, more than {_MAX_CLASSES}")
        if wanted not in AVERAGES and wanted not in columns[0].distinct:
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

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        label, first, second = (pick(column, rows) for column in self._columns[:3])
        recall = self._base in ("recall", "balanced_accuracy")
        seen = (first == label) != (second == label) if recall else first != second
        if self._target >= 0:
            t = self._target
            seen &= label == t if recall else (label == t) | (first == t) | (second == t)
        return np.asarray(seen)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarest class has, or the only one, can tell."""
        label = pick(self._columns[0], rows)
        if self._target >= 0:
            rarest = int((label == self._target).sum())
        else:
            rarest = int(np.unique(label, return_counts=True)[1].min())
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(rarest, differ), confidence)

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
        found = self._recalled(rows)
        if found is None:
            return None
        label, first, second = (pick(column, rows) for column in self._columns[:3])
        parts = []
        for name in found.tolist():
            of = label == name
            ours, theirs = first[of] == name, second[of] == name
            parts.append((int((ours > theirs).sum()), int((ours < theirs).sum()), int(of.sum())))
        return parts

    def influence(self, rows: Ints | None) -> Floats | None:
        """Each example's part in the first model's value less the second's, shape (n,).

        Its mean is that difference; of one model alone, its value. None where the metric is not a
        mean of recalls.
        """
        found = self._recalled(rows)
        if found is None:
            return None
        label, first, *others = (pick(column, rows) for column in self._columns[:3])
        differ = (first == label).astype(np.float64)
        if others:
            differ -= others[0] == label
        parts = np.zeros(len(label))
        total = 0.0
        for name in found.tolist():
            of = label == name
            mean = float(differ[of].mean())
            total += mean / len(found)
            parts[of] = (differ[of] - mean) * len(label) / of.sum() / len(found)
        return np.asarray(parts + total)

    def _recalled(self, rows: Ints | None) -> Ints | None:
        """The classes whose recalls' mean the metric is; None for other metrics."""
        if self._base not in ("recall", "balanced_accuracy") or self._wanted == "weighted":
            return None
        if self._target >= 0:
            return np.array([self._target])
        label, *answers = (pick(column, rows) for column in self._columns[:3])
        found = np.unique(label)
        if self._base == "recall" and not np.isin(np.concatenate(answers), found).all():
            return None  # a class without examples counts as recall 0, and has no interval
        return np.asarray(found)

    def shares(self, rows: Ints | None) -> list[tuple[int, int, float]]:
        """The first model's metric as a weighted sum of shares: (hits, of how many, weight).

        Of F1, the share f of hits among hits, false positives and false negatives: a class's F1 is
        2f / (1 + f). Classes that are nobody's label or answer are left out.
        """
        label, answer = (pick(column, rows) for column in self._columns[:2])
        size = len(self._names)
        hits = np.bincount(label[answer == label], minlength=size)
        actual, predicted = (np.bincount(x, minlength=size) for x in (label, answer))
        if self._base == "recall" and self._wanted == "weighted":
            return [(int(hits.sum()), len(label), 1.0)]
        whole = {"precision": predicted, "f1": predicted + actual - hits}.get(self._base, actual)
        if self._target >= 0:
            return [(int(hits[self._target]), int(whole[self._target]), 1.0)]
        seen = actual > 0 if self._base == "balanced_accuracy" else predicted + actual > 0
        weights = actual / len(label) if self._wanted == "weighted" else seen / seen.sum()
        return [(int(hits[j]), int(whole[j]), float(weights[j])) for j in np.flatnonzero(seen)]

    def wrong(self, rows: Ints | None) -> int:
        """On how many examples the first model is wrong."""
        label, answer = (pick(column, rows) for column in self._columns[:2])
        return int((label != answer).sum())

    @property
    def is_f1(self) -> bool:
        """Whether the metric is an F1."""
        return self._base == "f1"

    @property
    def is_of_disjoint(self) -> bool:
        """Whether ``shares`` are of disjoint examples, with weights that are not chance."""
        return not self.is_f1 and (self._base != "precision" or self._wanted != "weighted")


class Means:
    """Metrics that are a function of the means of a few numbers an example."""

    def __init__(self, name: str, features: Sequence[Floats], worst: float | None = None) -> None:
        self._worst = worst
        #: For each model, shape (features, examples).
        self._features = features
        self._name = name

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
        least = 0.0 if self._name in ("log_loss", "mae", "mse", "rmse") else float(parts.min())
        return float(parts.max()) - least

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


def pick(array: npt.NDArray[T], rows: Ints | None) -> npt.NDArray[T]:
    """Those examples, the last axis; all of them where ``rows`` is None."""
    return array if rows is None else array[..., rows]
