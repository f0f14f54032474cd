"""Rules on the data that a model was trained on: its schema, and how far a column is from before.

How far it is counts, and never whether the difference is significant: with enough rows any is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ctflow.config.data_rules import MISSING, SCHEMA
from ctflow.gate.bounds import within
from ctflow.gate.files.columns import EMPTY, NUMBER, OTHER, TEXT, DataColumn
from ctflow.gate.files.predictions import shown
from ctflow.gate.intervals.drift import Distribution, binned, edges_of, ks, psi
from ctflow.gate.intervals.limits import share_interval
from ctflow.gate.reasons import reason
from ctflow.gate.text import short
from ctflow.model import Estimate, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.tables import DataTable
    from ctflow.gate.intervals.drift import Ints
    from ctflow.gate.summaries import ColumnSummary, DataSummary

#: Numbers are in so many bins: deciles of the champion's.
BINS = 10
#: A text that makes up this share of the champion's is a bin of its own, if so many are not yet.
LEAST_SHARE, MOST_BINS = 0.01, 20
PSI_METHOD = "the noncentral chi-square's or the delta method's variance, whichever is larger"
KS_METHOD = "pointwise normal above, Massart's band below"
#: So many columns are named where a schema is not kept.
_NAMED = 5


@dataclass(frozen=True)
class Unknown:
    """Nothing of the champion's data is known: ``why``, with the next step."""

    why: str


def named(rule: GateRule) -> str:
    """A rule on data in a few words: ``psi of age``."""
    return short(f"{rule.metric} of {rule.data if rule.column is None else rule.column}")


def data_reason(
    rule: GateRule, ours: DataTable, theirs: DataSummary | Unknown | None
) -> Reason | str:
    """The reason of a rule, or in words why there is none.

    Args:
        ours: the challenger's data: the rule's column, or the kinds of all.
        theirs: the champion's; None: there is no champion yet.
    """
    if rule.metric == SCHEMA and rule.columns:
        return _schema(rule, ours, rule.columns, "")
    column = None if rule.metric == SCHEMA else _column(rule, ours)
    if isinstance(column, Reason):
        return column
    if column is not None and rule.metric == MISSING:
        return _missing(rule, column)
    if theirs is None:
        return f"{named(rule)}: no champion yet, so there is no data to compare with"
    if isinstance(theirs, Unknown):
        return reason(rule, "hold", f"{named(rule)} is not known: {theirs.why}")
    if column is None:
        if not theirs.whole:
            return _unknown(rule, "the champion's schema")
        kinds = {name: column.kind for name, column in theirs.columns.items()}
        return _schema(rule, ours, kinds, "the champion's ")
    name = rule.column or ""
    before = theirs.columns.get(name)
    if before is None or not before.detailed:
        return _unknown(rule, f"column {shown(name)} of the champion's data")
    return _drift(rule, column, before, theirs.rows)


def _unknown(rule: GateRule, what: str) -> Reason:
    return reason(
        rule, "hold", f"{named(rule)} is not known: the summary is without {what}; {NEXT}"
    )


#: What helps where the champion's data is not known.
NEXT = "let a model in with --override --reason, whose summary is kept"


def _schema(rule: GateRule, ours: DataTable, wanted: Mapping[str, str], whose: str) -> Reason:
    faults = []
    for name, kind in wanted.items():
        found = ours.kinds.get(name)
        if found is None:
            faults.append(f"no column {_quoted(name)}{_near(name, ours.names)}")
        elif found != kind and kind != EMPTY:
            faults.append(f"{_quoted(name)} is {_is(found)}, not {_is(kind)}")
    extra = [name for name in ours.names if name not in wanted]
    said = f"{whose}{len(wanted):,} columns" if len(wanted) != 1 else f"{whose}1 column"
    if not faults:
        more = f"; new: {_few([_quoted(name) for name in extra])}" if extra and whose else ""
        return reason(rule, "promote", f"{named(rule)}: {said} are there, of their kinds{more}")
    return reason(rule, "reject", f"{named(rule)}: {_few(faults)}")


def _is(kind: str) -> str:
    kinds = {EMPTY: "without a value", OTHER: "of lists or objects", NUMBER: "of numbers"}
    return kinds.get(kind, "of texts")


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return "; ".join(words[:_NAMED]) + more


def _quoted(name: str) -> str:
    return repr(shown(name, 40)) if name != shown(name, 40) or not name else name


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names)[:1000], n=1, cutoff=0.6)
    return f" (there is {_quoted(near[0])})" if near else ""


def _column(rule: GateRule, ours: DataTable) -> DataColumn | Reason:
    name = rule.column or ""
    found = ours.columns.get(name)
    if found is None:
        text = f"{named(rule)}: {shown(rule.data or '')} has no column {_quoted(name)}"
        return reason(rule, "reject", text + _near(name, ours.names))
    if found.kind == OTHER:
        return reason(rule, "reject", f"{named(rule)}: the column is {_is(OTHER)}")
    return found


def _missing(rule: GateRule, column: DataColumn) -> Reason:
    value = column.missing / column.rows
    low, high = share_interval(column.missing, column.rows, rule.confidence)
    method = "Wilson's and the exact interval"
    found = Estimate(named(rule), value, low, high, rule.confidence, method, column.rows)
    more = f"; {column.missing:,} of {column.rows:,} rows"
    return within(rule, value, _most(rule), found, name=named(rule), more=more)


def _most(rule: GateRule) -> list[tuple[float, bool]]:
    return [(rule.max or 0.0, False)]


def _drift(rule: GateRule, column: DataColumn, before: ColumnSummary, rows: int) -> Reason:
    kinds = {column.kind, before.kind}
    if kinds == {NUMBER, TEXT} or OTHER in kinds:
        text = f"{named(rule)}: the column is {_is(column.kind)}, the champion's {_is(before.kind)}"
        if column.kind == TEXT:
            text += f" (one of them: {shown(column.example, 30)!r})"
        return reason(rule, "reject", text)
    more = f"; {column.rows:,} rows against the champion's {rows:,}"
    if rule.metric == "ks":
        if kinds != {NUMBER}:
            kind = _is(TEXT if TEXT in kinds else EMPTY)
            return reason(rule, "reject", f"{named(rule)}: it is of numbers, and a column {kind}")
        distance = ks(before.distribution, Distribution.of(column.numbers), rule.confidence)
        limits, method = (distance.value, distance.low, distance.high), KS_METHOD
    else:
        names, theirs, mine = _bins(column, before)
        index = psi(theirs, mine, rule.confidence)
        limits, method = (index.value, index.low, index.high), PSI_METHOD
        more = f"{_chance(index.plain, index.value)}{_most_of_it(names, theirs, mine)}{more}"
    found = Estimate(named(rule), *limits, rule.confidence, method, column.rows)
    return within(rule, found.value, _most(rule), found, name=named(rule), more=more)


def _bins(column: DataColumn, before: ColumnSummary) -> tuple[list[str], Ints, Ints]:
    """Names of the bins, and the champion's and the challenger's rows in each."""
    missing = ["missing"], [before.missing], [column.missing]
    present = column.rows - column.missing
    if NUMBER in (before.kind, column.kind) and before.kind == column.kind:
        steps = before.distribution
        edges = edges_of(steps, BINS)
        names = [f"at most {edges[0]:g}"]
        names += [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        names.append(f"above {edges[-1]:g}")
        theirs = binned(steps, edges).tolist()
        mine = binned(Distribution.of(column.numbers), edges).tolist()
    elif before.kind == TEXT:
        total = sum(before.categories.values()) + before.others
        common = [name for name, of in before.categories.items() if of >= LEAST_SHARE * total]
        common = common[:MOST_BINS]
        names = [_quoted(name) for name in common] + ["all others"]
        theirs = [before.categories[name] for name in common]
        theirs.append(total - sum(theirs))
        mine = [column.counts.get(name, 0) for name in common]
        mine.append(present - sum(mine))
        if not theirs[-1] and not mine[-1]:
            names, theirs, mine = names[:-1], theirs[:-1], mine[:-1]
    else:
        # Of one of them all is missing.
        there = before.upto[-1] if before.upto else 0
        names, theirs, mine = ["there"], [there], [present]
    if before.missing or column.missing:
        names, theirs, mine = (
            one + other for one, other in zip((names, theirs, mine), missing, strict=True)
        )
    return names, np.array(theirs, np.int64), np.array(mine, np.int64)


def _chance(plain: float, value: float) -> str:
    """What chance adds, where it is seen."""
    return f", {plain:.3f} with what chance adds" if f"{plain:.3f}" != f"{value:.3f}" else ""


def _most_of_it(names: Sequence[str], theirs: Ints, mine: Ints) -> str:
    """The bin that differs most, where some do."""
    p, q = theirs / theirs.sum(), mine / mine.sum()
    parts = (p - q) * np.log(np.maximum(p, 1e-9) / np.maximum(q, 1e-9))
    place = int(np.argmax(parts))
    if parts[place] < 0.01:
        return ""
    return f"; most of it: {names[place]}, {p[place]:.1%} before, {q[place]:.1%} now"
