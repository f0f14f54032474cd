"""Files that others read while they are written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: What the names of files that are being written start with.
PREFIX = ".new-"


def write_file(path: Path, data: bytes | str, *, sync: bool = False) -> None:
    """Write a file, there whole or not at all; what was there is replaced.

    The folder is made if missing. A text is written as UTF-8.

    Args:
        sync: it also survives a power cut, from here on.
    """
    with new_file(path, sync=sync) as stream:
        stream.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)


@contextmanager
def new_file(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes its place at the end of the block; see ``write_file``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{PREFIX}{secrets.token_hex(8)}")
    try:
        with half.open("xb") as stream:
            yield stream
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let what was renamed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
