"""One layer of an image: a gzipped tar that is the same for the same files, everywhere."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ctflow.errors import StateError
from ctflow.images.builders.tarball import EPOCH, Pipe, write_tar
from ctflow.steps.context import ContextFile

#: Half the time of zlib's default for a few per cent of the size.
_LEVEL = 4
#: A gzip header without name and time: the same bytes for the same content.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class Layer:
    """A packed layer: the digest of the compressed file, that of the tar inside, size in bytes."""

    digest: str
    diff: str
    size: int
    file: str


class _Gzip:
    def __init__(self, file: Path) -> None:
        self._out = file.open("wb")
        self._pack = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._inner, self._outer = hashlib.sha256(), hashlib.sha256()
        self._crc = self._length = self.size = 0
        self._write(_HEADER)

    def _write(self, data: bytes) -> None:
        self._outer.update(data)
        self.size += len(data)
        self._out.write(data)

    def feed(self, data: bytes) -> None:
        self._inner.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._write(self._pack.compress(data))

    def close(self) -> tuple[str, str]:
        self._write(self._pack.flush())
        self._write(self._crc.to_bytes(4, "little"))
        self._write((self._length & 0xFFFFFFFF).to_bytes(4, "little"))
        self._out.close()
        return f"sha256:{self._outer.hexdigest()}", f"sha256:{self._inner.hexdigest()}"

    def abort(self) -> None:
        self._out.close()


def pack(
    files: Iterable[ContextFile],
    target: Path,
    there: frozenset[str],
    made: Iterable[str] = (),
    *,
    changed: Callable[[ContextFile], Exception] | None = None,
    time: int = EPOCH,
) -> Layer:
    """Write a layer to ``target``, whole or not at all.

    Args:
        files: ``path`` is that in the image, without the first slash.
        there: folders that the base has; they stay as they are.
        made: folders to make, even if nothing is in them.
    """
    half = target.with_name(f".{target.name}.{os.getpid()}")
    gzip = _Gzip(half)
    try:
        write_tar(
            Pipe(gzip.feed),  # type: ignore[arg-type]
            sorted(files, key=lambda one: os.fsencode(one.path)),
            time=time, folders=True, there=there, made=sorted(made),
            changed=changed or _changed,
        )  # fmt: skip
        digest, diff = gzip.close()
        half.replace(target)
    except BaseException:
        gzip.abort()
        half.unlink(missing_ok=True)
        raise
    return Layer(digest, diff, gzip.size, str(target))


def _changed(one: ContextFile) -> Exception:
    return StateError(f"{one.source} changed while it was read", next="run the same command again")
