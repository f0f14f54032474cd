"""Gains over the champion: what a paired comparison says to a rule, by itself or by slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.gate.reasons import reason
from ctflow.gate.text import against, apart, plain, short, signed
from ctflow.model import Comparison, Decision, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.comparison import Paired
    from ctflow.gate.files.predictions import Ints


def compared(
    rule: GateRule,
    paired: Paired,
    rows: Ints | None,
    size: int,
    where: str | None = None,
    over: str = "champion",
) -> Reason:
    name = short(rule.metric)
    if why := paired.flaw(rows, over):
        return reason(rule, "reject", f"{name}: {why}", where)
    limit = -rule.margin if rule.margin else rule.min_gain
    found = paired.compare(rule.confidence, rows, size, limit)
    if not (math.isfinite(found.challenger) and math.isfinite(found.champion)):
        return reason(rule, "reject", f"{name} is undefined on these predictions", where)
    moved = _moved(rule, found, over)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return reason(rule, "hold", f"{name} {moved}, not shown: {found.method}", where)
    decision, why = _decide(rule, found)
    limits = (0.0, rule.min_gain, -rule.margin)
    low, high = (against(end, *limits) for end in (found.low, found.high))
    of = " of the gain" if rule.falls else ""
    groups = f", {found.groups} groups" if found.groups is not None else ""
    text = f"{name} {moved} ({100 * rule.confidence:g}% CI{of} {low} to {high}{groups}){why}"
    return reason(rule, decision, text, where, found)


def compared_slices(
    rule: GateRule, paired: Paired, slices: Mapping[str, Ints], over: str = "champion"
) -> list[Reason]:
    """Each slice's reason; one that is worse rejects only if it is so after Holm's correction."""
    return by_slice(
        rule, slices, lambda one, rows, where: compared(one, paired, rows, 0, where, over)
    )


def by_slice(
    rule: GateRule, slices: Mapping[str, Ints], asked: Callable[[GateRule, Ints, str], Reason]
) -> list[Reason]:
    """Each slice's reason; to reject, it must do so after Holm's correction too.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the k-th worst of m slices is tested
    at the level over m - k + 1, until one is not shown to be worse.
    """
    found = {value: asked(rule, rows, value) for value, rows in slices.items()}
    doubtful = {
        value
        for value, reason in found.items()
        if reason.decision == "reject" and (reason.comparison or reason.estimate)
    }
    left = len(found)
    while doubtful:
        level = rule.model_copy(update={"confidence": 1 - (1 - rule.confidence) / left})
        shown = {
            value for value in doubtful if asked(level, slices[value], value).decision == "reject"
        }
        if not shown:
            break
        doubtful -= shown
        left -= len(shown)
    for value in doubtful:
        text = f"{found[value].text}, which may be chance among {len(found)} slices"
        found[value] = replace(found[value], decision="hold", text=plain(text))
    return list(found.values())


def _moved(rule: GateRule, found: Comparison, over: str) -> str:
    """The gain in words: a plus sign beside a figure that fell would be read as its opposite."""
    if not rule.falls:
        return f"{signed(found.gain)} over {over}"
    if found.gain == 0:
        return f"{against(found.challenger, 0.0)}, as the {over}'s"
    ours, theirs = apart(found.challenger, found.champion)
    way = "lower, so better," if found.gain > 0 else "higher, so worse,"
    return f"{ours}, {against(abs(found.gain), 0.0)} {way} than the {over}'s {theirs}"


def _decide(rule: GateRule, found: Comparison) -> tuple[Decision, str]:
    """The decision, and what of it the interval does not say by itself."""
    limit = -rule.margin if rule.margin else rule.min_gain
    shown = found.low > 0 if limit == 0 else found.low >= limit
    worse = found.high < min(limit, 0.0)
    if rule.margin:
        says = ("within", "not shown within", "outside")
        inside, unsure, outside = (f", {word} the margin of {rule.margin:g}" for word in says)
    elif rule.min_gain:
        inside = f", at least {rule.min_gain:g}"
        unsure, outside = f", not shown to be at least {rule.min_gain:g}", ": worse"
    else:
        inside, unsure, outside = "", ": not shown better", ": worse"
    significant = found.p_value is None or limit != 0 or found.p_value < 1 - rule.confidence
    if shown and significant:
        return "promote", inside
    return ("reject", outside) if worse else ("hold", unsure)
