"""The content digest of a file or a folder: ``sha256:`` and 64 hexadecimal digits.

A file's digest is that of its bytes, so ``sha256sum`` gives the same. A folder's is the SHA-256 of
its listing: for each file, sorted by the bytes of its path, a line of path, NUL, file digest, LF.
Time stamps, modes and empty folders do not count; a symbolic link counts as what it points to, and
one that leads out of the folder is refused, for its target could change behind the digest's back.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ctflow.errors import StateError

_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """The digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> tuple[str, int]:
    """(digest, size in bytes) of a file, read once in chunks. Raises OSError."""
    sha = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return f"sha256:{sha.hexdigest()}", size


def listing(path: Path) -> list[tuple[bytes, str, int]]:
    """(path below the folder, digest, size in bytes) of each file in a folder, sorted by path.

    Raises:
        OSError: it is missing, or cannot be read.
        StateError: a link in the folder leads out of it.
    """
    found = []
    base = path.resolve()
    for folder, names, files in os.walk(path):
        names.sort()
        here = Path(folder)
        for name in (*files, *(n for n in names if (here / n).is_symlink())):
            file = here / name
            if file.is_symlink() and not file.resolve().is_relative_to(base):
                raise StateError(
                    f"{file} links to {file.resolve()}, out of {path}", next="write a copy there"
                )
            if file.is_dir():
                raise StateError(f"{file} is a link to a folder", next="write a copy there")
            found.append((os.fsencode(file.relative_to(path)), *digest_file(file)))
    return sorted(found)


def digest_listing(files: Iterable[tuple[bytes, str, int]]) -> tuple[str, int]:
    """(digest, size in bytes) of a folder with these files, as ``listing`` gives them."""
    sha = hashlib.sha256()
    total = 0
    for relative, digest, size in files:
        sha.update(relative + b"\0" + digest.encode() + b"\n")
        total += size
    return f"sha256:{sha.hexdigest()}", total


def digest_path(path: Path) -> tuple[str, int]:
    """(digest, size in bytes) of a file or a folder. Raises as ``listing`` does."""
    return digest_listing(listing(path)) if path.is_dir() else digest_file(path)


def hexadecimal(digest: str) -> str:
    """The 64 digits of ``sha256:...``. Raises ValueError for anything else."""
    algorithm, _, text = digest.partition(":")
    if algorithm != "sha256" or len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is not a sha256 digest")
    return text


def short(digest: str | None, length: int = 12) -> str:
    """A digest as people read it: its first hexadecimal digits; ``-`` for none."""
    return digest.partition(":")[2][:length] if digest else "-"
