"""The steps' snapshots that nobody needs any more: found, and removed.

For the layout see ``local_builder``. A snapshot goes in two moves: with both of its locks held it
is renamed out of sight, then it is deleted. So nobody runs in half of one, and a process that is
killed on the way leaves only what the next one deletes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from ctflow.errors import CtflowError
from ctflow.lib.locks import lock
from ctflow.lib.quick import dataclass

_TRASH = ".trash-"
#: Its time stamp says when the snapshots were looked through; looking costs, so not at each build.
_SEEN = ".tidied"
_HOUR, _DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class CachedStep:
    """A snapshot. ``size`` in bytes; ``used``: seconds since the epoch, about an hour too early."""

    digest: str
    path: str
    size: int
    used: float


def index_of(folder: Path, digest: str) -> Path:
    """The file that says what a snapshot holds; its time stamp is the last use."""
    return folder / f"{digest}.json"


def run_lock(folder: Path, digest: str) -> Path:
    """Shared by whoever runs in the snapshot; exclusive to mend or remove it."""
    return folder / f"{digest}.lock"


def build_lock(folder: Path, digest: str) -> Path:
    """Exclusive to make, mend or remove the snapshot."""
    return folder / f"{digest}.build.lock"


def mark_used(folder: Path, digest: str) -> None:
    """Note that a snapshot is used now: at most once an hour."""
    place = index_of(folder, digest)
    now = time.time()
    with suppress(OSError):  # a state that is only readable is as good
        if abs(now - place.stat().st_mtime) > _HOUR:
            os.utime(place, (now, now))


def entries(folder: Path) -> list[CachedStep]:
    """All snapshots, the one used last first."""
    found = []
    for name in _names(folder):
        if name.endswith(".json") and len(name) == 64 + len(".json"):
            place = folder / name.removesuffix(".json")
            with suppress(FileNotFoundError):
                used = (folder / name).stat().st_mtime
                found.append(CachedStep(place.name, str(place), _size(place), used))
    return sorted(found, key=lambda one: -one.used)


def prune(
    folder: Path,
    needed: Collection[str],
    older_than: float | None = None,
    bound: int | None = None,
    *,
    dry_run: bool = False,
) -> list[CachedStep]:
    """Remove snapshots, the one used longest ago first; those that are in use stay.

    Args:
        folder: ``state_places(state)["steps"]``.
        needed: digests (64 digits) of those that runs need to be gone on with: they stay too.
        older_than: only what was not used for so many seconds.
        bound: bytes that may be left; above that, needed ones go as well. None: any number.

    Returns:
        What was removed, or would be.
    """
    now = time.time()
    left = entries(folder)
    total = sum(one.size for one in left)
    removed = []
    for one in reversed(left):
        over = bound is not None and total > bound
        young = older_than is not None and -_DAY <= now - one.used < older_than
        if young or (one.digest in needed and not over):
            continue
        if _remove(folder, one.digest, dry_run=dry_run):
            removed.append(one)
            total -= one.size
    if not dry_run:
        _sweep(folder)
    return removed


def tidy(folder: Path, needed: Callable[[], Collection[str]], bound: int) -> None:
    """At most once an hour, remove what no run needs and nobody used for a day."""
    seen = folder / _SEEN
    with suppress(OSError):
        if abs(time.time() - seen.stat().st_mtime) < _HOUR:
            return
    # Nothing here is worth failing a build for: what is left over is removed another time.
    with suppress(OSError, CtflowError):
        seen.touch()
        prune(folder, needed(), _DAY, bound)


def _remove(folder: Path, digest: str, *, dry_run: bool) -> bool:
    """Take a snapshot away; False where somebody builds it or runs in it."""
    places = (build_lock(folder, digest), run_lock(folder, digest))
    held: list[int] = []
    try:
        for place in places:
            descriptor = lock(place)
            if descriptor is None:
                return False
            held.append(descriptor)
        if dry_run:
            return True
        index_of(folder, digest).unlink(missing_ok=True)  # from here on there is no such snapshot
        with suppress(FileNotFoundError):
            (folder / digest).rename(folder / f"{_TRASH}{digest}-{secrets.token_hex(4)}")
        for place in places:
            place.unlink()
    finally:
        for descriptor in held:
            os.close(descriptor)
    return True


def _sweep(folder: Path) -> None:
    for name in _names(folder):
        if name.startswith(_TRASH):
            shutil.rmtree(folder / name, ignore_errors=True)
        elif len(name) == 64 and not index_of(folder, name).exists():
            _remove(folder, name, dry_run=False)  # left by a process that was killed
    for name in _names(folder):
        if name.startswith(_TRASH):
            shutil.rmtree(folder / name, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []


def _size(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.lstat(f"{at}/{name}")
                total += min(status.st_size, status.st_blocks * 512)
    return total
