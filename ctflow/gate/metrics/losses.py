"""What each example adds to a metric that is a mean: a loss, an error, a score.

Formulas: see ``ctflow.gate.metrics.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.predictions import Floats, Predictions, shown

#: How far probabilities may be from a sum of 1 (rounding); they are brought to 1.
SUM_TOLERANCE = 1e-3


def scores(model: Predictions) -> Floats:
    """The column ``score``, shape (1, n)."""
    if "score" not in model.columns:
        raise ConfigError("there is no column score")
    return model.numbers("score")[None, :]


def errors(name: str, model: Predictions) -> Floats:
    """What the numeric metric is a mean of, shape (1, n); of ``r2``, (3, n).

    Raises:
        ConfigError: a label or an answer is no number; or 0 is a label, and the error is by it.
    """
    try:
        label, answer = model.numbers("label"), model.numbers("prediction")
    except UsageError:
        raise ConfigError("label and prediction are not all numbers") from None
    error = answer - label
    if name == "mae":
        return np.abs(error)[None, :]
    if name == "mape":
        if not label.all():
            row = int(model.order[np.flatnonzero(label == 0)[0]])
            raise ConfigError(
                f"the label of id {shown(model.ids[row])} is 0, by which mape divides",
                next="use mae, or leave such examples out",
            )
        return np.abs(error / label)[None, :]
    if name == "r2":
        centred = label - label.mean()
        return np.stack([error**2, centred, centred**2])
    return (error**2)[None, :]


def pinball(model: Predictions, at: float) -> Floats:
    """The pinball loss of a prediction of the quantile ``at``, shape (1, n).

    Source: Koenker and Bassett, Econometrica 46 (1978), 33-50.
    """
    try:
        error = model.numbers("label") - model.numbers("prediction")
    except UsageError:
        raise ConfigError("label and prediction are not all numbers") from None
    return np.maximum(at * error, (at - 1) * error)[None, :]


def with_chance(models: Sequence[Predictions]) -> list[str]:
    """The classes that are a label or get a probability above 0 from any of the models, sorted."""
    found = set(models[0].classes("label").distinct)
    for model in models:
        columns = model.probabilities
        used = {name for name in columns if model.numbers(columns[name]).any()}
        found |= used if len(columns) > 1 else set(columns)
    return sorted(found)


def probabilistic(name: str, model: Predictions, names: Sequence[str]) -> Floats:
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
