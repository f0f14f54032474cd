"""Files to and from a bucket: in parts, a few at a time, and never with other content than said.

Memory is bounded by what is on its way: some parts for each of the ``_AT_ONCE`` threads.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.lib.digests import digest_bytes
from ctflow.stores.object_store.bucket import PART, Bucket, part_size
from ctflow.stores.object_store.manifest import File

#: Files that are sent, or parts that are read, at the same time.
_AT_ONCE = 4


def upload(bucket: Bucket, files: Iterable[tuple[str, Path, File]]) -> None:
    """Send files: (path of the object, the file here, what it must hold).

    An object is there only when all its bytes were read and found to be what they must be.

    Raises:
        StateError: a file holds something else than was said.
        OutsideError: the store fails or refuses.
    """
    with _Crew() as crew:
        for path, place, file in files:
            crew.start(partial(_send, bucket, path, place, file, crew.stopped))


def download(
    bucket: Bucket,
    files: Iterable[tuple[str, Path, int]],
    again: str = "promote its run again: what is missing is sent",
) -> None:
    """Fetch objects: (path of the object, the file to write, its size in bytes).

    Args:
        again: what to do where an object is missing, or cut short.

    Raises:
        OutsideError: an object is missing or has another size, the store fails, or the disk does.
    """
    with _Crew() as crew:
        for path, place, size in files:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as stream:
                stream.truncate(size)
            for start in range(0, size, PART):
                length = min(PART, size - start)
                crew.start(partial(_fetch, bucket, path, place, start, length, again))


class _Crew:
    """Some threads. The first error of a job stops what has not begun, and comes out at the end.

    The caller's thread only waits, so that Ctrl-C is heard at once.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ctflow-store")
        self._room = threading.Semaphore(4 * _AT_ONCE)
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Begin a job as soon as there is room: a folder may hold very many files."""
        self._room.acquire()
        self._pool.submit(self._run, job)

    def _run(self, job: Callable[[], None]) -> None:
        try:
            if not self.stopped.is_set():
                job()
        except BaseException as error:  # noqa: BLE001 (raised in the caller's thread)
            if not self.stopped.is_set():
                self._error = error
            self.stopped.set()
        finally:
            self._room.release()

    def __enter__(self) -> _Crew:  # noqa: PYI034 (Self is Python 3.11's)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.stopped.set()
        try:
            self._pool.shutdown(wait=True)
        except BaseException:
            self.stopped.set()
            raise
        if error is None and self._error is not None:
            raise self._error


class _Stopped(Exception):
    """Another file failed, or the user stopped it: the rest of this one is not sent."""


def _send(bucket: Bucket, path: str, place: Path, file: File, stopped: threading.Event) -> None:
    if file.size <= PART:
        with place.open("rb") as stream:
            data = stream.read(PART + 1)
        _check(digest_bytes(data), file, place)
        bucket.write(path, data)
        return
    bucket.write_parts(path, file.size, _parts(place, file, stopped))


def _parts(place: Path, file: File, stopped: threading.Event) -> Iterator[bytes]:
    """The file in parts. The last one comes only if all of them were right.

    So the store never has all parts of a file that changed while it was read.
    """
    sha = hashlib.sha256()
    length = part_size(file.size)
    with place.open("rb") as stream:
        part = stream.read(length)
        while part:
            if stopped.is_set():
                raise _Stopped
            sha.update(part)
            following = stream.read(length)
            if not following:
                _check(f"sha256:{sha.hexdigest()}", file, place)
            yield part
            part = following


def _check(digest: str, file: File, place: Path) -> None:
    if digest != file.digest:
        raise StateError(f"{place} changed while it was read", next="promote it again")


def _fetch(bucket: Bucket, path: str, place: Path, start: int, length: int, again: str) -> None:
    try:
        data = bucket.read_part(path, start, length)
    except FileNotFoundError:
        raise OutsideError(
            f"the object {bucket.uri(path)} is missing",
            cause="somebody removed it",
            next=again,
        ) from None
    if len(data) != length:
        raise OutsideError(
            f"the object {bucket.uri(path)} is cut short",
            next=again,
        )
    descriptor = os.open(place, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, start + length - len(view))
            view = view[written:]
    finally:
        os.close(descriptor)
