"""Protocol Buffers on the wire, as far as ML Metadata's answers need it.

The package ``ml-metadata`` has no wheels for today's Pythons, and KFP's own packages pin
``protobuf``: reading some fields of a dozen messages takes neither. A message's shape is a table of
field number -> (name, kind); fields that are not in it are passed over. Source: Protocol Buffers
Documentation, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

#: What a field holds: a name of ``_SCALARS``, or the shape of a message.
Kind = Any
Shape = Mapping[int, tuple[str, Kind]]
#: Shapes' fields that may come more than once end so.
MANY = "*"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SCALARS = {"int": _VARINT, "bool": _VARINT, "double": _FIXED64, "text": _BYTES}


class Malformed(ValueError):
    """The bytes are no such message."""


def encode(fields: Mapping[int, str | int | list[int]]) -> bytes:
    """A message of strings, of non-negative integers, and of lists of those."""
    parts: list[bytes] = []
    for number, value in fields.items():
        if isinstance(value, str):
            data = value.encode()
            parts += [_varint(number << 3 | _BYTES), _varint(len(data)), data]
        else:
            for one in value if isinstance(value, list) else [value]:
                parts += [_varint(number << 3 | _VARINT), _varint(one)]
    return b"".join(parts)


def decode(data: bytes, shape: Shape, depth: int = 0) -> dict[str, Any]:
    """A message's fields by name; those with ``*`` as lists, without it.

    Raises:
        Malformed: it is no such message.
    """
    if depth > 100:
        raise Malformed("too deep")
    found: dict[str, Any] = {
        name.removesuffix(MANY): [] for name, _ in shape.values() if name.endswith(MANY)
    }
    for number, wire, raw in _fields(data):
        if number not in shape:
            continue
        name, kind = shape[number]
        if isinstance(kind, str):
            value = _scalar(raw, wire, kind)
        elif wire != _BYTES:
            raise Malformed(f"field {number} is no message")
        else:
            value = decode(raw, kind, depth + 1)
        if name.endswith(MANY):
            found[name[:-1]].append(value)
        else:
            found[name] = value
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field's number, wire type, its value) of each field."""
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            raw, at = _read_varint(data, at)
            yield number, wire, raw
            continue
        if wire == _BYTES:
            size, at = _read_varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire}")
        if at + size > end:
            raise Malformed("cut short")
        yield number, wire, data[at : at + size]
        at += size


def _scalar(raw: Any, wire: int, kind: str) -> Any:
    if wire != _SCALARS[kind]:
        raise Malformed(f"{kind} expected")
    if kind == "int":
        return raw - (1 << 64) if raw >> 63 else raw
    if kind == "bool":
        return bool(raw)
    if kind == "double":
        return struct.unpack("<d", raw)[0]
    return raw.decode("utf-8", "replace")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
