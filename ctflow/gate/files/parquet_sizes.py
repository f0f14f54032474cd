"""What a Parquet file comes to once it is decompressed, from its footer alone.

The footer is FileMetaData of parquet.thrift in the format's specification, in Thrift's compact
protocol. It is read here, as pyarrow's own view of it ends the process on some files (those of
which only columns are encrypted). A field's number is its number there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BYTE_ARRAY = 6
#: Encodings: dictionaries of old and now; texts without their lengths; texts without what they
#: share with the one before. Of the last, and of dictionaries, many long texts are a few bytes.
_DICTIONARY, _LENGTHS, _SHARED = {2, 8}, 6, 7
#: What is read of the footer: by field number, None for a value, else the same of a struct's.
_WANTED: Mapping[int, Any] = {
    3: None,
    4: {1: {3: {1: None, 2: None, 3: None, 6: None}, 8: {}, 9: None}},
    8: {},
}
_DEPTH = 16


class EncryptedError(Exception):
    """The file, or some column of it, is encrypted."""


@dataclass
class Footer:
    """What a footer says: ``rows``, columns, and their ``size`` once decompressed.

    Attributes:
        texts: columns whose values are bytes of any length, and that can be had as dictionaries.
        longest: of the others, those of which a few bytes may be many long texts, and the size of
            the largest part: no text is longer.
    """

    rows: int
    columns: int = 0
    size: int = 0
    texts: set[str] = field(default_factory=set)
    longest: dict[str, int] = field(default_factory=dict)


def footer_size(data: bytearray) -> int:
    """The number of bytes of the footer.

    Raises:
        ValueError: the file is cut.
        EncryptedError: the footer is encrypted.
    """
    if data.startswith(b"PARE") or data.endswith(b"PARE"):
        raise EncryptedError
    if not data.endswith(b"PAR1"):
        raise ValueError("it does not end as Parquet does")
    size = int.from_bytes(data[-8:-4], "little")
    if size > len(data) - 12:
        raise ValueError("its footer is not within the file")
    return size


def footer(data: bytearray) -> Footer:
    """Read the footer of a whole file.

    Raises:
        ValueError, IndexError: it is damaged.
        EncryptedError: it names keys.
    """
    end = len(data) - 8
    said = _Compact(memoryview(data)[end - footer_size(data) : end]).struct(_WANTED)
    if 8 in said:
        raise EncryptedError
    found = Footer(_whole(said.get(3, 0)))
    largest: dict[str, int] = {}
    encodings: dict[str, set[Any]] = {}
    for group in _all(said.get(4, [])):
        chunks = _all(group.get(1, []))
        found.columns = max(found.columns, len(chunks))
        for chunk in chunks:
            if 8 in chunk or 9 in chunk:
                raise EncryptedError
            of = chunk.get(3)
            if not isinstance(of, dict):
                raise ValueError("a column without a description")
            name = _path(of.get(3))
            size = _whole(of.get(6, 0))
            found.size += size
            largest[name] = max(size, largest.get(name, 0))
            if of.get(1) == _BYTE_ARRAY:
                named = of.get(2)
                if not isinstance(named, list):
                    raise ValueError("a column without encodings")
                encodings.setdefault(name, set()).update(n for n in named if isinstance(n, int))
    for name, used in encodings.items():
        if not used & {_LENGTHS, _SHARED}:
            found.texts.add(name)
        elif _SHARED in used or used & _DICTIONARY:
            found.longest[name] = largest[name]
    return found


def _whole(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _all(values: Any) -> list[dict[int, Any]]:
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise ValueError("a list of something else")
    return values


def _path(words: Any) -> str:
    if not isinstance(words, list) or not all(isinstance(word, bytes) for word in words):
        raise ValueError("a column without a name")
    return b".".join(words).decode()


class _Compact:
    """Thrift's compact protocol, of which only what is wanted becomes objects."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0

    def struct(self, wanted: Mapping[int, Any] | None, depth: int = 0) -> dict[int, Any]:
        """A struct's fields by number, those that are wanted; ``None`` wants none."""
        if depth > _DEPTH:
            raise ValueError("structs within structs")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            is_wanted = wanted is not None and number in wanted
            inner = wanted[number] if wanted is not None and is_wanted else None
            value = self._value(head & 15, inner, is_wanted, depth)
            if is_wanted:
                found[number] = value
        return found

    def _value(self, kind: int, wanted: Mapping[int, Any] | None, keep: bool, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 13):
            self._skip(8 if kind == 7 else 16)
            return None
        if kind == 8:
            size = self._unsigned()
            first = self._place
            self._skip(size)
            return bytes(self._data[first : self._place]) if keep else b""
        if kind in (9, 10):
            return self._list(wanted, keep, depth)
        if kind == 11:
            self._map(depth)
            return None
        if kind == 12:
            return self.struct(wanted, depth + 1)
        raise ValueError(f"a value of type {kind}")

    def _list(self, wanted: Mapping[int, Any] | None, keep: bool, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._unsigned()
        found = []
        for _ in range(size):
            value = self._element(head & 15, wanted, keep, depth)
            if keep:
                found.append(value)
        return found

    def _map(self, depth: int) -> None:
        size = self._unsigned()
        kinds = self._byte() if size else 0
        for _ in range(size):
            self._element(kinds >> 4, None, False, depth)
            self._element(kinds & 15, None, False, depth)

    def _element(self, kind: int, wanted: Mapping[int, Any] | None, keep: bool, depth: int) -> Any:
        # A truth value that is a field is in its type; one in a list is a byte.
        if depth > _DEPTH:
            raise ValueError("lists within lists")
        return self._value(3 if kind in (1, 2) else kind, wanted, keep, depth + 1)

    def _byte(self) -> int:
        value = self._data[self._place]
        self._place += 1
        return value

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, size: int) -> None:
        self._place += size
        if self._place > len(self._data):
            raise ValueError("cut within a value")
