"""SQLite connections whose failures are ours: each names the file and what to do about it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError

#: Bytes that a database's first files need; with less the disk is full.
_ROOM = 1 << 18


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line about ``path``; broken constraints pass as they are.

    Raises:
        OSError: the disk is full (SQLite calls that an I/O error when its journal has no room).
        OutsideError: the file is damaged, locked for too long, or cannot be read or written.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        if "full" in str(error) or shutil.disk_usage(path.parent).free < _ROOM:
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from None
        raise OutsideError(
            f"cannot use the record {path}: {error}",
            next="if it is damaged, move the file away to start a new record",
        ) from None


class _Cursor(sqlite3.Cursor):
    """Rows may fail as they are read, not only when they are asked for."""

    path: Path

    def execute(self, *words: Any) -> _Cursor:
        with translated(self.path):
            super().execute(*words)
        return self

    def fetchone(self) -> Any:
        with translated(self.path):
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with translated(self.path):
            return super().fetchall()

    def __next__(self) -> Any:
        with translated(self.path):
            return super().__next__()


class Connection(sqlite3.Connection):
    """A connection whose cursors translate their failures."""

    path: Path

    def execute(self, *words: Any) -> _Cursor:
        """Run one statement; see ``translated`` for what it raises."""
        cursor = self.cursor(_Cursor)
        cursor.path = self.path
        return cursor.execute(*words)


def connect(path: Path) -> Connection:
    """Open ``path``, made if missing, in autocommit mode with write-ahead logging."""
    with translated(path):
        connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, factory=Connection)
    connection.path = path
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection
