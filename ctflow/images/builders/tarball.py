"""Deterministic tar streams: sorted, owned by root, one time stamp, modes 0644, 0755 and 0777."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from ctflow.steps.context import ContextFile

#: 1980-01-01, the oldest that zip files can hold: tools that pack what they find need no care.
EPOCH = 315532800


def write_tar(
    target: IO[bytes],
    files: Iterable[ContextFile],
    *,
    prefix: str = "",
    time: int = EPOCH,
    owner: tuple[int, int] = (0, 0),
    folders: bool = False,
    there: frozenset[str] = frozenset(),
    made: Iterable[str] = (),
    changed: Callable[[ContextFile], Exception],
) -> None:
    """Write files to a stream, one block at a time in memory.

    Args:
        prefix: goes before all paths, such as ``step/``.
        folders: write the folders too, as an image's layer needs them, but those that are
            ``there`` already, whose modes and owners would change; and those to be ``made``.
        changed: makes the exception for a file that is not any more as long as it was.
    """
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        written = set(there)

        def lead_to(path: str) -> None:
            for folder in _parents(path) if folders else ():
                if folder not in written:
                    written.add(folder)
                    tar.addfile(_info(folder, tarfile.DIRTYPE, 0o755, time, owner))

        for folder in made:
            lead_to(f"{folder}/.")
        for one in files:
            path = prefix + one.path
            lead_to(path)
            if one.kind == "folder":
                if path not in written:
                    tar.addfile(_info(path, tarfile.DIRTYPE, 0o755, time, owner))
                    written.add(path)
                continue
            if one.kind == "link":
                info = _info(path, tarfile.SYMTYPE, 0o777, time, owner)
                info.linkname = one.target
                tar.addfile(info)
                continue
            info = _info(path, tarfile.REGTYPE, 0o755 if one.kind == "exec" else 0o644, time, owner)
            info.size = one.size
            with open(one.source, "rb") as source:  # noqa: PTH123
                if os.fstat(source.fileno()).st_size != one.size:
                    raise changed(one)
                try:
                    tar.addfile(info, source)
                except OSError as error:
                    if "unexpected end of data" in str(error):
                        raise changed(one) from None
                    raise


def _info(path: str, kind: bytes, mode: int, time: int, owner: tuple[int, int]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, time
    info.uid, info.gid = owner
    return info


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)


class Pipe(io.RawIOBase):
    """A writer for ``write_tar`` that gives each block to a function."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self._write = write

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Pass on."""
        block = bytes(data)  # type: ignore[call-overload]
        self._write(block)
        return len(block)
