"""Who builds: machines that want the same image at once agree on one of them, in the registry.

A registry has no locks, only tags that anybody may write. A claim is what the tag
``ctflow-building`` beside a step's images names: an empty artifact whose annotations say which
content is being built, by whom, and when that was last said, by the registry's own clock. Whoever
wants to build

1. reads the tag: where another's claim for the same content is fresh, it waits for the image;
2. else writes its own claim, lets pass several times as long as reading and writing took, and reads
   again. Whoever wrote meanwhile has overwritten it, so only the last writer finds its own claim
   (Fischer's mutual exclusion; Lamport, "A fast mutual exclusion algorithm", ACM TOCS 5(1), 1987);
3. builds, and says every few seconds that it still does; at the end the tag says that nobody does.

A claim only saves work. Where it fails (a registry that takes no such artifact, a clock that is
wrong, a machine that stands still), two may build, as without it: before one pushes it looks again
and takes the image that is there, so what a package names is always what the registry has.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ctflow.errors import CtflowError, Interrupted
from ctflow.images.registry import Blob, Broken, OciRegistry
from ctflow.images.registry.oci import OCI_MANIFEST

TAG = "ctflow-building"
#: Seconds after which a claim is renewed, and after which one that was not is nobody's.
BEAT = 10.0
STALE = 45.0
#: Seconds between two looks for the image that another builds; what is waited for at least.
_POLL = (0.1, 1.0)
_SETTLE = 0.03
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class _Claim:
    content: str = ""
    owner: str = ""
    beat: int = 0


class Busy(Exception):  # the signal to do something else first
    """Another machine builds it now."""


def owner_of(locks: Path) -> str:
    """Names those who share a folder of locks: this machine since it was started, this folder.

    Copied caches make no two machines the same, and nothing of the machine can be read from it.
    """
    locks.mkdir(parents=True, exist_ok=True)
    status = locks.stat()
    words = [os.uname().nodename, str(status.st_dev), str(status.st_ino)]
    with suppress(OSError):  # Linux has it
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


class Claims:
    """Takes claims in a registry, for one process.

    Args:
        owner: names whoever builds; its processes keep out of each other's way by other means, so
            that a claim which one of them left behind is its own.
        stop: set when the process must end.
    """

    def __init__(
        self,
        registry: OciRegistry,
        owner: str,
        stop: threading.Event,
        beat: float = BEAT,
        stale: float = STALE,
    ) -> None:
        self._registry = registry
        self._stop = stop
        self._every = beat
        self._stale = stale
        self._owner = owner

    @contextmanager
    def held(
        self,
        name: str,
        content: str,
        image: Callable[[], str | None],
        waiting: Callable[[], None] | None,
    ) -> Iterator[str | None]:
        """The right to build ``content`` for the repository ``name``, while in the block.

        Args:
            image: looks for the image; its digest.
            waiting: called once if another's build is waited for; None: do not wait.

        Yields:
            None: build it. Else the digest of the image that another has built meanwhile.

        Raises:
            Busy: another builds it, and there was to be no waiting.
            OutsideError: the registry fails, or does not let us push.
        """
        while self._other(name, content):
            if waiting is None:
                raise Busy
            waiting()
            if (found := self._wait(name, content, image)) is not None:
                yield found
                return
        # Another may have ended between our look for the image and that for the claim.
        if (found := image()) is not None:
            yield found
            return
        over = threading.Event()
        beats = threading.Thread(target=self._keep, args=(name, content, over), daemon=True)
        beats.start()
        try:
            yield None
        finally:
            over.set()
            beats.join()
            with suppress(CtflowError):
                if self._read(name).owner == self._owner:
                    self._write(name, _Claim())

    def _other(self, name: str, content: str) -> bool:
        """Whether another builds the content; if not, it is claimed, as far as it can be."""
        # Twice: a registry that takes claims refuses one, too, while it writes another's.
        for _ in range(2):
            began = time.monotonic()
            if self._is_anothers(self._read(name), name, content):
                return True
            is_written = self._write(name, self._mine(name, content))
            self._pause(max(_SETTLE, 3 * (time.monotonic() - began)))
            if is_written:
                break
        return self._is_anothers(self._read(name), name, content)

    def _is_anothers(self, claim: _Claim, name: str, content: str) -> bool:
        if claim.content != content or claim.owner == self._owner:
            return False
        return abs(self._registry.clock(name) - claim.beat) < self._stale

    def _wait(self, name: str, content: str, image: Callable[[], str | None]) -> str | None:
        """The image that another builds; None: it does not build it any more."""
        pause = _POLL[0]
        while True:
            self._pause(pause)
            if (found := image()) is not None:
                return found
            if not self._is_anothers(self._read(name), name, content):
                return None
            pause = min(_POLL[1], pause * 1.5)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Interrupted("stopped while waiting for another machine")

    def _keep(self, name: str, content: str, over: threading.Event) -> None:
        while not over.wait(self._every):
            # One that fails is made up for by the next; one that another took stays with it.
            with suppress(CtflowError):
                if self._read(name).owner not in (self._owner, ""):
                    return
                self._write(name, self._mine(name, content))

    def _mine(self, name: str, content: str) -> _Claim:
        return _Claim(content, self._owner, int(self._registry.clock(name)))

    def _read(self, name: str) -> _Claim:
        try:
            # More than once: docker-registry answers 500 to who reads a tag while it is written.
            manifest = self._registry.manifest(f"{name}:{TAG}", attempts=3)
        except Broken:
            manifest = None  # damaged, perhaps: writing it mends it
        found = manifest.body.get("annotations") if manifest is not None else None
        if not isinstance(found, Mapping):
            return _Claim()
        beat = str(found.get("ctflow.beat", ""))
        return _Claim(
            str(found.get("ctflow.content", "")), str(found.get("ctflow.owner", "")),
            int(beat) if beat.isdecimal() and len(beat) < 12 else 0,
        )  # fmt: skip

    def _write(self, name: str, claim: _Claim) -> bool:
        """Whether the registry took it. Raises OutsideError where it takes nothing of us."""
        digest = f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}"
        empty = {"mediaType": _EMPTY_TYPE, "digest": digest, "size": len(_EMPTY)}
        annotations = {
            "ctflow.content": claim.content, "ctflow.owner": claim.owner,
            "ctflow.beat": str(claim.beat),
        }  # fmt: skip
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [empty],
                "annotations": annotations}  # fmt: skip
        try:
            self._registry.push_blob(name, Blob.of_bytes(_EMPTY, digest))
            data = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
            self._registry.push_manifest(f"{name}:{TAG}", OCI_MANIFEST, data, attempts=1)
        except CtflowError:
            self._registry.check_push(name)
            return False
        return True
