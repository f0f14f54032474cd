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

from ctflow.config.metric_names import (
    AGREEMENT,
    BY_CLASS,
    NUMERIC,
    PINBALL,
    PROBABILISTIC,
    RANKED,
    RIGHT_WRONG,
    TOP_K,
    is_of_queries,
)
from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Predictions, canonical, shown
from ctflow.gate.metrics.agreement import Agreement
from ctflow.gate.metrics.areas import RocAuc, RocAucOvo, RocAucOvr
from ctflow.gate.metrics.average_precision import AveragePrecision
from ctflow.gate.metrics.by_class import AVERAGES, ByClass
from ctflow.gate.metrics.calibration import CalibrationError
from ctflow.gate.metrics.custom import custom_measure
from ctflow.gate.metrics.losses import errors, pinball, probabilistic, scores, with_chance
from ctflow.gate.metrics.measures import Means, Measure, RightWrong, right_answers
from ctflow.gate.metrics.ndcg import ndcg, relevances
from ctflow.gate.metrics.top_k import among_best
from ctflow.gate.metrics.weights import weighted, weights_of

if TYPE_CHECKING:
    from ctflow.config.gate_metric import MetricOf
    from ctflow.config.gate_rules import GateRule

#: How a message names metrics of which there are many.
_ANY = {"pinball_0.5": "pinball_<quantile>", "top_2_accuracy": "top_<k>_accuracy"}
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
    asked = ("precision", "recall", "f1", *AGREEMENT, *RANKED, *PROBABILISTIC, *NUMERIC)
    for name in (*asked, "ece", "pinball_0.5", "top_2_accuracy", "score"):
        try:
            measure(name, [predictions])
        except ConfigError:
            continue
        names.append(_ANY.get(name, name))
    return (*names, "ndcg_<k> with 'group'") if _ranks(predictions) else tuple(names)


def _ranks(predictions: Predictions) -> bool:
    try:
        relevances(predictions)
    except ConfigError:
        return False
    return "score" in predictions.columns


def measure(
    name: str,
    models: Sequence[Predictions],
    positive: str | None = None,
    of: MetricOf | None = None,
    weight: str | None = None,
    group: str | None = None,
) -> Measure:
    """Prepare a metric for models whose predictions answer the same evaluation set.

    Args:
        positive: which of two classes is the positive one; else see ``positive_class``.
        of: what a metric of the project's own is.
        weight: a column by which the examples count.
        group: the column that names the query of a row, for metrics of queries; others need none.

    Raises:
        ConfigError: no such metric, or these predictions do not hold what it needs.
    """
    if weight is not None:
        weights = weights_of(models, weight)
        return weighted(measure(name, models, positive, of), name, weights)
    if of is not None:
        return custom_measure(of, models)
    if is_of_queries(name):
        return ndcg(name, models, group)
    found = _of_answers(name, models) or _of_means(name, models)
    if found is not None:
        return found
    if name == "ece":
        return CalibrationError(models)
    if name == "roc_auc_ovr":
        return RocAucOvr(models)
    if name == "roc_auc_ovo":
        return RocAucOvo(models)
    if name == "roc_auc":
        return RocAuc(models, positive_class(models, positive))
    if name == "average_precision":
        return AveragePrecision(models, positive_class(models, positive))
    match = BY_CLASS.fullmatch(name)
    if not match:
        raise ConfigError(f"{shown(name)} is not a metric of predictions")
    wanted = match[2] if match[2] is not None else positive_class(models, positive)
    return ByClass(match[1], wanted, models)


def measure_of(rule: GateRule, models: Sequence[Predictions]) -> Measure:
    """A rule's metric. Raises ConfigError as ``measure`` does."""
    return measure(rule.metric, models, rule.positive, rule.of, rule.weight, rule.group)


def _of_answers(name: str, models: Sequence[Predictions]) -> Measure | None:
    """What only asks which answers are right, or how labels and answers agree."""
    if name in RIGHT_WRONG:
        return RightWrong(right_answers(models), wrong=name == "error_rate")
    if match := TOP_K.fullmatch(name):
        return RightWrong([among_best(m, int(match[1])) for m in models])
    if name in AGREEMENT:
        return Agreement(name, models)
    return ByClass(name, "macro", models) if name == "balanced_accuracy" else None


def _of_means(name: str, models: Sequence[Predictions]) -> Measure | None:
    """A function of means: losses, errors, scores."""
    if name in NUMERIC:
        return Means(name, [errors(name, m) for m in models])
    if match := PINBALL.fullmatch(name):
        return Means(name, [pinball(m, _within(match[1])) for m in models])
    if name in PROBABILISTIC:
        names = with_chance(models)
        # A squared distance of two distributions is 2 at most; with two classes it is halved.
        worst = (1.0 if len(names) <= 2 else 2.0) if name == "brier" else None
        return Means(name, [probabilistic(name, m, names) for m in models], worst)
    return Means(name, [scores(m) for m in models]) if name == "score" else None


def _within(quantile: str) -> float:
    at = float(quantile)
    if at == 0:
        raise ConfigError("pinball_<quantile> is of a quantile above 0, such as pinball_0.9")
    return at


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
