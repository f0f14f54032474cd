"""Copies within a bucket that the store makes itself: nothing is sent from here.

The copy is read back under another name, and has its place only if its content is what it must be.
The library copies within one bucket, not from one to another.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from ctflow.errors import OutsideError
from ctflow.model.store_url import StoreUrl
from ctflow.stores.object_store.bucket import PART, Bucket
from ctflow.stores.object_store.manifest import File

#: What S3 copies in one request, in bytes.
_MOST = 5 << 30


class Origin:
    """A file or folder of the bucket that a store's objects can be copied from.

    Args:
        bucket: the whole bucket.
        path: where it lies there.
        target: the path, in the whole bucket, that the store's own paths are below; or empty.
    """

    def __init__(self, bucket: Bucket, path: str, target: str) -> None:
        self._bucket, self._path, self._target = bucket, path, target

    def copied(self, path: str, file: File) -> bool:
        """Make one of its files the store's object of that path; False where that cannot be."""
        if file.size > _MOST:
            return False
        source = f"{self._path}/{file.path}" if file.path else self._path
        target = f"{self._target}/{path}" if self._target else path
        trial = f"{target}.{secrets.token_hex(4)}.copy"
        try:
            self._bucket.copy(source, trial)
            try:
                right = self._digest(trial, file.size) == file.digest
                if right:
                    self._bucket.copy(trial, target)
            finally:
                self._bucket.remove(trial)
        except (OutsideError, FileNotFoundError):
            return False  # no right to, or not there: it is sent
        return right

    def _digest(self, path: str, size: int) -> str:
        sha = hashlib.sha256()
        for start in range(0, size, PART):
            sha.update(self._bucket.read_part(path, start, min(PART, size - start)))
        return f"sha256:{sha.hexdigest()}"


def origin_of(source: str, store: StoreUrl, root: Callable[[], Bucket]) -> Origin | None:
    """Where a store can copy a URI's content from itself; None where it lies elsewhere."""
    scheme, _, rest = source.partition("://")
    bucket, _, path = rest.partition("/")
    path = path.partition("?")[0].strip("/")
    if ({"minio": "s3"}.get(scheme, scheme), bucket) != (store.scheme, store.bucket) or not path:
        return None
    return Origin(root(), path, store.prefix)
