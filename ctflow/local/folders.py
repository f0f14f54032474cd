"""The runs' folders. Each is held by the process that runs it: so others know that it lives."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Characters of run ids: none that is taken for another one.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a run's folder; False where another process does, or where it is not there."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(runs: Path) -> Iterator[tuple[str, Path]]:
    """A new run's id and folder below ``runs``, held as long as the block goes on."""
    runs.mkdir(parents=True, exist_ok=True)
    length = 4
    while True:
        run_id = "r-" + "".join(secrets.choice(_ALPHABET) for _ in range(length))
        folder = (runs / run_id).resolve()
        try:
            folder.mkdir()
        except FileExistsError:
            length = min(length + 1, 12)
            continue
        with held(folder):
            yield run_id, folder
        return
