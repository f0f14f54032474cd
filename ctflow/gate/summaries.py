"""Summaries of training data: so much of it as the next model's data is compared with.

A summary is small, however large the data is, and is kept with a release, as the data itself is
seldom there when the next model comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from ctflow.errors import UsageError
from ctflow.gate.files.columns import NUMBER, TEXT, DataColumn
from ctflow.gate.files.streams import whole
from ctflow.gate.files.tables import DataTable
from ctflow.gate.intervals.drift import Distribution
from ctflow.model import from_json

#: A column of more distinct numbers is kept as about so many quantiles.
MOST_STEPS = 2_000
#: So many of the commonest texts are kept, and the others as one count.
MOST_CATEGORIES = 1_000


@dataclass(frozen=True)
class ColumnSummary:
    """One column. ``values``, ``below`` and ``upto`` are as in ``Distribution``.

    Attributes:
        detailed: whether its values are kept, and not only its kind.
        categories: counts of the commonest texts; ``others`` is the count of all others.
    """

    kind: str
    detailed: bool = False
    missing: int = 0
    values: tuple[float, ...] = ()
    below: tuple[int, ...] = ()
    upto: tuple[int, ...] = ()
    categories: dict[str, int] = field(default_factory=dict)
    others: int = 0

    @property
    def distribution(self) -> Distribution:
        """That of its numbers, of which there must be some."""
        below, upto = np.array(self.below, np.int64), np.array(self.upto, np.int64)
        return Distribution(np.array(self.values), below, upto, self.upto[-1])


@dataclass(frozen=True)
class DataSummary:
    """What a release keeps of one ``task.output`` of its model's training data.

    Attributes:
        data: the digest of the data itself.
        whole: whether ``columns`` has the kinds of all columns.
    """

    kind: ClassVar[str] = "data summary"
    output: str
    data: str
    rows: int
    whole: bool
    columns: dict[str, ColumnSummary]


def summary_of(output: str, digest: str, table: DataTable, whole: bool) -> DataSummary:
    """The summary of what was read.

    Args:
        digest: that of the data.
        whole: the table has the kinds of all columns.
    """
    columns = {name: ColumnSummary(kind) for name, kind in table.kinds.items()}
    columns |= {name: _summary(column) for name, column in table.columns.items()}
    return DataSummary(output, digest, table.rows, whole, columns)


def _summary(column: DataColumn) -> ColumnSummary:
    if column.kind == NUMBER and len(column.numbers):
        steps = Distribution.of(column.numbers).thinned(MOST_STEPS)
        return ColumnSummary(
            column.kind,
            True,
            column.missing,
            tuple(steps.values.tolist()),
            tuple(steps.below.tolist()),
            tuple(steps.upto.tolist()),
        )
    if column.kind == TEXT:
        common = sorted(column.counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_CATEGORIES]
        present = column.rows - column.missing
        others = present - sum(count for _, count in common)
        return ColumnSummary(
            column.kind, True, column.missing, categories=dict(common), others=others
        )
    return ColumnSummary(column.kind, True, column.missing)


def read_summary(file: Path) -> DataSummary:
    """Read and check a summary that was kept.

    Raises:
        UsageError: it is none, or does not fit together.
    """
    try:
        data = json.loads(whole(file))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from None
    found = from_json(DataSummary, data, str(file))
    try:
        is_sound = all(map(_is_sound, found.columns.values()))
    except (ValueError, OverflowError):
        is_sound = False
    if not is_sound:
        raise UsageError(f"{file} is no sound summary of data", next="remove it")
    return found


def _is_sound(column: ColumnSummary) -> bool:
    counts: Mapping[str, int] = column.categories
    if min([column.missing, column.others, *counts.values()]) < 0:
        return False
    if not column.values:
        return not (column.below or column.upto or (column.kind == NUMBER and column.detailed))
    if not len(column.values) == len(column.below) == len(column.upto):
        return False
    values = np.array(column.values)
    below, upto = np.array(column.below, np.int64), np.array(column.upto, np.int64)
    return bool(
        np.isfinite(values).all()
        and (np.diff(values) > 0).all()
        and (below >= 0).all()
        and (upto > below).all()
        and (below[1:] >= upto[:-1]).all()
    )
