"""The model store in a folder of this machine: the ``ModelStore`` port.

Layout: ``sha256-<digest>/<name>`` holds a model, ``predictions/<model>/<key>/<digest>.gz`` some of
its predictions, where the key is the SHA-256 of their output, evaluation set and making;
``evidence/<run>/<environment>.json`` what a promotion of a run's model needs. An entry
is written beside its place and renamed into it, so it is whole or not there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.lib.copying import copy_tree
from ctflow.lib.digests import digest_file, digest_path, hexadecimal
from ctflow.lib.files import write_file
from ctflow.model import Artifact, ModelRef, PredictionsKey
from ctflow.stores.model_entries import (
    checked_source,
    entry_name,
    evidence_path,
    fresh_folder,
    packed_predictions,
    predictions_folder,
    publish,
    whole,
)


class FolderStore:
    """Models under ``root``, which is made when the first one comes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        """Nothing: the folder is made when it is needed."""

    def put(self, artifact: Artifact, format: str, source: str = "") -> ModelRef:
        """Keep a model under its digest; the same content twice is kept once.

        ``source`` is of no use to a folder.

        Raises:
            StateError: the artifact is gone, or is not what the run recorded any more.
        """
        found = checked_source(artifact)
        entry = self._entry(found.digest)
        place = whole(entry, found.digest) or self._copy(found.place, entry, found.digest)
        return ModelRef(place.as_uri(), found.digest, format, found.size)

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
                next="get it with `ctflow store pull STORE`, or name the team's store in"
                " store.models",
            )
        content = whole(entry, digest)
        if content is None:
            raise OutsideError(
                f"the model {digest} in {entry} is damaged",
                next="remove that folder and promote its run again",
            )
        return content

    def put_predictions(self, key: PredictionsKey, content: Path) -> tuple[str, str]:
        """Keep a model's predictions; (URI, digest of the kept file)."""
        folder = self._root / predictions_folder(key)
        with packed_predictions(content, folder) as (packed, digest):
            place = packed.replace(folder / f"{hexadecimal(digest)}.gz")
        for other in folder.iterdir():
            if other != place and not other.name.startswith(".new-"):
                other.unlink(missing_ok=True)
        return place.as_uri(), digest

    def fetch_predictions(self, key: PredictionsKey) -> tuple[Path, str] | None:
        """A model's predictions and their digest, or None.

        Raises:
            OutsideError: they are not what was kept.
        """
        folder = self._root / predictions_folder(key)
        found = sorted(folder.glob("[0-9a-f]*.gz")) if folder.is_dir() else []
        if not found:
            return None
        digest, _ = digest_file(found[-1])
        if found[-1].name != f"{hexadecimal(digest)}.gz":
            raise OutsideError(f"the stored predictions {found[-1]} are damaged", next="remove it")
        return found[-1], digest

    def put_evidence(self, run: str, environment: str, content: bytes) -> str:
        """Keep the document of a run and an environment; its URI."""
        place = self._root / evidence_path(run, environment)
        write_file(place, content)
        return place.as_uri()

    def fetch_evidence(self, run: str, environment: str) -> bytes | None:
        """The document of a run and an environment, or None."""
        place = self._root / evidence_path(run, environment)
        return place.read_bytes() if place.is_file() else None

    def _entry(self, digest: str) -> Path:
        return self._root / entry_name(digest)

    def _copy(self, source: Path, entry: Path, digest: str) -> Path:
        with fresh_folder(self._root) as fresh:
            target = fresh / source.name
            if source.is_dir():
                copy_tree(source, target)
            else:
                shutil.copyfile(source, target)
            if digest_path(target)[0] != digest:
                raise StateError(f"{source} changed while it was read", next="promote it again")
            return publish(fresh, entry, digest)
