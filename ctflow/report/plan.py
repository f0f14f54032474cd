"""The report of a plan: what each rule can show on the examples that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ctflow.gate.planning import rounded_up
from ctflow.gate.plans import Plan, RulePlan, SlicePlan
from ctflow.gate.text import against
from ctflow.lib.digests import short
from ctflow.report.blocks import Block, Bullets, Heading, Paragraph, Table

#: So many slices are shown, the smallest first.
_MAX_SLICES = 10


def plan_report(plan: Plan) -> list[Block]:
    """What the evaluation sets can show over the champion, a section a rule."""
    champion = f"champion {short(plan.champion)} of run {plan.run}"
    blocks: list[Block] = [
        Heading(1, f"{plan.environment}: what can be shown over {champion}"),
        Paragraph(
            f"The smallest gain that is shown with {plan.power:.0%} power, and how many examples"
            " smaller ones need. How much a new model will differ is a guess, or what the"
            " champion's own verdict saw."
        ),
    ]
    for rule in plan.rules:
        blocks += _rule(rule)
    blocks += [Paragraph(note) for note in plan.notes]
    return blocks


def _rule(plan: RulePlan) -> Iterator[Block]:
    by = f" by {plan.by}" if plan.by else ""
    yield Heading(2, f"{plan.metric} over champion{by}, {plan.predictions}")
    if plan.missing:
        yield Paragraph(f"nothing can be said: {plan.missing}")
        return
    units = f"{plan.examples:,} examples"
    if plan.groups is not None:
        units += f" in {plan.groups:,} groups"
    best = f", so {_figure(plan.best)} is left to gain" if plan.best is not None else ""
    yield Paragraph(
        f"champion {_figure(plan.value)} on {units}{best};"
        f" {100 * plan.confidence:.4g}% confidence{_asked(plan)}"
    )
    what = "groups" if plan.groups is not None else "examples"
    gains = [_figure(gain) for gain in plan.gains]
    header = (
        "if the two models",
        "shown from",
        *(f"{what} for {gain}" if place == 0 else gain for place, gain in enumerate(gains)),
    )
    rows = tuple(
        (one.text, _least(one.least), *(_count(count) for count in one.needed))
        for one in plan.assumed
    )
    yield Table(header, rows, frozenset(range(1, len(header))))
    if plan.slices:
        yield from _slices(plan)


def _slices(plan: RulePlan) -> Iterator[Block]:
    judged = sorted((one for one in plan.slices if one.is_judged), key=lambda one: one.examples)
    header = (
        plan.by or "",
        "examples",
        "champion",
        *(f"if they {one.text}" for one in plan.assumed),
    )
    rows = tuple(
        (
            one.slice or "(empty)",
            f"{one.examples:,}",
            _figure(one.value),
            *(_least(least) for least in one.least),
        )
        for one in judged[:_MAX_SLICES]
    )
    if rows:
        yield Table(header, rows, frozenset(range(1, len(header))))
    said = []
    if len(judged) > _MAX_SLICES:
        said.append(f"and {len(judged) - _MAX_SLICES} larger slices")
    if small := [one for one in judged if one.is_small]:
        said.append(f"too small to show any gain: {_named(small)}")
    if few := [one for one in plan.slices if not one.is_judged]:
        said.append(f"smaller than min_examples, so not judged: {_named(few)}")
    if said:
        yield Bullets(tuple(said))


def _named(slices: Sequence[SlicePlan]) -> str:
    names = [f"{one.slice or '(empty)'} ({one.examples:,})" for one in slices[:_MAX_SLICES]]
    left = len(slices) - len(names)
    return ", ".join(names) + (f" and {left} more" if left else "")


def _asked(plan: RulePlan) -> str:
    if plan.limit > 0:
        return f", a gain of {plan.limit:g} or more is asked"
    return f", within a margin of {-plan.limit:g}" if plan.limit < 0 else ""


def _figure(value: float | None) -> str:
    return "-" if value is None else against(value, 0.0)


def _least(least: float | None) -> str:
    return "none" if least is None else against(least, 0.0)


def _count(count: int | None) -> str:
    return "-" if count is None else rounded_up(count)
