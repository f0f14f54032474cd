"""How many examples would do: advice where the evidence shows neither, and plans before a training.

Power is the chance that the gate promotes a model whose true gain is as said. Sources: Connor,
Biometrics 43 (1987), for paired right or wrong answers (with the correction for continuity); for
everything else, an interval's width falls with the root of the number of examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from ctflow.config.metric_names import is_bounded, is_loss, is_lower_better, is_right_wrong
from ctflow.gate.intervals.significance import bisect, least_informative
from ctflow.gate.text import against, plain, short
from ctflow.model import Comparison, Estimate, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule

#: The power that advice and plans are for.
POWER = 0.8
#: How many slices one line names.
_NAMED = 3
#: From so many examples on, the number is not told.
_TOO_MANY = 10_000_000


def connor(differ: float, gain: float, confidence: float, power: float = POWER) -> float:
    """How many examples show a gain in paired right or wrong answers.

    As many at least as hold the fewest differences that the exact test can tell from chance.

    Args:
        differ: the share of the examples on which just one of the two models is right; not below
            the gain.
        gain: the true gain, above 0.
    """
    differ = max(differ, gain)
    a, b = _quantiles(confidence, power)
    root = a * math.sqrt(differ) + b * math.sqrt(max(differ - gain * gain, 0.0))
    return max((root / gain) ** 2 + 1 / gain, least_informative(confidence) / differ)


def least_gain(differ: float, examples: float, confidence: float, power: float = POWER) -> float:
    """The smallest gain in right or wrong answers that so many examples show, by ``connor``.

    Above 1, which no model can gain, where they are too few for any.
    """
    return bisect(lambda gain: connor(differ, gain, confidence, power) - examples, 1e-9, 2.0)


def scaled(examples: float, half: float, distance: float, confidence: float) -> float:
    """How many examples bring the interval's end so near that the limit is reached.

    Args:
        half: how far the interval's end is from the value, on ``examples``.
        distance: how far the value is from the limit, above 0.
    """
    return examples * (half * reach(confidence) / distance) ** 2


def reach(confidence: float, power: float = POWER) -> float:
    """How many half widths of the interval away a value must be, to be shown with that power."""
    a, b = _quantiles(confidence, power)
    return (a + b) / a


def one_share(value: float, bound: float, confidence: float, power: float = POWER) -> float:
    """How many right or wrong answers show a share to be beyond a bound.

    Source: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), the sample
    size for one proportion.
    """
    a, b = _quantiles(confidence, power)
    root = a * math.sqrt(bound * (1 - bound)) + b * math.sqrt(value * (1 - value))
    return (root / (value - bound)) ** 2


def _quantiles(confidence: float, power: float) -> tuple[float, float]:
    return normal((1 + confidence) / 2), normal(power)


def normal(level: float) -> float:
    """Quantile of the normal distribution."""
    return NormalDist().inv_cdf(level)


@dataclass(frozen=True)
class _Doubt:
    """What one reason that holds says about numbers of examples (of groups, where there are).

    Attributes:
        units: how many there are; None: not known.
        seen: the gain, or the value of a bound's metric.
        limit: what the gain is to be beyond.
        needed: how many would show it; infinite: no number.
        least: the smallest gain that those that are there show; None for a bound.
        is_small: whether they cannot say anything, as even the best model could not be shown.
    """

    where: str
    units: int | None
    seen: float = math.nan
    limit: float = math.nan
    needed: float = math.inf
    least: float | None = None
    is_small: bool = False


def advice(rule: GateRule, reasons: Iterable[Reason]) -> str:
    """One line on the reasons of a rule that hold as the evidence shows neither; "" without any."""
    doubts = [_doubt(rule, one) for one in reasons if one.decision == "hold"]
    units = "groups" if rule.group else "examples"
    if rule.by is not None:
        text = _by_slice(doubts, units)
        kind = f"{short(rule.metric)} by {short(rule.by)}"
    else:
        text = _whole(rule, doubts[0], units) if doubts else ""
        kind = short(rule.metric)
    return plain(f"{kind}: {text}") if text else ""


def _doubt(rule: GateRule, held: Reason) -> _Doubt:
    if held.estimate is not None:
        return _of_bound(rule, held.slice, held.estimate)
    if held.comparison is not None:
        return _of_gain(rule, held.slice, held.comparison)
    return _Doubt(held.slice, None, is_small=True)


def _of_gain(rule: GateRule, where: str, found: Comparison) -> _Doubt:
    limit = -rule.margin if rule.margin else rule.min_gain
    units = found.examples if found.groups is None else found.groups
    distance, half, level = found.gain - limit, found.gain - found.low, found.confidence
    best = best_gain(rule, found.champion)
    if found.p_value is not None and found.differ is not None and limit == 0:
        share = found.differ / units
        least = least_gain(share, units, level)
        needed = connor(share, distance, level) if distance > 0 else math.inf
        is_small = best <= 0 or connor(best, best, level) > units
    else:
        least = half * reach(level) + limit
        needed = scaled(units, half, distance, level) if distance > 0 else math.inf
        few = found.differ is not None and found.differ < least_informative(level)
        is_small = least > best or few
    return _Doubt(where, units, found.gain, limit, needed, least, is_small)


def _of_bound(rule: GateRule, where: str, found: Estimate) -> _Doubt:
    own = rule.slices.get(where)
    low = own.min if own and "min" in own.model_fields_set else rule.min
    high = own.max if own and "max" in own.model_fields_set else rule.max
    units = found.examples if found.groups is None else found.groups
    limit, needed = math.nan, 0.0
    for bound, distance, half in (
        (low, found.value - (low or 0.0), found.value - found.low),
        (high, (high or 0.0) - found.value, found.high - found.value),
    ):
        if bound is None or half <= distance:
            continue
        if distance <= 0:
            more = math.inf
        elif is_right_wrong(rule.metric) and not (rule.group or rule.weight):
            more = one_share(found.value, bound, found.confidence)
        else:
            more = scaled(units, half, distance, found.confidence)
        if more > needed:
            limit, needed = bound, more
    return _Doubt(where, units, found.value, limit, needed)


def best_gain(rule: GateRule, champion: float) -> float:
    """The most that any model can gain over the champion: what that lacks to be perfect."""
    if is_loss(rule.metric) or (rule.of and rule.of.is_nonnegative):
        return champion
    if is_bounded(rule.metric) or rule.metric == "r2":
        return champion if is_lower_better(rule.metric) else 1 - champion
    return math.inf


def _whole(rule: GateRule, doubt: _Doubt, units: str) -> str:
    power = f"with {POWER:.0%} power"
    if doubt.units is None:
        return ""  # the reason says what there is too little of
    if doubt.least is None:
        if math.isinf(doubt.needed):
            return f"what was seen is beyond the bound, so more {units} are not expected to help"
        return f"{power} {number(doubt.needed)} {units} show this value"
    least = f"on these {doubt.units:,} the smallest that shows is {against(doubt.least, 0.0)}"
    if math.isinf(doubt.needed):
        asked = against(doubt.limit, 0.0) if doubt.limit else "0"
        seen = f"no gain above {asked} was seen, so more {units} are not expected to show one"
        return f"{seen}; {least}, {power}"
    word = "gain" if doubt.seen >= 0 else "loss"
    shows = "shows to be within the margin" if rule.margin else "shows"
    seen = f"a {word} of {against(abs(doubt.seen), 0.0)} {shows} {power}"
    return f"{seen} on {number(doubt.needed)} {units}; {least}"


def _by_slice(doubts: Sequence[_Doubt], units: str) -> str:
    small = [one for one in doubts if one.is_small]
    more = [one for one in doubts if not one.is_small and math.isfinite(one.needed)]
    none = [one for one in doubts if not one.is_small and math.isinf(one.needed)]
    parts = []
    if more:
        more.sort(key=lambda one: -one.needed)
        each = _few([f"{name(d.where)} {number(d.needed)} (has {d.units:,})" for d in more])
        parts.append(f"{units} needed to show what was seen with {POWER:.0%} power: {each}")
    if none:
        each = _few([name(one.where) for one in none])
        parts.append(f"more are not expected to help: {each}")
    if small:
        each = _few([named(one.where, one.units) for one in small])
        parts.append(f"too small to say anything: {each}")
    return "; ".join(parts)


def named(where: str, units: int | None) -> str:
    """A slice with its size, where that is known."""
    return name(where) if units is None else f"{name(where)} ({units:,})"


def _few(names: Sequence[str]) -> str:
    left = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {left} more" if left > 0 else "")


def name(value: str) -> str:
    """A slice's value, for people."""
    return short(value) or "(empty)"


def number(count: float) -> str:
    """A number of examples that is an estimate, to two digits, rounded up."""
    if not count < _TOO_MANY:
        return f"more than {_TOO_MANY:,}"
    return f"about {rounded_up(count)}"


def rounded_up(count: float) -> str:
    """A number with two digits that are not 0."""
    step = 10 ** max(math.floor(math.log10(max(count, 1.0))) - 1, 0)
    return f"{math.ceil(count / step) * step:,}"
