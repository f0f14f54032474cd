"""Rules on the data that a model was trained on: what they may say, and what would be a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Literal

#: How far a column is from the champion's.
DRIFTS = ("psi", "ks")
MISSING, SCHEMA = "missing", "schema"
DATA_METRICS = (*DRIFTS, MISSING, SCHEMA)

ColumnKind = Literal["number", "text"]

_KEYS = {"metric", "data"}
_OF_A_COLUMN = _KEYS | {"column", "max", "confidence"}


def data_fault(
    metric: str, said: Collection[str], high: float | None, columns: Mapping[str, ColumnKind]
) -> str:
    """What is wrong with a rule that names ``data``, or "".

    Args:
        said: the keys that the rule says.
        high: its ``max``.
        columns: the kinds of columns that it declares.
    """
    if metric not in DATA_METRICS:
        near = difflib.get_close_matches(metric, DATA_METRICS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{metric} is not of data: a rule with 'data' is on {_listed(DATA_METRICS)}{hint}"
    if "over" in said and metric != MISSING:
        return f"{metric} compares with the champion's data always: leave 'over' out"
    if metric == SCHEMA:
        for key in sorted(set(said) - _KEYS - {"columns"}):
            return f"schema is kept or not: leave '{key}' out"
        if "columns" in said and not columns:
            return "'columns' says none: write {name: number} or {name: text}, or leave it out"
        return ""
    for key in sorted(set(said) - _OF_A_COLUMN):
        return f"{metric} is of a column of the data: leave '{key}' out"
    if "column" not in said:
        return f"a rule on {metric} needs 'column'"
    if high is None:
        return f"a rule on {metric} needs 'max'"
    if metric == "psi" and high <= 0:
        return f"max {high:g}: psi is above 0; 0.1 is a small drift, and 0.25 a large one"
    if metric == "ks" and not 0 < high < 1:
        return f"max {high:g}: ks is within 0 and 1"
    if metric == MISSING and not 0 <= high < 1:
        return f"max {high:g}: missing is a share, so write {high / 100:g} for {high:g}%"
    return ""


def stray_fault(said: Collection[str]) -> str:
    """What is wrong with a rule that says keys of such rules and no ``data``, or ""."""
    for key in ("column", "columns"):
        if key in said:
            return f"'{key}' is of a rule on data: name it with 'data: task.output'"
    return ""


def _listed(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
