"""The metrics that follow from predictions, for one model or for two on the same examples.

Formulas are scikit-learn's (``zero_division=0``): ``precision_macro`` averages over the classes
that occur as label or prediction, ``balanced_accuracy`` over those that occur as label.
``precision``, ``recall``, ``f1`` alone are those of the positive class of two; ``f1_<class>`` is
that of one class. ``log_loss`` and ``brier`` read ``p_<class>``, brought to a sum of 1; ``brier``
is the mean squared distance to the true class, halved where the labels and probabilities of all
compared models name at most two classes. Undefined values are NaN: ``balanced_accuracy`` is, where
fewer than two classes have examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.areas import RocAuc
from ctflow.gate.by_class import AVERAGES, ByClass
from ctflow.gate.custom import custom_measure
from ctflow.gate.measures import Means, Measure, RightWrong
from ctflow.gate.predictions import Floats, Predictions, canonical, shown
from ctflow.metric_names import BY_CLASS, NUMERIC, PROBABILISTIC, RIGHT_WRONG

if TYPE_CHECKING:
    from ctflow.gate_metric import MetricOf

#: How far probabilities may be from a sum of 1 (rounding); they are brought to 1.
SUM_TOLERANCE = 1e-3
#: The positive one of two classes, by its name.
_POSITIVE = {("0", "1"): "1", ("-1", "1"): "1"} | {
    (no, yes): yes
    for no, yes in [("False", "True"), ("false", "true"), ("no", "yes"), ("negative", "positive")]
}


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


def measure(
    name: str,
    models: Sequence[Predictions],
    positive: str | None = None,
    of: MetricOf | None = None,
) -> Measure:
    """Prepare a metric for models whose predictions answer the same evaluation set.

    Args:
        positive: which of two classes is the positive one; else see ``positive_class``.
        of: what a metric of the project's own is.

    Raises:
        ConfigError: no such metric, or these predictions do not hold what it needs.
    """
    if of is not None:
        return custom_measure(of, models)
    if name in RIGHT_WRONG:
        return RightWrong(models, wrong=name == "error_rate")
    if name == "balanced_accuracy":
        return ByClass(name, "macro", models)
    if name in NUMERIC:
        return Means(name, [_errors(name, m) for m in models])
    if name in PROBABILISTIC:
        names = _with_chance(models)
        # A squared distance of two distributions is 2 at most; with two classes it is halved.
        worst = (1.0 if len(names) <= 2 else 2.0) if name == "brier" else None
        return Means(name, [_probabilistic(name, m, names) for m in models], worst)
    if name == "score":
        return Means(name, [_scores(m) for m in models])
    if name == "roc_auc":
        return RocAuc(models, positive_class(models, positive))
    match = BY_CLASS.fullmatch(name)
    if not match:
        raise ConfigError(f"{shown(name)} is not a metric of predictions")
    wanted = match[2] if match[2] is not None else positive_class(models, positive)
    return ByClass(match[1], wanted, models)


def positive_class(models: Sequence[Predictions], positive: str | None = None) -> str:
    """The positive one of two classes, the same for all models.

    ``positive`` where the rule names it; else 1, true, yes or positive among the labels and all
    models' answers and ``p_<class>`` columns; else the only class that any model has a column of.

    Raises:
        ConfigError: there are not two classes, or neither is known as the positive one.
    """
    labels = set(models[0].classes("label").distinct)
    if len(labels) > 2:
        raise ConfigError(f"there are {len(labels)} classes", next="use f1_macro or f1_<class>")
    columns = {name for model in models for name in model.probabilities}
    if positive is not None:
        named = canonical(positive)
        if named not in labels | columns:
            raise ConfigError(
                f"no example has the label {shown(named)!r}, the positive class",
                next=f"name one of {', '.join(map(shown, sorted(labels)))}",
            )
        return named
    for known in (
        labels.union(columns, *(m.classes("prediction").distinct for m in models)),
        labels,
    ):
        for (no, yes), found in _POSITIVE.items():
            if known <= {no, yes}:
                return found
    if len(columns) == 1:
        return next(iter(columns))
    raise ConfigError("no class is known as the positive one", next="name it with 'positive:'")


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


def _with_chance(models: Sequence[Predictions]) -> list[str]:
    """The classes that are a label or get a probability above 0 from any of the models, sorted."""
    found = set(models[0].classes("label").distinct)
    for model in models:
        columns = model.probabilities
        used = {name for name in columns if model.numbers(columns[name]).any()}
        found |= used if len(columns) > 1 else set(columns)
    return sorted(found)


def _probabilistic(name: str, model: Predictions, names: Sequence[str]) -> Floats:
    """The loss of each example, shape (1, n); ``names`` are the classes of all models."""
    columns = model.probabilities
    if not columns:
        raise ConfigError("there are no columns p_<class>")
    labels = model.classes("label")
    if len(columns) == 1:
        positive = next(iter(columns))
        if len(set(labels.distinct) - {positive}) > 1:
            raise ConfigError("one p_<class> column for more than two classes")
        p = model.numbers(columns[positive])
        chances, truth = np.stack([1 - p, p]), labels.equal(positive).astype(np.int64)
    else:
        missing = sorted(set(labels.distinct) - set(columns))
        if missing:
            raise ConfigError(f"there is no column p_{shown(missing[0])}")
        chances = np.stack([model.numbers(columns[name]) for name in columns])
        index = {name: number for number, name in enumerate(columns)}
        truth = np.array([index[name] for name in labels.distinct])[labels.codes]
    sums = chances.sum(axis=0)
    odd = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(odd):
        row = int(model.order[odd[0]])
        line = f"line {model.lines[row]}, " if model.lines else ""
        raise ConfigError(
            f"the p_<class> columns of {line}id {shown(model.ids[row])} add up to "
            f"{sums[odd[0]]:.6g}, not 1",
            next="write probabilities, with 4 decimals or more",
        )
    chances /= sums
    places = np.arange(len(labels))
    if name == "log_loss":
        eps = np.finfo(np.float64).eps
        losses: Floats = -np.log(np.clip(chances[truth, places], eps, 1 - eps))[None, :]
        return losses
    chances[truth, places] -= 1
    distances: Floats = (chances**2).sum(axis=0) / (2 if len(names) <= 2 else 1)
    return distances[None, :]
