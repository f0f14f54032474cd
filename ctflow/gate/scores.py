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

import numpy as np

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.measures import AVERAGES, ByClass, Means, Measure, RightWrong, RocAuc
from ctflow.gate.predictions import Floats, Predictions, codes, shown

RIGHT_WRONG = ("accuracy", "error_rate", "precision_micro", "recall_micro", "f1_micro")
NUMERIC = ("mae", "mse", "rmse", "r2")
PROBABILISTIC = ("log_loss", "brier")
LOWER_BETTER = ("error_rate", "log_loss", "brier", "mae", "mse", "rmse")
_BY_CLASS = re.compile(r"(precision|recall|f1)(?:_(.+))?", re.DOTALL)
_FIXED = {*RIGHT_WRONG, *NUMERIC, *PROBABILISTIC, "balanced_accuracy", "roc_auc", "score"}
#: The positive one of two classes, where no single ``p_<class>`` column says which.
_POSITIVE = {("0", "1"): "1", ("-1", "1"): "1"} | {
    (no, yes): yes
    for no, yes in [("False", "True"), ("false", "true"), ("no", "yes"), ("negative", "positive")]
}


def is_known(name: str) -> bool:
    """Whether a metric of this name is ever computed from predictions."""
    return name in _FIXED or _BY_CLASS.fullmatch(name) is not None


def is_lower_better(name: str) -> bool:
    """Whether the metric of this name improves as it falls."""
    return name in LOWER_BETTER


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
        return RocAuc(models, positive_class(models))
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
        losses: Floats = -np.log(np.clip(chances[truth, places], eps, 1 - eps))[None, :]
        return losses
    chances[truth, places] -= 1
    distances: Floats = (chances**2).sum(axis=0) / (2 if len(chances) == 2 else 1)
    return distances[None, :]
