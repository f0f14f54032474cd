"""SQLite connections whose failures are ours: each names the file and what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ctflow.errors import OutsideError

#: Bytes that a database's first files need; with less the disk is full.
_ROOM = 1 << 18
#: Seconds to wait for another process that writes.
PATIENCE = 60.0


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line about ``path``; broken constraints pass as they are.

    Raises:
        OSError: the disk is full (SQLite calls that an I/O error when its journal has no room).
        OutsideError: the file is damaged, locked for too long, or cannot be read or written; each
            with what to do about it.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        if "full" in str(error) or shutil.disk_usage(path.parent).free < _ROOM:
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from None
        raise _database_error(path, str(error)) from None


def _database_error(path: Path, text: str) -> OutsideError:
    fact = f"cannot use the record {path}: {text}"
    if "locked" in text or "locking" in text:
        return OutsideError(
            fact,
            cause="another process keeps writing, or the file system has no locks",
            next="run it again, or name a folder on a local disk in CTFLOW_STATE",
        )
    if "readonly" in text or not _writable(path):
        return OutsideError(fact, next="give access there, or name another folder in CTFLOW_STATE")
    return OutsideError(fact, next="if it is damaged, move the file away to start a new record")


def _writable(path: Path) -> bool:
    """Whether a database can be opened for writing: its journal needs the folder too."""
    places = [path.parent, *([path] if path.exists() else [])]
    return all(os.access(place, os.W_OK) for place in places)


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

    def executemany(self, *words: Any) -> sqlite3.Cursor:
        """Run one statement for each of many rows; see ``translated`` for what it raises."""
        with translated(self.path):
            return super().executemany(*words)


def connect(path: Path) -> Connection:
    """Open ``path``, made if missing, in autocommit mode with write-ahead logging.

    Where nothing may be written, what is there can be read all the same.
    """
    if path.exists() and not _writable(path):
        # Without a log nobody writes to it: then it needs none of the files that cannot be made.
        log = Path(f"{path}-wal")
        still = "" if log.exists() and log.stat().st_size else "&immutable=1"
        with translated(path):
            connection = _open(f"file:{quote(str(path))}?mode=ro{still}")
        connection.path = path
        return connection
    with translated(path):
        connection = _open(f"file:{quote(str(path))}")
    connection.path = path
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _write_ahead(connection: Connection) -> None:
    """Turn write-ahead logging on.

    Two that do so at once for a new file have to wait for each other, and here SQLite does not:
    it says at once that the file is locked, whatever its timeout.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            sqlite3.Connection.execute(connection, "PRAGMA journal_mode=WAL")
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) and time.monotonic() < end:
                time.sleep(0.01)
                continue
            with translated(connection.path):
                raise
        return


def _open(address: str) -> Connection:
    return sqlite3.connect(
        address, uri=True, timeout=PATIENCE, isolation_level=None, factory=Connection
    )
