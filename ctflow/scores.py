"""The metrics that follow from predictions, for one model or for two on the same examples.

Formulas are scikit-learn's (``zero_division=0``): ``precision_macro`` averages over the classes
that occur as label or prediction, ``balanced_accuracy`` over those that occur as label.
``precision``, ``recall``, ``f1`` alone are those of the positive class of two; ``f1_<class>`` is
that of one class. ``log_loss`` and ``brier`` read ``p_<class>``; ``brier`` is the mean squared
distance to the true class, halved for two classes. Undefined values are NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ctflow.errors import ConfigError, UsageError
from ctflow.evidence import Floats, Ints, Predictions, codes, shown
from ctflow.significance import bootstrap_cells, bootstrap_rows

T = TypeVar("T", bound=np.generic)
Indexes = npt.NDArray[np.int32]

RIGHT_WRONG = ("accuracy", "error_rate", "precision_micro", "recall_micro", "f1_micro")
NUMERIC = ("mae", "mse", "rmse", "r2")
PROBABILISTIC = ("log_loss", "brier")
LOWER_BETTER = ("error_rate", "log_loss", "brier", "mae", "mse", "rmse")
AVERAGES = ("macro", "weighted")
_BY_CLASS = re.compile(r"(precision|recall|f1)(?:_(.+))?", re.DOTALL)
_FIXED = {*RIGHT_WRONG, *NUMERIC, *PROBABILISTIC, "balanced_accuracy", "roc_auc", "score"}
#: The positive one of two classes, where no single ``p_<class>`` column says which.
_POSITIVE = {("0", "1"): "1", ("-1", "1"): "1"} | {
    (no, yes): yes
    for no, yes in [("False", "True"), ("false", "true"), ("no", "yes"), ("negative", "positive")]
}
_MAX_CLASSES = 1_000


def is_known(name: str) -> bool:
    """Whether a metric of this name is ever computed from predictions."""
    return name in _FIXED or _BY_CLASS.fullmatch(name) is not None


def is_lower_better(name: str) -> bool:
    """Whether the metric of this name improves as it falls."""
    return name in LOWER_BETTER


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


def computable(predictions: Predictions) -> tuple[str, ...]:
    """The names of the metrics that these predictions give, for messages."""
    names = ["accuracy", "error_rate", "balanced_accuracy"]
    names += [f"{base}_{a}" for base in ("precision", "recall", "f1") for a in (*AVERAGES, "micro")]
    names += [f"{base}_<class>" for base in ("precision", "recall", "f1")]
    for name in ("precision", "recall", "f1", "roc_auc", *PROBABILISTIC, *NUMERIC, "score"):
        try:
            measure(name, [predictions])
        except ConfigError:
            continue
        names.append(name)
    return tuple(names)


def measure(name: str, models: Sequence[Predictions]) -> Measure:
    """Prepare a metric for models whose predictions answer the same evaluation set.

    Raises:
        ConfigError: no such metric, or these predictions do not hold what it needs.
    """
    if name in RIGHT_WRONG:
        return RightWrong(models, wrong=name == "error_rate")
    if name == "balanced_accuracy":
        return ByClass(name, "macro", models)
    if name in NUMERIC:
        return Means(name, [_errors(name, m) for m in models])
    if name in PROBABILISTIC:
        return Means(name, [_probabilistic(name, m) for m in models])
    if name == "score":
        return Means(name, [_scores(m) for m in models])
    if name == "roc_auc":
        return RocAuc(models)
    match = _BY_CLASS.fullmatch(name)
    if not match:
        raise ConfigError(f"{shown(name)} is not a metric of predictions")
    wanted = match[2] if match[2] is not None else positive_class(models)
    return ByClass(match[1], wanted, models)


def positive_class(models: Sequence[Predictions]) -> str:
    """The positive one of two classes: the single ``p_<class>``'s, or 1, true, yes, positive.

    Raises:
        ConfigError: there are not two classes, or neither is known as the positive one.
    """
    names, _ = codes(models[0].classes("label"))
    probabilities = list(models[0].probabilities)
    if len(names) > 2:
        raise ConfigError(f"there are {len(names)} classes", next="use f1_macro or f1_<class>")
    if len(probabilities) == 1:
        return probabilities[0]
    for (no, yes), positive in _POSITIVE.items():
        if set(names) <= {no, yes}:
            return positive
    raise ConfigError("no class is known as the positive one", next="name it as in f1_<class>")


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
        key = np.zeros(len(_pick(self._columns[0], rows)), dtype=np.int64)
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
            return (each * actual).sum(axis=1) / actual.sum(axis=1)
        seen = actual > 0 if self._base == "balanced_accuracy" else predicted + actual > 0
        mean: Floats = (each * seen).sum(axis=1) / seen.sum(axis=1)
        return mean


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

    def _finish(self, means: Floats) -> Floats:
        """Means of shape (features, ...) -> the metric, shape (...)."""
        if self._name == "rmse":
            return np.sqrt(means[0])
        if self._name == "r2":
            spread = means[2] - means[1] ** 2
            some = spread > 1e-12 * np.maximum(means[2], 1e-300)
            ratio = np.divide(means[0], spread, out=np.full_like(spread, np.nan), where=some)
            return np.asarray(1.0 - ratio)
        return np.asarray(means[0])


class RocAuc:
    """Area under the ROC curve of two classes; ties count half."""

    by_class = False

    def __init__(self, models: Sequence[Predictions]) -> None:
        positive = positive_class(models)
        labels = models[0].classes("label")
        self._positive = np.array([label == positive for label in labels])
        self._scores = []
        for model in models:
            column = model.probabilities.get(positive, "score")
            if column not in model.columns:
                raise ConfigError(f"there is no column p_{shown(positive)} and no score")
            self._scores.append(model.numbers(column))

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        weights = np.ones((1, len(_pick(self._positive, rows))), dtype=np.int64)
        values: Floats = self._areas(rows, weights)[0]
        return values

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        examples = len(_pick(self._positive, rows))

        def statistic(drawn: Indexes) -> Floats:
            weights = np.stack([np.bincount(row, minlength=examples) for row in drawn])
            return self._areas(rows, weights)

        return bootstrap_rows(examples, statistic, count, rng)

    def informative(self, rows: Ints | None) -> int:
        """See ``Measure``; no more than the examples of the rarer class."""
        positive = _pick(self._positive, rows)
        first, second = (_pick(scores, rows) for scores in self._scores[:2])
        differ = first != second
        both = (positive.sum(), len(positive) - positive.sum(), differ.sum())
        return int(min(both))

    def _areas(self, rows: Ints | None, weights: Ints) -> Floats:
        positive = _pick(self._positive, rows)
        areas = []
        for scores in self._scores:
            picked = _pick(scores, rows)
            order = np.argsort(picked, kind="stable")
            starts = np.flatnonzero(np.diff(picked[order], prepend=-np.inf))
            drawn = weights[:, order]
            ones = np.add.reduceat(drawn * positive[order], starts, axis=1).astype(np.float64)
            zeros = np.add.reduceat(drawn * ~positive[order], starts, axis=1).astype(np.float64)
            below = np.cumsum(zeros, axis=1) - zeros / 2
            pairs = ones.sum(axis=1) * zeros.sum(axis=1)
            area = np.full(len(pairs), np.nan)
            areas.append(np.divide((ones * below).sum(axis=1), pairs, out=area, where=pairs > 0))
        return np.stack(areas, axis=1)


def _pick(array: npt.NDArray[T], rows: Ints | None) -> npt.NDArray[T]:
    return array if rows is None else array[..., rows]


def _scores(model: Predictions) -> Floats:
    if "score" not in model.columns:
        raise ConfigError("there is no column score")
    return model.numbers("score")[None, :]


def _errors(name: str, model: Predictions) -> Floats:
    try:
        label, answer = model.numbers("label"), model.numbers("prediction")
    except UsageError:
        raise ConfigError("label and prediction are not all numbers") from None
    error = answer - label
    if name == "mae":
        return np.abs(error)[None, :]
    if name == "r2":
        centred = label - label.mean()
        return np.stack([error**2, centred, centred**2])
    return (error**2)[None, :]


def _probabilistic(name: str, model: Predictions) -> Floats:
    columns = model.probabilities
    if not columns:
        raise ConfigError("there are no columns p_<class>")
    labels = model.classes("label")
    if len(columns) == 1:
        positive = next(iter(columns))
        p = model.numbers(columns[positive])
        chances = np.stack([1 - p, p])
        truth = np.array([label == positive for label in labels]).astype(np.int64)
        if len(set(labels) - {positive}) > 1:
            raise ConfigError("one p_<class> column for more than two classes")
    else:
        names = list(columns)
        missing = sorted(set(labels) - set(names))
        if missing:
            raise ConfigError(f"there is no column p_{shown(missing[0])}")
        chances = np.stack([model.numbers(columns[name]) for name in names])
        index = {name: number for number, name in enumerate(names)}
        truth = np.array([index[label] for label in labels], dtype=np.int64)
    if np.abs(chances.sum(axis=0) - 1).max() > 0.01:
        raise ConfigError("the p_<class> columns do not add up to 1 in each line")
    places = np.arange(len(labels))
    if name == "log_loss":
        eps = np.finfo(np.float64).eps
        return -np.log(np.clip(chances[truth, places], eps, 1 - eps))[None, :]
    chances[truth, places] -= 1
    return ((chances**2).sum(axis=0) / (2 if len(chances) == 2 else 1))[None, :]
