"""A predictions file's bytes, plain or gzip, and the limit on what they come to."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ctflow.gate.files.predictions import wrong

#: Above this (decompressed) a file is refused rather than filling the memory.
MAX_BYTES = 1 << 30


class Budget:
    """Counts what a file's values come to as text, and refuses what is too much."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._spent = 0

    def spend(self, count: int) -> None:
        """Count bytes that are about to be held.

        Raises:
            UsageError: all of them are above ``MAX_BYTES``.
        """
        self._spent += count
        if self._spent > MAX_BYTES:
            fact = f"more than {MAX_BYTES >> 20} MiB"
            raise wrong(self._file, fact, "write fewer rows")


class Limited(io.BufferedIOBase):
    """A stream of bytes that counts them, and refuses what is too much."""

    def __init__(self, stream: BinaryIO, file: Path) -> None:
        self._stream = stream
        self._budget = Budget(file)
        self.count = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        part = self._stream.read(size)
        self.count += len(part)
        self._budget.spend(len(part))
        return part


@contextmanager
def stream_of(file: Path) -> Iterator[Limited]:
    """The file's bytes, decompressed; what is wrong with them is a UsageError."""
    try:
        with file.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            inner = cast("BinaryIO", gzip.GzipFile(fileobj=stream) if zipped else stream)
            yield Limited(inner, file)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(file, f"cannot be read: {error}", "write the file again") from None


def first_bytes(file: Path, size: int = 8) -> bytes:
    """The first bytes, decompressed.

    Raises:
        UsageError: the file cannot be read.
    """
    found = b""
    with stream_of(file) as stream:
        while len(found) < size and (part := stream.read1(size - len(found))):
            found += part
    return found


def whole(file: Path) -> bytearray:
    """All of its bytes, decompressed.

    Raises:
        UsageError: the file cannot be read, or is too large.
    """
    found = bytearray()
    with stream_of(file) as stream:
        while part := stream.read1(1 << 20):
            found += part
    return found
