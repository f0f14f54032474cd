"""Sending blobs: mounted from another repository, in one piece, or in chunks that can resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import requests

from ctflow.errors import OutsideError
from ctflow.images.registry.http import Host
from ctflow.images.registry.refusals import Refused

#: From this size on a blob is sent in chunks, so that a broken connection costs one of them.
CHUNKED_FROM = 32 << 20
CHUNK = 16 << 20
_READ = 1 << 18
_RANGE = re.compile(r"(?:bytes=)?(\d+)-(\d+)")


@dataclass(frozen=True)
class Blob:
    """What is to be sent. ``open`` gives its bytes from the start, each time anew."""

    digest: str
    size: int
    open: Callable[[], BinaryIO]

    @staticmethod
    def of_bytes(data: bytes, digest: str) -> Blob:
        """A blob in memory."""
        import io

        return Blob(digest, len(data), lambda: io.BytesIO(data))

    @staticmethod
    def of_file(path: Path, digest: str) -> Blob:
        """A blob in a file."""
        return Blob(digest, path.stat().st_size, lambda: path.open("rb"))


class _Piece:
    """Bytes ``start`` to ``start + size`` of a blob, with a length that requests can tell."""

    def __init__(self, blob: Blob, start: int, size: int) -> None:
        self._blob, self._start, self._size = blob, start, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        left = self._size
        with self._blob.open() as file:
            file.seek(self._start)
            while left > 0 and (data := file.read(min(_READ, left))):
                left -= len(data)
                yield data


def upload(host: Host, repository: str, blob: Blob, mount: str | None) -> bool:
    """Send a blob that the repository does not have; False where the registry mounted it.

    What was sent of one that fails is given up, so that it does not fill the registry's disk.

    Raises:
        OutsideError: as ``Host.request`` does.
    """
    attempts = host.patience.attempts
    for attempt in range(1, attempts + 1):
        place = begin(host, repository, blob.digest, mount)
        if place is None:
            return False
        at = _At(place)
        try:
            _send(host, repository, blob, at)
            return True
        except _NoChunks:
            host.takes_chunks = False
            give_up(host, repository, at.place)
            return upload(host, repository, blob, None)
        except _Lost:
            if attempt == attempts:
                raise OutsideError(
                    f"registry {host.name} lost the upload of {blob.digest[:19]} several times",
                    cause="it may be behind a load balancer without shared storage",
                    next="see the registry's own log",
                ) from None
        except BaseException as error:
            give_up(host, repository, at.place)
            again = isinstance(error, OutsideError) and not isinstance(error, Refused)
            if attempt == attempts or not again:
                raise
            # A blob in one piece has no state worth keeping: begin anew.
            host.patience.wait(attempt, None)
    raise AssertionError("attempts is at least 1")


def give_up(host: Host, repository: str, place: str) -> None:
    """Let the registry forget an upload, as far as it can.

    docker-registry cannot where it broke off within a piece: it forgets those after a week.
    """
    with suppress(OutsideError):
        host.request(
            "DELETE", place, repository=repository, push=True, attempts=1,
            accept=frozenset(range(400, 600)),
        )  # fmt: skip


@dataclass
class _At:
    """Where an upload goes on; the registry names another place after each piece."""

    place: str


def _send(host: Host, repository: str, blob: Blob, at: _At) -> None:
    if blob.size >= CHUNKED_FROM and host.takes_chunks:
        _chunks(host, repository, blob, at)
        _finish(host, repository, blob, at.place, None)
    else:
        _finish(host, repository, blob, at.place, _Piece(blob, 0, blob.size))


class _Lost(Exception):  # the signal to begin again
    """The registry does not know the upload any more."""


class _NoChunks(Exception):  # the signal to begin again, in one piece
    """The registry does not take a blob in chunks, as not all do."""


#: What registries without chunks answer to one, or to the request that closes an upload of chunks:
#: the specification's 416 for a chunk out of order, statuses for what they do not know, and 500.
_REFUSED_CHUNK = frozenset({400, 404, 405, 411, 416, 501})
_REFUSED_CLOSING = _REFUSED_CHUNK | {500}


def begin(host: Host, repository: str, digest: str = "", mount: str | None = None) -> str | None:
    """The place to send to; None: mounted. Raises OutsideError: the registry takes nothing."""
    path = f"/v2/{repository}/blobs/uploads/"
    if mount:
        try:
            # With one token for both repositories: the one to be pushed to does not do.
            answer = host.request(
                "POST", f"{path}?mount={digest}&from={quote(mount, safe='')}",
                repository=repository, push=True, reads=mount,
                accept=frozenset({400, 404, 405}),
            )  # fmt: skip
            if answer.status_code < 400:
                return None if answer.status_code == 201 else _place(host, answer)
        except Refused:
            pass  # it may still be uploaded; if not, the next answer says why
    answer = host.request("POST", path, repository=repository, push=True)
    return _place(host, answer)


def _place(host: Host, answer: requests.Response) -> str:
    place = answer.headers.get("Location", "")
    if not place:
        raise OutsideError(f"registry {host.name} did not say where to upload to")
    # By RFC 3986: relative to the URL that answered.
    place = urljoin(answer.url, place)
    parts = urlsplit(place)
    if parts.scheme == "http" and host.base.startswith("https://"):
        # A registry behind a proxy that ends TLS names itself without it.
        place = parts._replace(scheme="https").geturl()
    return place


def _finish(host: Host, repository: str, blob: Blob, place: str, body: _Piece | None) -> None:
    joiner = "&" if "?" in place else "?"
    answer = host.request(
        "PUT",
        f"{place}{joiner}digest={quote(blob.digest)}",
        repository=repository,
        push=True,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body) if body else 0),
        },
        body=(lambda: body) if body is not None else None,
        accept=frozenset({404, 416}) if body is not None else _REFUSED_CLOSING,
        attempts=1,
    )
    if answer.status_code >= 400:
        raise _Lost if body is not None else _NoChunks


def _chunks(host: Host, repository: str, blob: Blob, at: _At) -> None:
    start, failures = 0, 0
    while start < blob.size:
        size = min(CHUNK, blob.size - start)
        piece = _Piece(blob, start, size)
        try:
            answer = host.request(
                "PATCH", at.place, repository=repository, push=True, attempts=1,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{start}-{start + size - 1}",
                    "Content-Length": str(size),
                },
                body=lambda piece=piece: piece,  # type: ignore[misc]
                accept=_REFUSED_CHUNK,
            )  # fmt: skip
        except Refused:
            raise
        except OutsideError:
            failures += 1
            if failures >= host.patience.attempts:
                raise
            host.patience.wait(failures, None)
            at.place, start = _where(host, repository, at.place)
            continue
        if answer.status_code >= 400:
            raise _NoChunks
        failures = 0
        at.place = _place(host, answer)
        start += size


def _where(host: Host, repository: str, place: str) -> tuple[str, int]:
    """(the upload's place, how many bytes the registry has)."""
    answer = host.request(
        "GET", place, repository=repository, push=True, accept=frozenset({400, 404})
    )
    if answer.status_code >= 400:
        raise _Lost
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    # "0-0" is both nothing and one byte; nothing is the safe reading.
    have = int(match[2]) + 1 if match and int(match[2]) else 0
    return (_place(host, answer) if answer.headers.get("Location") else place), have
