"""What an evaluation set can show, before there is a challenger: from the champion's predictions.

How much two models disagree decides what a set can show, and only one of them is there. Where the
champion's own verdict compared models by this rule, theirs is taken; else there are two guesses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctflow.config.metric_names import (
    AGREEMENT,
    BY_CLASS,
    RIGHT_WRONG,
    is_bounded,
    is_loss,
    is_right_wrong,
)
from ctflow.errors import ConfigError, StateError
from ctflow.gate.checks import check_rule
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.intervals.significance import least_informative
from ctflow.gate.metrics.scores import measure
from ctflow.gate.planning import best_gain, connor, least_gain, normal, reach, scaled
from ctflow.gate.single import Single, single_of
from ctflow.model import Comparison, Estimate

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule

#: Gains of a metric within 0 and 1: half a point, one, two.
POINTS = (0.005, 0.01, 0.02)
#: Gains of a loss, as shares of the champion's.
SHARES = (0.05, 0.1, 0.2)
#: Two models may differ on so many of the examples.
DIFFER = (0.05, 0.1)
#: The losses of two models may correlate so much.
CORRELATED = (0.9, 0.7)


@dataclass(frozen=True)
class Assumed:
    """What follows if the two models do as ``text`` says.

    Attributes:
        least: the smallest gain that the set shows; None: none that a model can have.
        needed: how many examples (groups) each of the plan's gains needs; None: more than the
            champion lacks to be perfect.
    """

    text: str
    least: float | None
    needed: tuple[int | None, ...]


@dataclass(frozen=True)
class SlicePlan:
    """A slice of the champion's: ``least`` by each assumption, as in ``Assumed``.

    ``is_small`` where it could show no gain, not even of a perfect model.
    """

    slice: str
    examples: int
    value: float | None
    least: tuple[float | None, ...] = ()
    is_small: bool = False
    is_judged: bool = True


@dataclass(frozen=True)
class RulePlan:
    """What one rule can show on one output's examples.

    Attributes:
        limit: what the gain must be beyond, in the metric's unit.
        value: the champion's.
        best: the most that a model can gain; None: there is no end to it.
        gains: those that ``assumed`` counts examples for.
        missing: why nothing can be said; empty: it can.
    """

    metric: str
    predictions: str
    confidence: float
    limit: float
    by: str | None = None
    value: float | None = None
    best: float | None = None
    examples: int = 0
    groups: int | None = None
    gains: tuple[float, ...] = ()
    assumed: tuple[Assumed, ...] = ()
    slices: tuple[SlicePlan, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Plan:
    """What each rule over an environment's champion can show.

    ``champion`` is its digest; ``notes`` say of other rules why they have no plan.
    """

    environment: str
    champion: str
    run: str
    power: float
    rules: tuple[RulePlan, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Guess:
    """How the two models differ.

    Attributes:
        share: of right or wrong answers, on how many of the examples just one is right.
        factor: of anything else, the gain's interval as a multiple of the champion's own.
    """

    text: str
    share: float | None = None
    factor: float = 1.0


def plan_rule(
    rule: GateRule, predictions: Predictions, before: Sequence[Comparison] = ()
) -> RulePlan:
    """What a rule over the champion can show on these examples.

    Args:
        predictions: the champion's.
        before: what the champion's own verdict compared by such a rule: all examples, or slices.
    """
    limit = _limit(rule)
    said = replace(no_plan(rule, ""), examples=len(predictions))
    try:
        check_rule(rule, predictions)
        single = single_of(rule, predictions)
        found = single.estimate(rule.confidence, None, len(predictions))
    except (ConfigError, StateError) as error:
        return replace(said, missing=error.message())
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return replace(said, missing=found.method)
    best = best_gain(rule, found.value)
    finite = best if math.isfinite(best) else None
    said = replace(said, value=found.value, best=finite, groups=found.groups)
    if best <= 0:
        return replace(said, missing="the champion is perfect on these examples")
    guesses = _seen(rule, found, before) or _guessed(rule, predictions)
    gains = _gains(rule, found.value, limit)
    return replace(
        said,
        gains=gains,
        assumed=tuple(_assumed(rule, found, limit, guess, gains) for guess in guesses),
        slices=tuple(_slices(rule, single, predictions, limit, guesses)),
    )


def no_plan(rule: GateRule, why: str) -> RulePlan:
    """A rule of which nothing can be said."""
    output = rule.predictions or ""
    return RulePlan(rule.metric, output, rule.confidence, _limit(rule), rule.by, missing=why)


def _limit(rule: GateRule) -> float:
    return -rule.margin if rule.margin else rule.min_gain


def _gains(rule: GateRule, value: float, limit: float) -> tuple[float, ...]:
    """The gains to count examples for: beyond what is asked; with a margin, from none on."""
    in_points = (is_bounded(rule.metric) and not is_loss(rule.metric)) or rule.metric == "r2"
    steps = POINTS if in_points else tuple(share * abs(value) for share in SHARES)
    steps = tuple(step for step in steps if step > 0)
    return (0.0, *steps[:-1]) if limit < 0 else tuple(limit + step for step in steps)


def _seen(rule: GateRule, found: Estimate, before: Sequence[Comparison]) -> list[_Guess]:
    """How the models differed that the champion's own verdict compared."""
    differ = [(one.differ, one.examples) for one in before if one.differ is not None]
    if _counts(rule):
        share = sum(count for count, _ in differ) / max(sum(n for _, n in differ), 1)
        text = f"differ on {_percent(share)} (as last time)"
        return [_Guess(text, share)] if share > 0 else []
    if len(before) != 1 or found.high == found.low:
        return []
    (one,) = before
    then, now = (x.examples if x.groups is None else x.groups for x in (one, found))
    half = (one.high - one.low) / 2 * math.sqrt(then / now)
    half *= normal((1 + found.confidence) / 2) / normal((1 + one.confidence) / 2)
    if not half > 0:
        return []
    return [_Guess("differ as last time", factor=half / ((found.high - found.low) / 2))]


def _guessed(rule: GateRule, predictions: Predictions) -> list[_Guess]:
    """Two guesses. Two models that are right as often differ on no more than twice their errors."""
    is_of_answers = is_right_wrong(rule.metric) or rule.metric in AGREEMENT
    is_of_answers = is_of_answers or rule.metric == "balanced_accuracy"
    if not is_of_answers and BY_CLASS.fullmatch(rule.metric) is None:
        return [
            _Guess(f"correlate by {one:g} (a guess)", factor=math.sqrt(2 * (1 - one)))
            for one in CORRELATED
        ]
    top_k = is_right_wrong(rule.metric) and rule.metric not in RIGHT_WRONG
    right = float(measure(rule.metric if top_k else "accuracy", [predictions]).values()[0])
    most, spread = min(2 * (1 - right), 1.0), right * (1 - right)
    return [
        _Guess(
            f"differ on {_percent(share)} (a guess)",
            share if _counts(rule) else None,
            math.sqrt(share / spread) if spread > 0 else 1.0,
        )
        for share in sorted({min(share, most) for share in DIFFER} - {0.0})
    ]


def _counts(rule: GateRule) -> bool:
    """Whether Connor's formula is the rule's: right or wrong, and no groups."""
    return (
        is_right_wrong(rule.metric) and not (rule.group or rule.weight) and rule.test != "bootstrap"
    )


def _assumed(
    rule: GateRule, found: Estimate, limit: float, guess: _Guess, gains: Sequence[float]
) -> Assumed:
    units = found.examples if found.groups is None else found.groups
    best = best_gain(rule, found.value)
    least = _least(found, limit, guess)
    needed = [
        math.ceil(_needed(found, units, limit, guess, gain)) if gain <= best else None
        for gain in gains
    ]
    return Assumed(guess.text, least if least <= best else None, tuple(needed))


def _half(found: Estimate, guess: _Guess) -> float:
    """Half the width of the gain's interval on the examples of an estimate."""
    if guess.share is not None:
        return normal((1 + found.confidence) / 2) * math.sqrt(guess.share / found.examples)
    return guess.factor * (found.high - found.low) / 2


def _least(found: Estimate, limit: float, guess: _Guess) -> float:
    if guess.share is not None and limit == 0:
        return least_gain(guess.share, found.examples, found.confidence)
    return _half(found, guess) * reach(found.confidence) + limit


def _needed(found: Estimate, units: int, limit: float, guess: _Guess, gain: float) -> float:
    if guess.share is not None and limit == 0:
        return connor(guess.share, gain, found.confidence)
    needed = scaled(units, _half(found, guess), gain - limit, found.confidence)
    return max(needed, least_informative(found.confidence))


def _slices(
    rule: GateRule,
    single: Single,
    predictions: Predictions,
    limit: float,
    guesses: Sequence[_Guess],
) -> Iterator[SlicePlan]:
    for value, rows in (predictions.slices(rule.by) if rule.by else {}).items():
        if len(rows) < rule.min_examples:
            yield SlicePlan(value, len(rows), None, is_judged=False)
            continue
        found = single.estimate(rule.confidence, rows, len(rows))
        if not (math.isfinite(found.low) and math.isfinite(found.high)):
            yield SlicePlan(value, len(rows), None, (None,) * len(guesses), is_small=True)
            continue
        best = best_gain(rule, found.value)
        least = [_least(found, limit, guess) for guess in guesses]
        shown = tuple(one if one <= best else None for one in least)
        if _counts(rule) and limit == 0:
            is_small = best <= 0 or connor(best, best, rule.confidence) > len(rows)
        else:
            is_small = all(one is None for one in shown)
        yield SlicePlan(value, len(rows), found.value, shown, is_small)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
