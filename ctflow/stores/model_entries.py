"""Models and predictions in a folder: entries that are whole or not there.

``sha256-<digest>/<name>`` holds a model. An entry is written beside its place and renamed into it.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from ctflow.errors import StateError
from ctflow.lib.digests import (
    digest_bytes,
    digest_file,
    digest_listing,
    digest_path,
    hexadecimal,
    listing,
)
from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, PredictionsKey

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def entry_name(digest: str) -> str:
    """The name of a model's entry."""
    return f"sha256-{hexadecimal(digest)}"


#: As ``ctflow.lib.digests.listing`` gives a folder's files.
Rows = list[tuple[bytes, str, int]]


@dataclass(frozen=True)
class Source:
    """A run's model as it lies here. ``rows`` are a folder's files; None: it is a file."""

    place: Path
    digest: str
    size: int
    rows: Rows | None


def checked_source(artifact: Artifact) -> Source:
    """The model of a run, read once.

    Raises:
        StateError: it is gone, or is not what the run recorded any more.
    """
    place = Path(artifact.uri)
    try:
        rows = listing(place) if place.is_dir() else None
        digest, size = digest_file(place) if rows is None else digest_listing(rows)
    except FileNotFoundError:
        raise StateError(f"the model {place} is gone", next="run the pipeline again") from None
    if digest != artifact.digest:
        raise StateError(
            f"the model {place} was changed after its run", next="run the pipeline again"
        )
    return Source(place, digest, size, rows)


def whole(entry: Path, digest: str) -> Path | None:
    """The content of an entry, read and found to be that of its digest; or None."""
    content = list(entry.iterdir()) if entry.is_dir() else []
    return content[0] if len(content) == 1 and digest_path(content[0])[0] == digest else None


@contextmanager
def fresh_folder(root: Path) -> Iterator[Path]:
    """A new folder beside the entries; what is left of it at the end is removed."""
    root.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def publish(fresh: Path, entry: Path, digest: str) -> Path:
    """Give a complete folder its place; its content. The first of two that do it stays."""
    _sync(fresh)
    fresh.chmod(0o755)
    if entry.exists() and whole(entry, digest) is None:
        shutil.rmtree(entry)  # damaged
    try:
        fresh.rename(entry)
    except OSError:
        if whole(entry, digest) is None:
            raise
    return next(entry.iterdir())


def predictions_folder(key: PredictionsKey) -> str:
    """Where a model's predictions lie: the model, and what else tells them apart."""
    text = "\0".join((key.output, key.evaluation_set, key.made))
    which = hexadecimal(digest_bytes(text.encode("utf-8", "surrogateescape")))
    return f"predictions/{hexadecimal(key.model)}/{which}"


def evidence_path(run: str, environment: str) -> str:
    """Where the document lies that says what a promotion of a run's model needs."""
    # Ids are a server's: what is no plain name is not to lead elsewhere.
    plain = run if _PLAIN.fullmatch(run) else hexadecimal(digest_bytes(run.encode()))
    return f"evidence/{plain}/{environment}.json"


@contextmanager
def packed_predictions(content: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Predictions as one gzip file in ``folder``, removed at the end, and its digest.

    The same predictions give the same file, packed before or not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = next(iter(sorted(content.iterdir()))) if content.is_dir() else content
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream, source.open("rb") as data:
            with _plain(data) as plain, gzip.GzipFile("", "wb", 6, stream, mtime=0) as out:
                shutil.copyfileobj(plain, out)
            stream.flush()
            os.fsync(stream.fileno())
        yield Path(temporary), digest_file(Path(temporary))[0]
    finally:
        Path(temporary).unlink(missing_ok=True)


def _plain(data: BufferedReader) -> IO[bytes]:
    """``data`` as plain bytes, whether it is gzip's already or not."""
    if data.peek(2)[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=data))
    return data


def _sync(folder: Path) -> None:
    """Have everything in ``folder`` on the disk before it gets its name."""
    for where, _, files in os.walk(folder):
        for name in (*files, "."):
            handle = os.open(Path(where) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
