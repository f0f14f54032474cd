"""One bucket, or the part of it below a prefix: what is asked of the library (obstore).

The library tries every call again after a dropped connection, a timeout and a 5xx answer, with
pauses that grow (``opening``). What then is still wrong comes out as an OutsideError of one line
(``faults``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ctflow.errors import CtflowError, OutsideError
from ctflow.stores.object_store.faults import Where, broke_off, status_of, translated

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

T = TypeVar("T")

#: Seconds before an answer that broke off is asked for again.
_PAUSES = (0.1, 0.5, 2.0)
#: What is sent or read in one request, in bytes. A store takes 10,000 parts of an object at most.
PART = 8 << 20
_MOST_PARTS = 10_000
#: Parts of one object that are on their way at the same time.
_PARTS_AT_ONCE = 2


class Bucket:
    """Objects below a URL, by their paths relative to it."""

    def __init__(self, store: S3Store | GCSStore | AzureStore, where: Where, base: str) -> None:
        self._store = store
        self._where = where
        self._base = base

    def __str__(self) -> str:
        """The store's URL."""
        return str(self._where.url)

    def uri(self, path: str) -> str:
        """The URI under which others find the object, or all below it: KServe's downloader too."""
        return f"{self._base}/{path}"

    def sizes(self, folder: str) -> dict[str, int]:
        """The objects below a folder, with their sizes in bytes."""
        import obstore

        found = self._reading(
            f"list {folder}", lambda: obstore.list(self._store, folder, chunk_size=1000).collect()
        )
        return {str(one["path"]): int(one["size"]) for one in found}

    def stamps(self, path: str) -> dict[str, tuple[int, str]]:
        """The object of a path, or those below it: (size in bytes, ETag or time of writing)."""
        import obstore

        def stamp(meta: Any) -> tuple[int, str]:
            return int(meta["size"]), str(meta["e_tag"] or meta["last_modified"])

        try:
            one = self._reading(f"read {path}", lambda: obstore.head(self._store, path))
        except FileNotFoundError:
            found = self._reading(
                f"list {path}", lambda: obstore.list(self._store, path, chunk_size=1000).collect()
            )
            return {str(meta["path"]): stamp(meta) for meta in found}
        return {path: stamp(one)}

    def check(self) -> None:
        """Raise OutsideError where the bucket cannot be read: not there, not ours, not reached."""
        import obstore

        self._reading(
            "list objects",
            lambda: next(iter(obstore.list(self._store, "manifests", chunk_size=1)), None),
        )

    def read(self, path: str, most: int) -> bytes | None:
        """A small object, or None where there is none. Raises OutsideError if it is larger."""
        import obstore

        def get() -> bytes:
            found = obstore.get(self._store, path)
            if found.meta["size"] > most:
                raise OutsideError(
                    f"the object {self.uri(path)} has {found.meta['size']:,} bytes",
                    cause="ctflow did not write it",
                    next="remove it",
                )
            return bytes(found.bytes())

        try:
            return self._reading(f"read {path}", get)
        except FileNotFoundError:
            return None

    def read_part(self, path: str, start: int, length: int) -> bytes:
        """Bytes of an object, fewer where it ends before.

        Raises FileNotFoundError where there is no such object, else OutsideError.
        """
        import obstore
        from obstore.exceptions import BaseError

        def get() -> bytes:
            try:
                return bytes(obstore.get_range(self._store, path, start=start, length=length))
            except BaseError as error:
                if status_of(error) == 416:  # it ends before the first of them
                    return b""
                raise

        return self._reading(f"read {path}", get)

    def write(self, path: str, data: bytes) -> None:
        """Write an object, in the place of what was there; it is there whole or not."""
        import obstore

        with self._asking(f"write {path}"):
            obstore.put(self._store, path, data, use_multipart=False)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small object that is not there yet; False where it is."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        try:
            with self._asking(f"write {path}"):
                obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        except NotSupportedError:  # an old server
            if self.read(path, len(data)) is not None:
                return False
            self.write(path, data)
        return True

    def write_parts(self, path: str, size: int, parts: Iterator[bytes]) -> None:
        """Write an object in parts of ``part_size(size)`` bytes, which are there together or not.

        What ``parts`` raises comes out as it is, and the object is not written.
        """
        import obstore

        with self._asking(f"write {path}"):
            obstore.put(
                self._store, path, parts,
                use_multipart=True, chunk_size=part_size(size), max_concurrency=_PARTS_AT_ONCE,
            )  # fmt: skip

    def copy(self, path: str, target: str) -> None:
        """Let the store copy an object. Raises FileNotFoundError, OutsideError."""
        import obstore

        with self._asking(f"copy {path}"):
            obstore.copy(self._store, path, target)

    def remove(self, path: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        try:
            with self._asking(f"remove {path}"):
                obstore.delete(self._store, path)
        except FileNotFoundError:
            return

    def _reading(self, doing: str, call: Callable[[], T]) -> T:
        """A call that changes nothing, again where its answer broke off.

        The library asks again where no answer begins, and not where one ends too early.
        """
        from obstore.exceptions import BaseError

        for pause in _PAUSES:
            try:
                with self._asking(doing):
                    return call()
            except OutsideError as error:
                if not isinstance(error.__cause__, BaseError) or not broke_off(error.__cause__):
                    raise
                time.sleep(pause)
        with self._asking(doing):
            return call()

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError

        try:
            yield
        except (AlreadyExistsError, NotSupportedError, CtflowError):
            raise
        except FileNotFoundError as error:
            # The library says the same of a bucket that is not there.
            if (fault := translated(error, self._where, doing)).fact.startswith("there is no b"):
                raise fault from None
            raise
        except (BaseError, ValueError) as error:
            raise translated(error, self._where, doing) from error


def part_size(size: int) -> int:
    """The size in bytes of an object's parts: ``PART``, or what makes them few enough."""
    return max(PART, -(-size // _MOST_PARTS))
