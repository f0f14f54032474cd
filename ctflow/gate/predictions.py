"""A model's predictions for the examples of an evaluation set, checked.

Everything in them comes from a step: a ``Predictions`` that exists is a sound one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctflow.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REQUIRED = ("label", "prediction")
PROBABILITY = "p_"
#: What to do about a file that is no predictions file at all.
FORMAT = "write a CSV with the header id,label,prediction (or JSON lines with those keys)"

_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def canonical(value: str) -> str:
    """A class as it is compared: no outer blanks, and ``3.0`` is ``3``."""
    value = value.strip()
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else value


def shown(value: str, limit: int = 60) -> str:
    """A step's text for a message: printable characters only, cut at ``limit``."""
    text = " ".join("".join(c if c.isprintable() else " " for c in value[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions, one row an example; checked on construction.

    ``columns`` are the raw strings by name, without ``id``, in the file's order; ``lines`` are the
    line numbers of the rows where they come from a file. Arrays are in the order of ``order``.

    Raises:
        UsageError: no rows, an id twice, an empty or not finite value where one is needed.
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    path: Path
    lines: Sequence[int] = ()

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> Ints:
        """Row numbers sorted by id, shape (n,): the order of every array made from this."""
        return np.array(sorted(range(len(self.ids)), key=self.ids.__getitem__), dtype=np.int64)

    @cached_property
    def evaluation_set(self) -> str:
        """``sha256:...`` over the sorted (id, label) pairs, each as ``length:text`` twice.

        It depends neither on the order of the rows nor on the predictions.
        """
        labels = self.classes("label")
        parts = []
        for row, label in zip(self.order.tolist(), labels, strict=True):
            name = self.ids[row]
            parts.append(f"{len(name)}:{name}{len(label)}:{label}")
        content = "".join(parts).encode("utf-8", "surrogatepass")
        return "sha256:" + hashlib.sha256(content).hexdigest()

    def classes(self, column: str) -> list[str]:
        """A column's values as classes (see ``canonical``), sorted by id."""
        values = self.columns[column]
        names = {value: canonical(value) for value in set(values)}
        return [names[values[row]] for row in self.order.tolist()]

    def numbers(self, column: str) -> Floats:
        """A column as numbers, shape (n,), sorted by id.

        Raises:
            UsageError: a value is no finite number.
        """
        return _numbers(self, column)[self.order]

    @property
    def probabilities(self) -> dict[str, str]:
        """The class of each ``p_<class>`` column -> the column."""
        return {
            canonical(name[len(PROBABILITY) :]): name
            for name in self.columns
            if name.startswith(PROBABILITY)
        }

    def slices(self, column: str) -> dict[str, Ints]:
        """Positions (in id order) of each value of a column, values sorted."""
        found: dict[str, list[int]] = {}
        values = self.columns[column]
        for position, row in enumerate(self.order.tolist()):
            found.setdefault(values[row], []).append(position)
        return {value: np.array(found[value], dtype=np.int64) for value in sorted(found)}


def codes(*columns: Sequence[str]) -> tuple[list[str], list[Ints]]:
    """The sorted distinct classes of all columns, and each column as indexes into them."""
    names = sorted(set().union(*columns))
    index = {name: number for number, name in enumerate(names)}
    arrays = [np.fromiter(map(index.__getitem__, c), np.int64, len(c)) for c in columns]
    return names, arrays


def wrong(file: Path, fact: str, mend: str, line: int | None = None) -> UsageError:
    """The error for a predictions file, with the line where it is known."""
    where = f"{file}, line {line}" if line is not None else str(file)
    return UsageError(f"{where}: {fact}", next=mend)


def _check(predictions: Predictions) -> None:
    if len(predictions.ids) == 0:
        raise wrong(predictions.path, "no examples", FORMAT)
    for name in REQUIRED:
        if name not in predictions.columns:
            raise wrong(predictions.path, f"no column {name}", FORMAT)
    for name, column in predictions.columns.items():
        if len(column) != len(predictions.ids):
            raise wrong(predictions.path, f"column {shown(name)} is not complete", FORMAT)
    _refuse(predictions, "id", predictions.ids, lambda v: not v.strip(), "is empty")
    if len(set(predictions.ids)) != len(predictions.ids):
        counts = Counter(predictions.ids)
        _refuse(predictions, "id", predictions.ids, lambda v: counts[v] > 1, "is there twice")
    for name in REQUIRED:
        column = predictions.columns[name]
        _refuse(predictions, name, column, lambda v: not v.strip(), "is empty")
        _refuse(predictions, name, column, _is_not_finite, "is not finite")
    for name in ("score", *predictions.probabilities.values()):
        if name in predictions.columns:
            numbers = _numbers(predictions, name)
            if name != "score" and not ((numbers >= 0) & (numbers <= 1)).all():
                row = int(np.argmax((numbers < 0) | (numbers > 1)))
                raise _at(predictions, row, f"{shown(name)} is not within 0 and 1")


def _is_not_finite(value: str) -> bool:
    return _NOT_FINITE.fullmatch(value.strip()) is not None


def _refuse(
    predictions: Predictions,
    name: str,
    column: Sequence[str],
    bad: Callable[[str], bool],
    fact: str,
) -> None:
    found = {value for value in set(column) if bad(value)}
    if found:
        row = next(row for row, value in enumerate(column) if value in found)
        raise _at(predictions, row, f"{name} {shown(column[row])!r} {fact}")


def _at(predictions: Predictions, row: int, fact: str) -> UsageError:
    line = predictions.lines[row] if predictions.lines else row + 1
    return wrong(predictions.path, fact, "mend the step that writes the predictions", line)


def _numbers(predictions: Predictions, column: str) -> Floats:
    values = predictions.columns[column]
    try:
        numbers = np.array([float(value) for value in values], dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers
        row = int(np.argmin(np.isfinite(numbers)))
    except ValueError:
        row = next(row for row, value in enumerate(values) if not _is_number(value))
    fact = f"{shown(column)} {shown(values[row])!r} is not a finite number"
    raise _at(predictions, row, fact)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
