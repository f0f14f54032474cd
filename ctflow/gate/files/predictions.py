"""A model's predictions for the examples of an evaluation set, checked.

Everything in them comes from a step: a ``Predictions`` that exists is a sound one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ctflow.errors import UsageError
from ctflow.gate.files.texts import PART, Numbers, Texts, finite, taken
from ctflow.lib.text import one_line

if TYPE_CHECKING:
    from ctflow.ports import Calls

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
T = TypeVar("T")

REQUIRED = ("label", "prediction")
PROBABILITY = "p_"
#: What to do about a file that is no predictions file at all.
FORMAT = "write a CSV with the header id,label,prediction (or JSON lines, Parquet or Arrow)"

_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def canonical(value: str) -> str:
    """A class as it is compared: no outer blanks, and ``3.0`` is ``3``."""
    value = value.strip()
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else value


def shown(value: str, limit: int = 60) -> str:
    """A step's text for a message: printable characters only, cut at ``limit``."""
    return one_line(value, limit)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions, one row an example; checked on construction.

    ``columns`` are the raw strings by name, without ``id``, in the file's order; ``lines`` are the
    line numbers of the rows where they come from lines. Arrays are in the order of ``order``.
    Large files give columns of ``ctflow.gate.files.texts``, and what is made of a column is kept.

    Raises:
        UsageError: no rows, an id twice, an empty or not finite value where one is needed.
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    path: Path
    lines: Sequence[int] = ()
    #: Asks functions of the project; None: there is nobody to ask here.
    calls: Calls | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> Ints:
        """Row numbers sorted by id, shape (n,): the order of every array made from this."""
        ids = list(self.ids)
        return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)

    @cached_property
    def evaluation_set(self) -> str:
        """``sha256:...`` over the sorted (id, label) pairs, each as ``length:text`` twice.

        It depends neither on the order of the rows nor on the predictions.
        """
        digest = hashlib.sha256()
        for first in range(0, len(self), PART):
            rows = self.order[first : first + PART]
            labels = taken(self.columns["label"], rows)
            named = {label: canonical(label) for label in set(labels)}
            named = {label: f"{len(text)}:{text}" for label, text in named.items()}
            names = zip(taken(self.ids, rows), labels, strict=True)
            content = "".join([f"{len(name)}:{name}{named[label]}" for name, label in names])
            digest.update(content.encode("utf-8", "surrogatepass"))
        return "sha256:" + digest.hexdigest()

    def texts(self, column: str) -> Texts:
        """A column's values as they are written, sorted by id."""
        return self.cached(
            "texts", column, lambda: Texts.of(self.columns[column]).taken(self.order)
        )

    def classes(self, column: str) -> Texts:
        """A column's values as classes (see ``canonical``), sorted by id."""
        return self.cached("classes", column, lambda: self.texts(column).mapped(canonical))

    def numbers(self, column: str) -> Floats:
        """A column as numbers, shape (n,), sorted by id.

        Raises:
            UsageError: a value is no finite number.
        """
        return self._unsorted(column)[self.order]

    def _unsorted(self, column: str) -> Floats:
        """A column as numbers, in the file's order."""
        values = self.columns[column]
        if isinstance(values, Numbers):
            return values.values
        return self.cached("numbers", column, lambda: _parsed(self, column))

    def cached(self, kind: str, column: str, make: Callable[[], T]) -> T:
        """What was made of a column, made when it is first asked for."""
        if (kind, column) not in self._made:
            self._made[kind, column] = make()
        found: T = self._made[kind, column]
        return found

    @cached_property
    def _made(self) -> dict[tuple[str, str], Any]:
        return {}

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
        texts = self.texts(column)
        positions = np.argsort(texts.codes, kind="stable")
        ends = np.cumsum(np.bincount(texts.codes, minlength=len(texts.distinct)))
        parts = dict(zip(texts.distinct, np.split(positions, ends[:-1]), strict=True))
        return {value: parts[value] for value in sorted(parts)}


def codes(*columns: Sequence[str]) -> tuple[list[str], list[Ints]]:
    """The sorted distinct classes of all columns, and each column as indexes into them."""
    texts = [Texts.of(column) for column in columns]
    names = sorted(set().union(*(column.distinct for column in texts)))
    index = {name: number for number, name in enumerate(names)}
    places = [np.array([index[name] for name in c.distinct], np.int64) for c in texts]
    return names, [place[column.codes] for place, column in zip(places, texts, strict=True)]


def wrong(
    file: Path, fact: str, mend: str, line: int | None = None, place: str = "line"
) -> UsageError:
    """The error for a predictions file, with the line (or another ``place``) where it is known."""
    where = f"{file}, {place} {line}" if line is not None else str(file)
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
    _refuse_twice(predictions)
    for name in REQUIRED:
        column = predictions.columns[name]
        _refuse(predictions, name, column, lambda v: not v.strip(), "is empty")
        _refuse(predictions, name, column, _is_not_finite, "is not finite")
    for name in ("score", *predictions.probabilities.values()):
        if name in predictions.columns:
            numbers = predictions._unsorted(name)
            if name != "score" and not ((numbers >= 0) & (numbers <= 1)).all():
                row = int(np.argmax((numbers < 0) | (numbers > 1)))
                raise _wrong_at(predictions, row, f"{shown(name)} is not within 0 and 1")


def _refuse_twice(predictions: Predictions) -> None:
    ids, order = predictions.ids, predictions.order
    twice: set[str] = set()
    for first in range(0, len(order), PART):
        names = taken(ids, order[first : first + PART + 1])
        twice.update(compress(names, map(eq, names, names[1:])))
    if twice:
        _refuse(predictions, "id", ids, twice.__contains__, "is there twice")


def _is_not_finite(value: str) -> bool:
    return _NOT_FINITE.fullmatch(value.strip()) is not None


def _refuse(
    predictions: Predictions,
    name: str,
    column: Sequence[str],
    bad: Callable[[str], bool],
    fact: str,
) -> None:
    found = set(filter(bad, column.distinct if isinstance(column, Texts) else column))
    if found:
        row = next(row for row, value in enumerate(column) if value in found)
        raise _wrong_at(predictions, row, f"{name} {shown(column[row])!r} {fact}")


def _wrong_at(predictions: Predictions, row: int, fact: str) -> UsageError:
    mend = "mend the step that writes the predictions"
    if not predictions.lines:
        return wrong(predictions.path, fact, mend, row + 1, "row")
    return wrong(predictions.path, fact, mend, predictions.lines[row])


def _parsed(predictions: Predictions, column: str) -> Floats:
    values = predictions.columns[column]
    texts = values.distinct if isinstance(values, Texts) else values
    numbers = finite(texts)
    if numbers is not None:
        return numbers[values.codes] if isinstance(values, Texts) else numbers
    row = next(row for row, value in enumerate(values) if finite([value]) is None)
    fact = f"{shown(column)} {shown(values[row])!r} is not a finite number"
    raise _wrong_at(predictions, row, fact)
