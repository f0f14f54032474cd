"""What an Arrow file or stream comes to once it is decompressed, from its messages alone.

Each message is a flatbuffer, and the bytes of its body. The layout is that of Message.fbs and
File.fbs in Arrow's specification of its columnar format; numbers are little-endian. A field's
number is its place there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CONTINUED = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3


@dataclass(frozen=True)
class Message:
    """One message: bytes of its ``metadata``, ``rows`` of a batch, ``size`` of its values."""

    metadata: int
    rows: int = 0
    size: int = 0
    is_batch: bool = False


def sizes_of_file(data: memoryview) -> Iterator[Message]:
    """Each message that the footer of a file names, without reading its values.

    Raises:
        ValueError, struct.error: it is cut or damaged.
    """
    if data[-6:].tobytes() != b"ARROW1":
        raise ValueError("it does not end as an Arrow file does")
    end = len(data) - 10
    (size,) = struct.unpack_from("<i", data, end)
    if not 0 < size <= end - 8:
        raise ValueError("its footer is not within the file")
    yield Message(size)
    footer = _Table.root(data[end - size : end])
    for field in (2, 3):
        for place, metadata, body in footer.blocks(field):
            found, after = _message_at(data, place)
            if place < 8 or after != place + metadata + body:
                raise ValueError("its footer is for other content")
            yield found


def sizes_of_stream(data: memoryview) -> Iterator[Message]:
    """Each message of a stream, without reading its values.

    Raises:
        ValueError, struct.error: it is damaged, or cut: it has no mark of its end.
    """
    place = 0
    while struct.unpack_from("<II", data, place) != (_CONTINUED, 0):
        found, place = _message_at(data, place)
        yield found
        if place == len(data):
            raise ValueError("it has no end-of-stream mark")


def _message_at(data: memoryview, place: int) -> tuple[Message, int]:
    """The message at a byte, and the byte after it."""
    mark, length = struct.unpack_from("<II", data, place)
    if mark != _CONTINUED:
        raise ValueError(f"no message at byte {place}")
    start = place + 8
    metadata = data[start : start + length]
    size = _Table.root(metadata).number(3, "q")
    after = start + length + size
    if size < 0 or after > len(data):
        raise ValueError(f"cut within a message of {length + size} bytes")
    return _message(metadata, data[start + length : after]), after


def _message(metadata: memoryview, body: memoryview) -> Message:
    root = _Table.root(metadata)
    kind = root.number(1, "B")
    if kind not in (_DICTIONARY, _BATCH):
        return Message(len(metadata))
    header = root.table(2)
    batch = header.table(1) if kind == _DICTIONARY else header
    size = _size(batch, body)
    rows = batch.number(0, "q") if kind == _BATCH else 0
    if rows < 0:
        raise ValueError(f"a batch of {rows} rows")
    return Message(len(metadata), rows, size, kind == _BATCH)


def _size(batch: _Table, body: memoryview) -> int:
    if not batch.at(3):
        return len(body)
    total = 0
    for start, length in batch.pairs(2):
        if length:
            # Each compressed buffer begins with what it comes to; -1: it is as it is.
            (plain,) = struct.unpack_from("<q", body, start)
            if plain < -1 or start < 0 or length < 8:
                raise ValueError(f"a buffer of {plain} bytes")
            total += plain if plain >= 0 else length - 8
    return total


class _Table:
    """A flatbuffer's table."""

    def __init__(self, data: memoryview, place: int) -> None:
        if place < 0:
            raise ValueError("a table before its message")
        self._data = data
        self._place = place
        self._fields = place - struct.unpack_from("<i", data, place)[0]
        if self._fields < 0:
            raise ValueError("a table's fields before its message")
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        """The table of a whole flatbuffer."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def at(self, field: int) -> int:
        """Where a field is; 0: it is left out."""
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        found: int = struct.unpack_from("<H", self._data, self._fields + slot)[0]
        return self._place + found if found else 0

    def number(self, field: int, form: str) -> int:
        """A field that is a number; 0 where it is left out."""
        place = self.at(field)
        return int(struct.unpack_from("<" + form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> _Table:
        """A field that is a table.

        Raises:
            ValueError: it is left out.
        """
        return _Table(self._data, self._target(field))

    def pairs(self, field: int) -> Iterator[tuple[int, ...]]:
        """A field that is a list of pairs of 64-bit numbers."""
        return self._structs(field, "<qq")

    def blocks(self, field: int) -> Iterator[tuple[int, ...]]:
        """A field that is a list of blocks: place, bytes of metadata, bytes of the body."""
        return self._structs(field, "<qi4xq") if self.at(field) else iter(())

    def _structs(self, field: int, form: str) -> Iterator[tuple[int, ...]]:
        place = self._target(field)
        (count,) = struct.unpack_from("<I", self._data, place)
        for number in range(count):
            where = place + 4 + struct.calcsize(form) * number
            yield struct.unpack_from(form, self._data, where)

    def _target(self, field: int) -> int:
        place = self.at(field)
        if not place:
            raise ValueError("a message without its header")
        return place + int(struct.unpack_from("<I", self._data, place)[0])
