"""Arrow's typed columns as texts and numbers: what a CSV of the same values would give.

A whole number is its digits, a truth value is True or False, a decimal is plain, a float is what
``repr`` writes (of 32 bits or fewer: the shortest text that gives it back), dates and times are ISO
8601, those with a time zone in UTC. What is missing is an empty text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ctflow.gate.files.predictions import PROBABILITY, shown, wrong
from ctflow.gate.files.reading import column_of
from ctflow.gate.files.streams import Budget
from ctflow.gate.files.texts import Floats, Ints


def readable(kind: Any) -> bool:
    """Whether values of the type are texts, numbers, truth values, dates or times with a date."""
    if types.is_dictionary(kind):
        return not types.is_dictionary(kind.value_type) and readable(kind.value_type)
    return bool(
        _is_text(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
        or types.is_null(kind)
    )


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


class TypedColumn:
    """One column while it is read, part by part."""

    def __init__(self, name: str, kind: Any, file: Path, budget: Budget) -> None:
        self.name = name
        self._file = file
        self._budget = budget
        self._column = column_of(name, numeric=types.is_floating(kind))
        # A probability is the number that the model gave; anything else is what is read of it.
        self._exact = name == "score" or name.startswith(PROBABILITY)
        self._key: Any = None
        self._dictionaries: tuple[Any, Any] = (None, None)

    def done(self) -> Sequence[str]:
        """All of it."""
        return self._column.done()

    def check(self, values: Any) -> None:
        """Check that what an array says of itself is so; nothing else may be done with it before.

        Raises:
            UsageError: it is not, or a text is not UTF-8.
        """
        try:
            if not types.is_dictionary(values.type):
                values.validate(full=True)
                return
            values.validate()
            values.indices.validate(full=True)
            # Many batches may share one large dictionary. What is kept keeps its address taken.
            dictionary = values.dictionary
            parts = [buffer and (buffer.address, buffer.size) for buffer in dictionary.buffers()]
            key = (len(dictionary), dictionary.offset, parts)
            if key != self._key:
                dictionary.validate(full=True)
                self._key = key
                self._dictionaries = (dictionary, self._without_views(dictionary))
        except pa.ArrowInvalid as error:
            fact = f"{shown(self.name)} is damaged, or not UTF-8: {shown(str(error), 120)}"
            raise wrong(self._file, fact, "write the file again, texts as UTF-8") from None

    def add(self, values: Any) -> None:
        """Append an array that was checked.

        Raises:
            UsageError: it is too much.
        """
        kind = values.type
        if types.is_null(kind):
            self._add_texts(pa.nulls(len(values), pa.string()))
        elif types.is_dictionary(kind):
            self._add_dictionary(values.indices, self._dictionaries[1])
        elif types.is_floating(kind):
            self._add_floats(values)
        elif _is_text(kind):
            self._add_texts(self._without_views(values))
        elif types.is_integer(kind):
            self._add_texts(values.cast(pa.string()))
        else:
            encoded = values.dictionary_encode()
            self._add_dictionary(encoded.indices, encoded.dictionary)

    def _without_views(self, values: Any) -> Any:
        """Texts that are views, which few of Arrow's functions take, as plain ones."""
        if not types.is_string_view(values.type):
            return values
        self._budget.spend(_viewed(values))
        return values.cast(pa.large_string())

    def _add_texts(self, values: Any) -> None:
        if not len(values):
            return
        self._budget.spend(len(values) + (pc.sum(pc.binary_length(values)).as_py() or 0))
        self._put(values)

    def _put(self, values: Any) -> None:
        if values.null_count:
            values = values.fill_null(_blank(values.type))
        if self._column.packs:
            lengths = _raw(pc.utf8_length(values)).astype(np.int32)
            self._column.add_packed(_joined(values), lengths)
        else:
            encoded = values.dictionary_encode()
            self._column.add_coded(encoded.dictionary.to_pylist(), _raw(encoded.indices))

    def _add_dictionary(self, indices: Any, dictionary: Any) -> None:
        indices = indices.cast(pa.int64())
        least, most = (one.as_py() for one in pc.min_max(indices).values())
        if least is not None and not 0 <= least <= most < len(dictionary):
            raise ValueError(f"{shown(self.name)} names what its dictionary does not have")
        places = np.where(_known(indices), _raw(indices), -1)
        used, codes = np.unique(places, return_inverse=True)
        found = dictionary.take(_places(used))
        is_packed = self._column.packs and _is_text(dictionary.type)
        texts = [] if is_packed else _texts(found)
        lengths = _lengths(found) if is_packed else np.array([len(one.encode()) for one in texts])
        self._budget.spend(int(np.bincount(codes, minlength=len(used)) @ (lengths + 1)))
        if is_packed:
            self._put(dictionary.take(indices))
        else:
            self._column.add_coded(texts, codes)

    def _add_floats(self, values: Any) -> None:
        self._budget.spend(9 * len(values))
        numbers = _raw(values)
        if not values.null_count and np.isfinite(numbers).all():
            self._column.add_numbers(_widened(numbers, self._exact))
        else:
            self._column.add(_texts(values))


# Below, buffers are read and made by hand, as ``to_numpy``, ``pa.array`` and ``pa.scalar`` import
# pandas where it is installed: a second, and 100 MB.


def _places(places: Ints) -> Any:
    """Numbers as Arrow's, those below 0 missing."""
    known = pa.py_buffer(np.packbits(places >= 0, bitorder="little"))
    return pa.Array.from_buffers(pa.int64(), len(places), [known, pa.py_buffer(places)])


def _blank(kind: Any) -> Any:
    """An empty text of a type of texts."""
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(16)), pa.py_buffer(b"")])[0]


def _lengths(values: Any) -> Ints:
    """The bytes of each text; 0 where it is missing."""
    return np.where(_known(values), _raw(pc.binary_length(values)), 0).astype(np.int64)


def _raw(values: Any) -> npt.NDArray[Any]:
    """Numbers, dates or times as they are stored; anything where one is missing."""
    kind = values.type
    form = f"{'f' if types.is_floating(kind) else 'i'}{kind.bit_width // 8}"
    content = values.buffers()[1]
    stored = np.frombuffer(content, form) if content else np.zeros(0, form)
    return stored[values.offset : values.offset + len(values)]


def _known(values: Any) -> npt.NDArray[np.bool_]:
    """Where a value is not missing, shape (n,)."""
    known = values.is_valid()
    bits = np.unpackbits(np.frombuffer(known.buffers()[1], np.uint8), bitorder="little")
    return bits[known.offset : known.offset + len(known)].astype(np.bool_)


def _widened(numbers: npt.NDArray[Any], exact: bool) -> Floats:
    if exact or numbers.dtype == np.float64:
        return np.ascontiguousarray(numbers, np.float64)
    # By their bits, as -0.0 is another text than 0.0.
    bits, codes = np.unique(numbers.view(f"i{numbers.itemsize}"), return_inverse=True)
    wide: Floats = bits.view(numbers.dtype).astype("U").astype(np.float64)[codes]
    return wide


def _texts(values: Any) -> list[str]:
    """The text of each value of an array that is not a dictionary."""
    kind = values.type
    if types.is_floating(kind):
        numbers = _raw(values)
        texts = list(map(str, numbers)) if numbers.dtype != np.float64 else _reprs(numbers)
    elif types.is_date(kind):
        texts = _dates(values, "D")
    elif types.is_timestamp(kind):
        zone = "+00:00" if kind.tz is not None else ""
        texts = [_trimmed(text) + zone for text in _dates(values, kind.unit)]
    elif types.is_decimal(kind):
        texts = ["" if value is None else f"{value:f}" for value in values.to_pylist()]
    else:
        texts = list(map(str, values.to_pylist()))
    if values.null_count:
        known = _known(values).tolist()
        texts = [text if there else "" for text, there in zip(texts, known, strict=True)]
    return texts


def _reprs(numbers: Floats) -> list[str]:
    return list(map(repr, numbers.tolist()))


def _dates(values: Any, unit: str) -> list[str]:
    stored = "ms" if types.is_date64(values.type) else unit
    dates = (
        _raw(values).astype(np.int64).view(f"datetime64[{stored}]").astype(f"datetime64[{unit}]")
    )
    return [str(text) for text in np.datetime_as_string(dates)]


def _trimmed(text: str) -> str:
    """A time without a fraction that is 0; else six digits of it, as isoformat has, or nine."""
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if not fraction:
        return whole
    return f"{whole}.{fraction.ljust(6 if len(fraction) <= 6 else 9, '0')}"


def _joined(values: Any) -> str:
    """Texts without any that is missing, end to end."""
    _, ends, content = values.buffers()
    wide = np.int64 if types.is_large_string(values.type) else np.int32
    first, last = np.frombuffer(ends, wide)[[values.offset, values.offset + len(values)]].tolist()
    return content[first:last].to_pybytes().decode() if last > first else ""


def _viewed(values: Any) -> int:
    """How many bytes the texts of a column of views come to: views may share what they show."""
    views = np.frombuffer(values.buffers()[1], np.int32)[::4].astype(np.int64)
    lengths = views[values.offset : values.offset + len(values)]
    if values.null_count:
        lengths = lengths[_known(values)]
    return int(lengths.sum())
