"""Bounds: a metric within ``min`` and ``max``, on all examples or on each slice.

A bound is compared with the metric itself; one that says a ``confidence``, with its whole interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.gate.gains import by_slice
from ctflow.gate.reasons import judged_slices, no_slices, reason
from ctflow.gate.text import against, bound_text, plain, short
from ctflow.model import Decision, Estimate, Reason, worst

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Ints, Predictions
    from ctflow.gate.single import Single

#: A bound, and whether it is the least that passes (else the greatest).
_Bound = tuple[float, bool]


def bounded(
    rule: GateRule, reported: float | None, evidence: Predictions | None, seed: int
) -> Reason:
    """The reason of a bound on all examples.

    ``reported`` is the run's metric, which the evidence bears out where it gives the metric.
    """
    found = None
    if evidence is not None and (single := _single(rule, evidence, seed)):
        found = single.estimate(rule.confidence, None, len(evidence))
    value = found.value if found and (rule.is_sure or reported is None) else reported
    if value is None or not math.isfinite(value):
        return reason(rule, "reject", f"{short(rule.metric)} is undefined on these predictions")
    return within(rule, value, _bounds(rule.min, rule.max), found)


def bounded_slices(
    rule: GateRule, evidence: Predictions, notes: list[str], seed: int
) -> Iterator[Reason]:
    """The reason of each slice that is large enough and has bounds."""
    single = _single(rule, evidence, seed)
    bounds: dict[str, list[_Bound]] = {}
    judged: dict[str, Ints] = {}
    for value, rows in judged_slices(rule, evidence, notes):
        low, high = rule.min, rule.max
        if own := rule.slices.get(value):
            low = own.min if "min" in own.model_fields_set else low
            high = own.max if "max" in own.model_fields_set else high
        if low is None and high is None:
            notes.append(plain(f"{short(rule.metric)}, {rule.by}={short(value)}: no bounds"))
            continue
        bounds[value], judged[value] = _bounds(low, high), rows

    def asked(rule: GateRule, rows: Ints, where: str) -> Reason:
        found = single.estimate(rule.confidence, rows, len(rows)) if single else None
        if found is None or not math.isfinite(found.value):
            return reason(rule, "reject", f"{short(rule.metric)} is undefined here", where)
        return within(rule, found.value, bounds[where], found, where)

    if rule.is_sure:
        yield from by_slice(rule, judged, asked)
    else:
        yield from (asked(rule, rows, value) for value, rows in judged.items())
    yield from no_slices(rule, evidence)


def _single(rule: GateRule, evidence: Predictions, seed: int) -> Single | None:
    """None where the predictions do not give the metric, which a bound may do without.

    Raises:
        ConfigError: it may not, as it says a confidence, or what the metric is computed of.
    """
    from ctflow.gate.single import single_of

    try:
        return single_of(rule, evidence, seed)
    except ConfigError:
        if rule.is_sure or rule.of or rule.weight:
            raise
        return None


def _bounds(low: float | None, high: float | None) -> list[_Bound]:
    return [(one, is_least) for one, is_least in ((low, True), (high, False)) if one is not None]


def within(
    rule: GateRule,
    value: float,
    bounds: list[_Bound],
    found: Estimate | None,
    where: str | None = None,
    name: str = "",
    more: str = "",
) -> Reason:
    """The reason of a value that is to be within bounds.

    Args:
        found: its interval; None: it has none.
        where: the slice; None: all examples.
        name: what people call the value; else the rule's metric.
        more: what else is to be said of it.
    """
    limits = [bound for bound, _ in bounds]
    is_finite = found is not None and math.isfinite(found.low) and math.isfinite(found.high)
    interval = f" ({_interval(found, limits)})" if found is not None and is_finite else ""
    if rule.is_sure and found is not None:
        decision, says = _sure(found, bounds)
        text = f"{against(value, *limits)}{interval}, {says}"
        if not is_finite:
            text += f": {found.method}"
    else:
        passes = [value >= bound if is_least else value <= bound for bound, is_least in bounds]
        decision = "promote" if all(passes) else "reject"
        text = " and ".join(
            f"{against(value, bound)} {_sign(is_least, ok)} {bound_text(bound)}"
            for (bound, is_least), ok in zip(bounds, passes, strict=True)
        )
        text += interval
    estimate = found if is_finite else None
    name = name or short(rule.metric)
    return reason(rule, decision, f"{name} {text}{more}", where, None, estimate)


def _sign(is_least: bool, ok: bool) -> str:
    if is_least:
        return ">=" if ok else "<"
    return "<=" if ok else ">"


def _sure(found: Estimate, bounds: list[_Bound]) -> tuple[Decision, str]:
    """What the whole interval says of each bound: kept, broken, or neither is shown."""
    decisions: list[Decision] = []
    parts = []
    for bound, is_least in bounds:
        kept = found.low >= bound if is_least else found.high <= bound
        broken = found.high < bound if is_least else found.low > bound
        decisions.append("promote" if kept else "reject" if broken else "hold")
        word = "shown" if kept or broken else "not shown"
        parts.append(f"{word} to be {_sign(is_least, not broken)} {bound_text(bound)}")
    return worst(decisions), " and ".join(parts)


def _interval(found: Estimate, limits: list[float]) -> str:
    low, high = (against(end, *limits) for end in (found.low, found.high))
    groups = f", {found.groups} groups" if found.groups is not None else ""
    return f"{100 * found.confidence:g}% CI {low} to {high}{groups}"
