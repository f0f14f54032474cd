"""Advisory locks on files and folders, as processes of this machine see them.

A lock is the kernel's (flock): it ends with the process that holds it, however that ends. What it
guards may be renamed or removed by whoever holds it exclusively; so after taking a lock one looks
whether the path still leads to what was locked, and tries again if not.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctflow.errors import OutsideError

_PAUSE = 0.01


def lock(
    path: Path | str, *, folder: bool = False, shared: bool = False, wait: bool = False
) -> int | None:
    """The descriptor that holds ``path``; close it to let go. None: another process holds it.

    Args:
        path: a file, made if missing; with ``folder`` a folder that is there.
        shared: together with others that share it.
        wait: until the others let go; the result is then never None.

    Raises:
        FileNotFoundError: there is no such folder.
        OutsideError: the file system has no locks.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
            if _leads_to(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise _unable(path, error) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock_within(path: Path | str, seconds: float, *, folder: bool = False) -> int | None:
    """The same, exclusively, with patience for those that only look (see ``taken``)."""
    end = time.monotonic() + seconds
    while (descriptor := lock(path, folder=folder)) is None:
        if time.monotonic() > end:
            return None
        time.sleep(_PAUSE)
    return descriptor


def taken(path: Path | str, *, folder: bool = False) -> bool:
    """Whether another process holds ``path`` exclusively; of a missing folder nobody does."""
    try:
        descriptor = lock(path, folder=folder, shared=True)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path | str, *, folder: bool = False) -> Iterator[bool]:
    """Hold ``path`` exclusively in the block; False where another process holds it.

    True also where the folder is not there: there is nothing to hold.
    """
    try:
        descriptor = lock(path, folder=folder)
    except FileNotFoundError:
        yield True
        return
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def holding(path: Path | str) -> Iterator[int]:
    """Wait until no other process or thread of this machine holds a file, and hold it in the block.

    The folder is made if missing. Gives the descriptor, for child processes that shall hold it too.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    descriptor = lock(path, wait=True)
    assert descriptor is not None  # noqa: S101 (it was waited for)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _leads_to(path: Path | str, descriptor: int) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116 (a str too)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _unable(path: Path | str, error: OSError) -> OutsideError:
    return OutsideError(
        f"cannot lock {path}: {error.strerror or error}",
        cause="network file systems often have no locks",
        next="name folders on a local disk in CTFLOW_STATE and CTFLOW_CACHE",
    )
