"""Bounds: a metric's value within ``min`` and ``max``, on all examples or on each slice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctflow.gate.reasons import judged_slices, no_slices, reason
from ctflow.gate.text import against, bound_text, plain, short
from ctflow.model import Reason

if TYPE_CHECKING:
    from ctflow.gate.predictions import Predictions
    from ctflow.gate_rules import GateRule


def bounded_slices(rule: GateRule, evidence: Predictions, notes: list[str]) -> Iterator[Reason]:
    from ctflow.gate.scores import measure

    metric = measure(rule.metric, [evidence], rule.positive)
    for value, rows in judged_slices(rule, evidence, notes):
        low, high = rule.min, rule.max
        if own := rule.slices.get(value):
            low = own.min if "min" in own.model_fields_set else low
            high = own.max if "max" in own.model_fields_set else high
        if low is None and high is None:
            notes.append(plain(f"{short(rule.metric)}, {rule.by}={short(value)}: no bounds"))
            continue
        found = float(metric.values(rows)[0])
        if math.isfinite(found):
            yield bounded(rule, found, low, high, value)
        else:
            yield reason(rule, "reject", f"{short(rule.metric)} is undefined here", value)
    yield from no_slices(rule, evidence)


def bounded(
    rule: GateRule, value: float, low: float | None, high: float | None, where: str | None = None
) -> Reason:
    parts: list[str] = []
    passes = True
    for bound, sign, broken, ok in (
        (low, ">=", "<", low is None or value >= low),
        (high, "<=", ">", high is None or value <= high),
    ):
        if bound is not None:
            passes &= ok
            parts.append(f"{against(value, bound)} {sign if ok else broken} {bound_text(bound)}")
    text = f"{short(rule.metric)} {' and '.join(parts)}"
    return reason(rule, "promote" if passes else "reject", text, where)
