"""What a piece of code does, counted: a measure that does not depend on how busy the machine is."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

#: SQLite calls back once in so many instructions of its virtual machine.
_STEP = 100


@dataclass
class Work:
    """``opened``: files opened; ``processes``: started; ``sql``: SQLite's instructions."""

    opened: int = 0
    processes: int = 0
    sql: int = 0


_counting: list[Work] = []
_hooked = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _counting:
        return
    if event == "open":
        _counting[-1].opened += 1
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec"):
        _counting[-1].processes += 1


@contextmanager
def counted() -> Iterator[Work]:
    """The work done within it by this process (connections to SQLite: those opened within it)."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    work = Work()
    connect = sqlite3.connect

    def counting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        watch(connection, work)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", counting)
        _counting.append(work)
        try:
            yield work
        finally:
            _counting.pop()


def watch(connection: sqlite3.Connection, work: Work) -> None:
    """Count a connection's work, which was opened before."""

    def step() -> int:
        work.sql += _STEP
        return 0

    connection.set_progress_handler(step, _STEP)
