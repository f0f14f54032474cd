"""What this machine's disk refuses, in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctflow.errors import OutsideError


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """What this machine's disk refuses, as an OutsideError."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise OutsideError(
            f"cannot write to the cache folder {folder}: {error.strerror or error}",
            next="make room there (`ctflow cache prune`), or name another disk in CTFLOW_CACHE"
            if full
            else "name a folder that you may write to in CTFLOW_CACHE",
        ) from None
