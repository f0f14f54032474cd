"""The model store in a folder of this machine: the ``ModelStore`` port.

Layout: ``sha256-<digest>/<name>`` holds a model, ``predictions/<model>/<key>/<digest>.gz`` some of
its predictions, where the key is the SHA-256 of their output, evaluation set and making. An entry
is written beside its place and renamed into it, so it is whole or not there.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from ctflow.errors import OutsideError, StateError
from ctflow.lib.copying import copy_tree
from ctflow.lib.digests import digest_bytes, digest_file, digest_path, hexadecimal
from ctflow.model import Artifact, ModelRef, PredictionsKey


class FolderStore:
    """Models under ``root``, which is made when the first one comes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, artifact: Artifact, format: str) -> ModelRef:
        """Keep a model under its digest; the same content twice is kept once.

        Raises:
            StateError: the artifact is gone, or is not what the run recorded any more.
        """
        source = Path(artifact.uri)
        try:
            digest, size = digest_path(source)
        except FileNotFoundError:
            raise StateError(f"the model {source} is gone", next="run the pipeline again") from None
        if digest != artifact.digest:
            raise StateError(
                f"the model {source} was changed after its run", next="run the pipeline again"
            )
        entry = self._entry(digest)
        if not self._whole(entry, digest):
            self._copy(source, entry, digest)
        place = next(entry.iterdir())
        return ModelRef(place.as_uri(), digest, format, size)

    def has(self, digest: str) -> bool:
        """Whether it holds the model."""
        return self._entry(digest).is_dir()

    def fetch(self, digest: str) -> Path:
        """The model's content, checked against its digest.

        Raises:
            OutsideError: the store has no such model, or its content is damaged.
        """
        entry = self._entry(digest)
        if not entry.is_dir():
            raise OutsideError(
                f"the model store {self._root} has no model {digest}",
                next="get it with `ctflow store pull FOLDER`, or name the team's folder in"
                " store.models",
            )
        if not self._whole(entry, digest):
            raise OutsideError(
                f"the model {digest} in {entry} is damaged",
                next="remove that folder and promote its run again",
            )
        return next(entry.iterdir())

    def put_predictions(self, key: PredictionsKey, content: Path) -> tuple[str, str]:
        """Keep a model's predictions; (URI, digest of the kept file)."""
        folder = self._predictions(key)
        folder.mkdir(parents=True, exist_ok=True)
        source = next(iter(sorted(content.iterdir()))) if content.is_dir() else content
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as stream, source.open("rb") as data:
                with _plain(data) as plain, gzip.GzipFile("", "wb", 6, stream, mtime=0) as out:
                    shutil.copyfileobj(plain, out)
                stream.flush()
                os.fsync(stream.fileno())
            digest, _ = digest_file(Path(temporary))
            place = folder / f"{hexadecimal(digest)}.gz"
            Path(temporary).replace(place)
        finally:
            Path(temporary).unlink(missing_ok=True)
        for other in folder.iterdir():
            if other != place and not other.name.startswith(".new-"):
                other.unlink(missing_ok=True)
        return place.as_uri(), digest

    def fetch_predictions(self, key: PredictionsKey) -> tuple[Path, str] | None:
        """A model's predictions and their digest, or None.

        Raises:
            OutsideError: they are not what was kept.
        """
        folder = self._predictions(key)
        found = sorted(folder.glob("[0-9a-f]*.gz")) if folder.is_dir() else []
        if not found:
            return None
        digest, _ = digest_file(found[-1])
        if found[-1].name != f"{hexadecimal(digest)}.gz":
            raise OutsideError(f"the kept predictions {found[-1]} are damaged", next="remove it")
        return found[-1], digest

    def _entry(self, digest: str) -> Path:
        return self._root / f"sha256-{hexadecimal(digest)}"

    def _predictions(self, key: PredictionsKey) -> Path:
        text = "\0".join((key.output, key.evaluation_set, key.made))
        which = hexadecimal(digest_bytes(text.encode("utf-8", "surrogateescape")))
        return self._root / "predictions" / hexadecimal(key.model) / which

    def _whole(self, entry: Path, digest: str) -> bool:
        content = list(entry.iterdir()) if entry.is_dir() else []
        return len(content) == 1 and digest_path(content[0])[0] == digest

    def _copy(self, source: Path, entry: Path, digest: str) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self._root, prefix=".new-"))
        try:
            target = fresh / source.name
            if source.is_dir():
                copy_tree(source, target)
            else:
                shutil.copyfile(source, target)
            if digest_path(target)[0] != digest:
                raise StateError(f"{source} changed while it was read", next="promote it again")
            _sync(fresh)
            fresh.chmod(0o755)
            if entry.exists() and not self._whole(entry, digest):
                shutil.rmtree(entry)  # damaged
            try:
                fresh.rename(entry)
            except OSError:
                if not self._whole(entry, digest):
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


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
