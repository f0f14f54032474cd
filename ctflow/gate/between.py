"""Fairness between slices: how far apart their metrics are, such as the recall of two groups.

Source: Zou and Donner, Statistics in Medicine 27 (2008): the interval of a difference from those of
its parts (MOVER), which are of different examples; of two shares, from Wilson's, it is Newcombe's
(Statistics in Medicine 17 (1998), 873-890, method 10).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from ctflow.gate.reasons import judged_slices, reason
from ctflow.gate.text import against, bound_text, short
from ctflow.model import Decision, Estimate, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Ints, Predictions
    from ctflow.gate.single import Single


@dataclass(frozen=True)
class _Pair:
    """Two slices, and how far the metric of the first is above that of the second."""

    names: tuple[str, str]
    values: tuple[float, float]
    low: float
    high: float

    @property
    def distance(self) -> float:
        return self.values[0] - self.values[1]

    @property
    def most(self) -> float:
        """How far apart they may be at most, whichever is above."""
        return max(self.high, -self.low)


def apart(rule: GateRule, evidence: Predictions, notes: list[str], seed: int) -> Reason:
    """The reason of a rule between slices; it names the pair that decides.

    With a confidence every pair's interval must be within ``max``, so their number lets nothing
    more through; it rejects where a pair's is beyond it after Holm's correction.
    """
    from ctflow.gate.single import single_of

    slices = dict(judged_slices(rule, evidence, notes))
    if len(slices) < 2:
        need = f" of {rule.min_examples} examples" if rule.min_examples > 1 else ""
        return reason(rule, "reject", f"there are no two slices by {rule.between}{need}")
    single = single_of(rule, evidence, seed)
    found = _estimates(single, slices, rule.confidence)
    undefined = [name for name, one in found.items() if not math.isfinite(one.value)]
    if undefined:
        text = f"{short(rule.metric)} is undefined for {rule.between}={_shown(undefined[0])}"
        return reason(rule, "reject", text)
    pairs = list(_pairs(found))
    limit = rule.max or 0.0
    if not rule.is_sure:
        pair = max(pairs, key=lambda one: one.distance)
        passes = pair.distance <= limit
        sign = "<=" if passes else ">"
        return _said(rule, "promote" if passes else "reject", pair, f" {sign} {bound_text(limit)}")
    beyond = [pair for pair in pairs if pair.low > limit]
    shown = _still_beyond(single, slices, beyond, rule.confidence, limit, len(pairs))
    if shown:
        pair = max(shown, key=lambda one: one.low)
        return _said(rule, "reject", pair, "", f", shown to be > {bound_text(limit)}")
    pair = max(beyond or pairs, key=lambda one: one.low if beyond else one.most)
    if not beyond and pair.most <= limit:
        return _said(rule, "promote", pair, "", f", shown to be <= {bound_text(limit)}")
    chance = f", which may be chance among {len(pairs)} pairs" if beyond else ""
    return _said(rule, "hold", pair, "", f", not shown to be <= {bound_text(limit)}{chance}")


def _estimates(
    single: Single, slices: Mapping[str, Ints], confidence: float
) -> dict[str, Estimate]:
    return {name: single.estimate(confidence, rows, len(rows)) for name, rows in slices.items()}


def _pairs(found: Mapping[str, Estimate]) -> Iterator[_Pair]:
    for pair in combinations(found, 2):
        second, first = sorted(pair, key=lambda name: found[name].value)
        above, below = found[first], found[second]
        distance = above.value - below.value
        yield _Pair(
            (first, second),
            (above.value, below.value),
            distance - math.hypot(above.value - above.low, below.high - below.value),
            distance + math.hypot(above.high - above.value, below.value - below.low),
        )


def _still_beyond(
    single: Single,
    slices: Mapping[str, Ints],
    beyond: Sequence[_Pair],
    confidence: float,
    limit: float,
    pairs: int,
) -> list[_Pair]:
    """The pairs that are beyond the limit also at a level that allows for the number of all.

    It is Holm's first step; as one pair is enough to reject, there is no second.
    """
    level = 1 - (1 - confidence) / pairs
    some = {name: slices[name] for pair in beyond for name in pair.names}
    strict = {one.names for one in _pairs(_estimates(single, some, level)) if one.low > limit}
    return [pair for pair in beyond if pair.names in strict]


def _said(rule: GateRule, decision: Decision, pair: _Pair, sign: str, tail: str = "") -> Reason:
    limit = rule.max or 0.0
    first, second = (
        f"{against(value, limit)} ({_shown(name)})"
        for name, value in zip(pair.names, pair.values, strict=True)
    )
    distance = against(pair.distance, limit)
    interval = ""
    if math.isfinite(pair.low) and math.isfinite(pair.high):
        low, high = against(pair.low, limit), against(pair.high, limit)
        interval = f" ({100 * rule.confidence:g}% CI {low} to {high})"
    text = f"{short(rule.metric)} {first} and {second}: {distance} apart{sign}{interval}{tail}"
    return reason(rule, decision, text)


def _shown(name: str) -> str:
    return short(name) or "(empty)"
