"""Columns of texts, held compactly: a million Python strings would take 60 MB a column.

``Texts`` are codes into the distinct texts, ``Packed`` are texts end to end in one string,
``Numbers`` are floats. ``Column`` chooses between them while a file is read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import eq
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

#: A column of more distinct texts is not held as codes.
MAX_DISTINCT = 10_000
#: How many texts are Python strings at once, where a column is gone through.
PART = 50_000


class _Sequence(Sequence[str]):
    """What the columns share: slices are lists, and a column equals a list of the same texts."""

    @abstractmethod
    def at(self, rows: Ints) -> list[str]:
        """The texts at those places."""

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self.at(np.arange(*place.indices(len(self))))
        return self.at(np.array([range(len(self))[place]]))[0]

    def __iter__(self) -> Iterator[str]:
        n = len(self)
        parts = (np.arange(first, min(first + PART, n)) for first in range(0, n, PART))
        return chain.from_iterable(map(self.at, parts))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    # As a list has none: equal to one, it would need the same.
    __hash__ = None  # type: ignore[assignment]


class Texts(_Sequence):
    """Texts that repeat.

    Attributes:
        distinct: each text once; every one of them occurs.
        codes: shape (n,), which of them is at each place.
    """

    def __init__(self, distinct: Sequence[str], codes: Codes) -> None:
        self.distinct = distinct
        self.codes = codes

    @classmethod
    def of(cls, values: Sequence[str]) -> Texts:
        """Any column as codes, however many distinct texts it has."""
        if isinstance(values, Texts):
            return values
        index: dict[str, int] = {}
        codes = (index.setdefault(value, len(index)) for value in values)
        found = np.fromiter(codes, np.int32, len(values))
        return cls(list(index), found)

    def mapped(self, function: Callable[[str], str]) -> Texts:
        """The function of every text."""
        names = Texts.of([function(text) for text in self.distinct])
        return Texts(names.distinct, names.codes[self.codes])

    def taken(self, order: Ints) -> Texts:
        """The same texts in another order."""
        return Texts(self.distinct, self.codes[order])

    def equal(self, text: str) -> npt.NDArray[np.bool_]:
        """Where the text is, shape (n,)."""
        return np.array([one == text for one in self.distinct], np.bool_)[self.codes]

    def at(self, rows: Ints) -> list[str]:
        return [self.distinct[code] for code in self.codes[rows].tolist()]

    def __len__(self) -> int:
        return len(self.codes)


class Packed(_Sequence):
    """Texts that hardly repeat, end to end in ``text``; ``lengths``, shape (n,), of each."""

    def __init__(self, text: str, lengths: Codes) -> None:
        self._text = text
        self._ends = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=self._ends[1:])

    def at(self, rows: Ints) -> list[str]:
        text, ends = self._text, self._ends
        places = zip(ends[rows].tolist(), ends[rows + 1].tolist(), strict=True)
        return [text[first:last] for first, last in places]

    def __len__(self) -> int:
        return len(self._ends) - 1


class Numbers(_Sequence):
    """Finite numbers, shape (n,); as texts they are what ``repr`` writes."""

    def __init__(self, values: Floats) -> None:
        self.values = values

    def at(self, rows: Ints) -> list[str]:
        return list(map(repr, self.values[rows].tolist()))

    def __len__(self) -> int:
        return len(self.values)


class Column:
    """A column while it is read, part by part.

    Args:
        most: hold it as codes up to so many distinct texts.
        numeric: beyond them, hold finite numbers only; if it has any other value, texts.
    """

    def __init__(self, most: int = MAX_DISTINCT, numeric: bool = False) -> None:
        self._most = most
        self._numeric = numeric
        self._held: Literal["codes", "numbers", "texts"] = "codes"
        self._index: dict[str, int] = {}
        self._parts: list[npt.NDArray[Any]] = []
        self._texts: list[str] = []

    def add(self, values: Sequence[str]) -> None:
        """Append a part."""
        if self._held == "codes":
            for value in sorted(set(values).difference(self._index)):
                self._index[value] = len(self._index)
            codes = map(self._index.__getitem__, values)
            self._parts.append(np.fromiter(codes, np.int32, len(values)))
            if len(self._index) > self._most:
                self._turn("numbers" if self._numeric else "texts")
            return
        if self._held == "numbers":
            numbers = finite(values)
            if numbers is not None:
                self._parts.append(numbers)
                return
            self._turn("texts")
        self._parts.append(np.fromiter(map(len, values), np.int32, len(values)))
        self._texts.append("".join(values))

    def add_coded(self, distinct: Sequence[str], codes: Ints) -> None:
        """Append a part as codes, shape (n,), into its texts; every one of them occurs."""
        if self._held == "codes" and len(distinct) <= self._most:
            places = [self._index.setdefault(text, len(self._index)) for text in distinct]
            self._parts.append(np.array(places, np.int32)[codes])
            if len(self._index) > self._most:
                self._turn("numbers" if self._numeric else "texts")
            return
        self.add([distinct[code] for code in codes.tolist()])

    def add_numbers(self, numbers: Floats) -> None:
        """Append finite numbers, shape (n,): the same as their ``repr``, without writing it."""
        if self._held == "codes" and self._numeric:
            # By their bits, as -0.0 is another text than 0.0.
            bits, codes = np.unique(numbers.view(np.int64), return_inverse=True)
            if len(bits) <= self._most:
                self.add_coded(list(map(repr, bits.view(np.float64).tolist())), codes)
                return
            self._turn("numbers")
        if self._held == "numbers":
            self._parts.append(numbers)
        else:
            self.add(list(map(repr, numbers.tolist())))

    @property
    def packs(self) -> bool:
        """Whether it holds its texts end to end, which ``add_packed`` adds to."""
        return self._held == "texts" or not (self._most or self._numeric)

    def add_packed(self, text: str, lengths: Codes) -> None:
        """Append texts end to end, with the length of each, shape (n,); where it ``packs``."""
        if self._held != "texts":
            self._turn("texts")
        self._parts.append(lengths)
        self._texts.append(text)

    def done(self) -> Sequence[str]:
        """All of it."""
        array: Any = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int32)
        if self._held == "codes":
            return Texts(list(self._index), array)
        return Numbers(array) if self._held == "numbers" else Packed("".join(self._texts), array)

    def _turn(self, held: Literal["numbers", "texts"]) -> None:
        before = self.done()
        self._held, self._index, self._parts = held, {}, []
        for first in range(0, len(before), PART):
            self.add(before[first : first + PART])


def taken(values: Sequence[str], rows: Ints) -> list[str]:
    """The texts at those places of any column."""
    if isinstance(values, _Sequence):
        return values.at(rows)
    return list(map(values.__getitem__, rows.tolist()))


def finite(values: Sequence[str]) -> Floats | None:
    """The texts as numbers; None if any is none, or not finite."""
    try:
        numbers = np.fromiter(map(float, values), np.float64, len(values))
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
