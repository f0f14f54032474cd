"""The model store in a bucket: the ``ModelStore`` port.

Layout below the store's URL::

    sha256-<digest>/<name>[/...]          a model's files as plain objects: KServe downloads these
    manifests/<digest>.json               written last: what has one is complete
    predictions/<model>/<key>/<digest>.gz a model's predictions; all that were kept stay
    predictions/<model>/<key>/current     which of them were kept last

Two writers of one model write the same objects, so neither harms the other. A writer that was
killed leaves files without a manifest; the next one sends only what is missing. Readers get a local
copy in the user's cache folder, ``models/``, where an entry is whole or not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.lib.digests import digest_file, hexadecimal
from ctflow.model import Artifact, ModelRef, PredictionsKey
from ctflow.stores.local_copies import LocalCopies
from ctflow.stores.local_disk import disk
from ctflow.stores.model_entries import (
    Source,
    checked_source,
    entry_name,
    evidence_path,
    fresh_folder,
    packed_predictions,
    predictions_folder,
    publish,
    whole,
)
from ctflow.stores.object_store.bucket import Bucket
from ctflow.stores.object_store.copying import Origin
from ctflow.stores.object_store.manifest import (
    MOST,
    File,
    Manifest,
    manifest_path,
    parse_manifest,
    plain_name,
)
from ctflow.stores.object_store.transfer import download, upload


class ObjectStore:
    """Models in ``bucket``; their local copies below ``cache``, the user's cache folder.

    Args:
        project: the local state of the project that asks, whose servers may need the copies.
        origin: where the store can copy the content of a URI from itself.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        project: Path | None = None,
        origin: Callable[[str], Origin | None] = lambda source: None,
    ) -> None:
        self._bucket = bucket
        self._origin = origin
        self._cache = cache / "models"
        self._copies = LocalCopies(self._cache, project)

    def check(self) -> None:
        """Raise OutsideError where the bucket is not there, not ours to read, or not reached."""
        self._bucket.check()

    def put(self, artifact: Artifact, format: str, source: str = "") -> ModelRef:
        """Keep a model under its digest; what of it is there already is not sent again.

        Nor is what the store can copy from ``source`` itself.

        Raises:
            StateError: the artifact is gone, is not what the run recorded, or has a name that an
                object store does not take.
            OutsideError: the store fails or refuses.
        """
        found = checked_source(artifact)
        digest = found.digest
        kept = self._manifest(digest)
        made = _manifest_of(found, kept.name if kept else plain_name(found.place.name))
        there = self._bucket.sizes(entry_name(digest))
        origin = self._origin(source) if source else None
        missing = (one for one in made.files if there.get(made.object_of(one)) != one.size)
        upload(
            self._bucket,
            (
                (made.object_of(file), found.place / file.path if file.path else found.place, file)
                for file in missing
                if origin is None or not origin.copied(made.object_of(file), file)
            ),
        )
        if kept is None and not self._bucket.create(manifest_path(digest), made.dump()):
            kept = self._manifest(digest)
            if kept is None:  # what lies there is no manifest
                self._bucket.write(manifest_path(digest), made.dump())
            elif kept.name != made.name:  # another writer's, under another name: its files count
                return self.put(artifact, format, source)
        return ModelRef(self._bucket.uri(made.place), digest, format, found.size)

    def has(self, digest: str) -> bool:
        """Whether it holds the model, complete."""
        return self._manifest(digest) is not None

    def fetch(self, digest: str) -> Path:
        """A local copy of the model, checked against its digest; made where there is none.

        Raises:
            OutsideError: the store has no such model, its content is damaged, or it fails.
        """
        entry = self._cache / entry_name(digest)
        with disk(self._cache):
            self._copies.hold(digest)
            return whole(entry, digest) or self._download(entry, digest)

    def put_predictions(self, key: PredictionsKey, content: Path) -> tuple[str, str]:
        """Keep a model's predictions; (URI, digest of the kept file).

        Those that were kept before stay: a release may name them.
        """
        folder = predictions_folder(key)
        with disk(self._cache), packed_predictions(content, self._cache / folder) as packed:
            place, digest = packed
            path = f"{folder}/{hexadecimal(digest)}.gz"
            upload(self._bucket, [(path, place, File("", digest, place.stat().st_size))])
            self._bucket.write(f"{folder}/current", f"{digest}\n".encode())
        return self._bucket.uri(path), digest

    def fetch_predictions(self, key: PredictionsKey) -> tuple[Path, str] | None:
        """A local copy of a model's predictions and their digest, or None.

        Raises:
            OutsideError: they are not what was kept, or the store fails.
        """
        folder = predictions_folder(key)
        said = self._bucket.read(f"{folder}/current", 1024)
        if said is None:
            return None
        try:
            digest = said.decode("ascii").removesuffix("\n")
            path = f"{folder}/{hexadecimal(digest)}.gz"
        except ValueError:
            raise self._damaged(f"{folder}/current") from None
        place = self._cache / path
        with disk(self._cache):
            self._copies.hold(key.model)
            if not place.is_file() or digest_file(place)[0] != digest:
                size = self._bucket.sizes(folder).get(path, -1)
                if size < 0:
                    raise self._damaged(f"{folder}/current")
                with fresh_folder(self._cache) as fresh:
                    download(self._bucket, [(path, fresh / place.name, size)])
                    if digest_file(fresh / place.name)[0] != digest:
                        raise self._damaged(path)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    (fresh / place.name).replace(place)
        return place, digest

    def put_evidence(self, run: str, environment: str, content: bytes) -> str:
        """Keep the document of a run and an environment; its URI."""
        path = evidence_path(run, environment)
        self._bucket.write(path, content)
        return self._bucket.uri(path)

    def fetch_evidence(self, run: str, environment: str) -> bytes | None:
        """The document of a run and an environment, or None."""
        return self._bucket.read(evidence_path(run, environment), MOST)

    def _manifest(self, digest: str) -> Manifest | None:
        data = self._bucket.read(manifest_path(digest), MOST)
        return None if data is None else parse_manifest(data, digest)

    def _download(self, entry: Path, digest: str) -> Path:
        made = self._manifest(digest)
        if made is None:
            raise OutsideError(
                f"the model store {self._bucket} has no model {digest}",
                next="bring it there with `ctflow store push` where it was promoted, or promote"
                " its run again",
            )
        with fresh_folder(self._cache) as fresh:
            target = fresh / made.name
            if made.folder:
                target.mkdir()
            places = [(f, target / f.path if made.folder else target) for f in made.files]
            download(
                self._bucket, ((made.object_of(file), place, file.size) for file, place in places)
            )
            for file, place in places:
                if digest_file(place)[0] != file.digest:
                    raise self._damaged(made.object_of(file))
            return publish(fresh, entry, digest)

    def _damaged(self, path: str) -> OutsideError:
        return OutsideError(
            f"the object {self._bucket.uri(path)} is damaged",
            cause="its content is not what was kept",
            next="remove it and promote its run again",
        )


def _manifest_of(source: Source, name: str) -> Manifest:
    """What the store keeps of a model here."""
    if source.rows is None:
        return Manifest(source.digest, name, False, (File("", source.digest, source.size),))
    files = (File(_text(path, source.place), one, size) for path, one, size in source.rows)
    return Manifest(source.digest, name, True, tuple(files))


def _text(path: bytes, source: Path) -> str:
    """A file's path as part of an object's. Raises StateError for what the stores do not take."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or len(path) > 800:
        raise StateError(
            f"the model {source} holds a file whose name an object store does not take:"
            f" {os.fsdecode(path)[:80]!r}",
            next="give it a name of printable characters",
        )
    return text
