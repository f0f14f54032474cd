"""What the gate says of one rule: a reason, for all examples or for one slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctflow.gate.text import MAX_NAME, plain, short
from ctflow.model import Comparison, Decision, Estimate, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Ints, Predictions


def reason(
    rule: GateRule,
    decision: Decision,
    text: str,
    where: str | None = None,
    comparison: Comparison | None = None,
    estimate: Estimate | None = None,
) -> Reason:
    kind = f"{rule.metric} over champion" if rule.over else rule.metric
    if rule.data is not None:
        kind += f" of {rule.data if rule.column is None else rule.column}"
    if rule.by is not None:
        kind += f" by {rule.by}"
    if rule.between is not None:
        kind += f" between {rule.between}"
    if where is not None:
        text = f"{rule.by}={short(where) or '(empty)'}: {text}"
    value = (where or "")[:MAX_NAME]
    return Reason(plain(kind), decision, plain(text), value, comparison, estimate)


def judged_slices(
    rule: GateRule, evidence: Predictions, notes: list[str]
) -> Iterator[tuple[str, Ints]]:
    column = rule.by or rule.between or ""
    for value, rows in evidence.slices(column).items():
        if len(rows) < rule.min_examples:
            few = f"{len(rows)} examples, fewer than {rule.min_examples}: not judged"
            notes.append(plain(f"{short(rule.metric)}, {column}={short(value)}: {few}"))
        else:
            yield value, rows


def no_slices(rule: GateRule, evidence: Predictions) -> Iterator[Reason]:
    sizes = {value: len(rows) for value, rows in evidence.slices(rule.by or "").items()}
    if all(size < rule.min_examples for size in sizes.values()):
        yield reason(rule, "reject", f"no slice by {rule.by} has {rule.min_examples} examples")
    for value in rule.slices:
        if value not in sizes:
            yield reason(rule, "reject", "no examples of this slice", value)
