"""What the gate checks before it judges: that rule, report and predictions fit together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctflow.config.metric_names import is_known, is_lower_better
from ctflow.errors import ConfigError
from ctflow.gate.text import apart, plain, short

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Predictions

#: How far a reported metric may be from the one that the predictions give (rounding of float32).
TOLERANCE = 1e-6
MAX_SLICES = 200


def unsound(rule: GateRule, metrics: Mapping[str, Any], evidence: Predictions | None) -> str:
    """Why the metric cannot be trusted, or "": it must be a number, and what the evidence says.

    A rule over the champion, by or between slices, with a bound's confidence or of the project's
    own columns is computed from the predictions alone; the run need not report its metric, but what
    it reports must be true.
    """
    name = short(rule.metric)
    if rule.metric not in metrics:
        needed = not _is_computed(rule)
        return f"{name} is missing from the run's metrics" if needed else ""
    reported = number(metrics[rule.metric])
    if reported is None:
        return f"{name} is not a number"
    if not math.isfinite(reported):
        return f"{name} is {reported}"
    if evidence is None:
        return ""
    computed = _computed(rule, evidence)
    if computed is None:
        return ""
    if not math.isfinite(computed):
        return f"{name} is undefined on these predictions"
    if rule.weight and _is_near(reported, _computed(_unweighted(rule), evidence)):
        return ""  # the run may report either, with weights and without
    if not _is_near(reported, computed):
        a, b = apart(reported, computed)
        return f"{name} is reported as {a}, but the predictions give {b}"
    return ""


def _is_computed(rule: GateRule) -> bool:
    """Whether the metric is taken from the predictions, and not from the run's report."""
    return bool(rule.over or rule.by or rule.between or rule.is_sure or rule.of or rule.weight)


def unchecked(rule: GateRule, evidence: Predictions | None) -> str:
    """Why a metric that predictions can give cannot be checked against these, or ""."""
    from ctflow.gate.metrics.scores import measure

    if evidence is None or not is_known(rule.metric):
        return ""
    try:
        measure(rule.metric, [evidence], rule.positive, group=rule.group)
    except ConfigError as error:
        return f"{short(rule.metric)} is not checked against the predictions: {error}"
    return ""


def check_rule(rule: GateRule, evidence: Predictions) -> None:
    """Refuse a rule that these predictions can never answer.

    Raises:
        ConfigError: naming what they can.
    """
    from ctflow.gate.metrics.scores import computable, measure_of

    name = short(rule.metric)
    if rule.group is not None and rule.group not in evidence.columns:
        raise ConfigError(
            f"gate: the predictions have no column {rule.group!r} to group by",
            next=f"use one of {', '.join(map(short, evidence.columns))}",
        )
    for column in (rule.by, rule.between):
        if column is not None:
            _check_slices(column, evidence)
    if is_known(rule.metric) and rule.metric != "score" and rule.better is not None:
        known = "lower" if is_lower_better(rule.metric) else "higher"
        if rule.better != known:
            raise ConfigError(f"gate: {known} {name} is better, not {rule.better}")
    if rule.over is not None and rule.slices:
        raise ConfigError("gate: 'slices' are bounds; a rule over the champion has none")
    if _is_computed(rule):
        try:
            measure_of(rule, [evidence])
        except ConfigError as error:
            if rule.of is not None or rule.weight is not None:
                raise ConfigError(
                    f"gate: {name} cannot be computed from the predictions",
                    cause=error.fact,
                    next=error.next or "mend the rule, or the step that writes the predictions",
                ) from None
            raise ConfigError(
                f"gate: {name} cannot be computed from the predictions",
                cause=str(error),
                next=f"these can: {', '.join(computable(evidence))}",
            ) from None


def undefined(rule: GateRule, evidence: Predictions) -> str:
    """Why a function of the project cannot be compared by, or "".

    It is asked also where there is no champion yet: that it fails shall not be found by the second
    model only.

    Raises:
        CtflowError: it cannot be asked, or fails.
    """
    from ctflow.gate.metrics.scores import measure

    if rule.of is None or rule.of.function is None:
        return ""
    value = float(measure(rule.metric, [evidence], of=rule.of).values()[0])
    return "" if math.isfinite(value) else f"{short(rule.metric)} is undefined on these predictions"


def weight_note(rule: GateRule, evidence: Predictions) -> str:
    """What uneven weights cost."""
    from ctflow.gate.metrics.weights import effective, weights_of

    column = rule.weight or ""
    count = effective(weights_of([evidence], column))
    text = f"{len(evidence):,} examples weighted by {short(column)} tell as much as {count:,}"
    return plain(f"{short(rule.metric)}: {text} equal ones")


def _is_near(reported: float, computed: float | None) -> bool:
    if computed is None:
        return False
    return abs(reported - computed) <= TOLERANCE * max(1.0, abs(reported), abs(computed))


def _unweighted(rule: GateRule) -> GateRule:
    return rule.model_copy(update={"weight": None})


def _check_slices(column: str, evidence: Predictions) -> None:
    if column not in evidence.columns:
        raise ConfigError(
            f"gate: the predictions have no column {column!r} to slice by",
            next=f"use one of {', '.join(map(short, evidence.columns))}",
        )
    count = len(evidence.texts(column).distinct)
    if count > MAX_SLICES:
        raise ConfigError(
            f"gate: column {column!r} has {count} values, more than {MAX_SLICES} slices",
            next="slice by a column with fewer",
        )


def _computed(rule: GateRule, evidence: Predictions) -> float | None:
    """The rule's metric from the predictions; None where they do not give it."""
    from ctflow.gate.metrics.scores import measure_of

    if not (is_known(rule.metric) or rule.of):
        return None
    try:
        return float(measure_of(rule, [evidence]).values()[0])
    except ConfigError:
        return None


def number(value: Any) -> float | None:
    """A real number as a float (perhaps not finite); None for anything else, such as a bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are finite numbers."""
    found = ((name, number(value)) for name, value in metrics.items())
    return {name: value for name, value in found if value is not None and math.isfinite(value)}
