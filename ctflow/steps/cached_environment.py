"""One Python environment of the user's cache, as it is listed and pruned."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ctflow.lib.quick import dataclass

#: Behind an environment's name: written last, beside it; its time stamp says when it was used. What
#: packages bring may have any name, so nothing of ours lies in the environment itself.
MARKER = ".complete"


def marker_of(folder: Path) -> Path:
    """The mark that an environment is whole."""
    return folder.with_name(folder.name + MARKER)


@dataclass(frozen=True)
class CachedEnvironment:
    """One entry of the cache. ``size`` in bytes; ``used``: seconds since the epoch, by the mark."""

    key: str
    path: str
    size: int
    used: float
    complete: bool
    requirements: tuple[str, ...] = ()


def entry_of(folder: Path) -> CachedEnvironment:
    """What lies in a folder of the cache, half made or whole."""
    marker = marker_of(folder)
    try:
        used = marker.stat().st_mtime
        lines = tuple(json.loads(marker.read_text(encoding="utf-8"))["requirements"])
        complete = True
    except (OSError, ValueError, KeyError, TypeError):
        try:
            used = folder.stat().st_mtime
        except OSError:
            used = 0.0
        lines, complete = (), False
    return CachedEnvironment(folder.name, str(folder), _size(folder), used, complete, lines)


def _size(folder: Path) -> int:
    """Bytes on the disk that only this folder holds."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(f"{at}/{name}")
            except OSError:
                continue
            if status.st_nlink == 1:
                total += status.st_blocks * 512
    return total
