"""The record: runs, their tasks and the cache of task results, in one SQLite database.

Write-ahead logging: one writer at a time, any number of readers. What belongs together is written
in one transaction, so a reader (or the next start after a crash) never sees half of it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError, StateError
from ctflow.model import Artifact, Commit, Image, Run, Task
from ctflow.runners.local.database import connect

#: One script for each version of the layout; a database is brought up to the last one.
MIGRATIONS = (
    """
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, project TEXT NOT NULL,
        pipeline TEXT NOT NULL, package TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
        ended REAL, error TEXT NOT NULL DEFAULT '', parameters TEXT NOT NULL, metrics TEXT NOT NULL,
        revision TEXT NOT NULL, images TEXT NOT NULL, request TEXT NOT NULL
    );
    CREATE INDEX runs_by_state ON runs (state, seq);
    CREATE TABLE tasks (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE, name TEXT NOT NULL,
        position INTEGER NOT NULL, state TEXT NOT NULL, cache_key TEXT NOT NULL, doc TEXT NOT NULL,
        marks TEXT NOT NULL DEFAULT '', PRIMARY KEY (run, name)
    ) WITHOUT ROWID;
    CREATE TABLE cache (
        key TEXT PRIMARY KEY, task TEXT NOT NULL, run TEXT NOT NULL, doc TEXT NOT NULL,
        marks TEXT NOT NULL, parts TEXT NOT NULL, used REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX cache_by_task ON cache (task, used);
    """,
    """
    CREATE TABLE folders (run TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID;
    INSERT INTO folders SELECT id, NULL FROM runs;
    CREATE INDEX cache_by_run ON cache (run, used)
    """,
)
_RUN_COLUMNS = (
    "seq, id, project, pipeline, package, state, created, ended, error, parameters, metrics, "
    "revision, images"
)


class Record:
    """The database of one project's local state. Opened on first use, made when missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a record at all."""
        return self._path.is_file()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, with the layout brought up to date."""
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._check_emptied()
        connection = connect(self._path)
        self._migrate(connection)
        return connection

    def _check_emptied(self) -> None:
        """A new record is empty for a moment only, and then there are no files of runs yet."""
        if not self._is_empty():
            return
        # Not what says who holds a folder: that is there before the record of a first run is.
        found = any((self._path.parent / "runs").glob("r-*/[!.]*"))
        # Asked again: a first run that starts now has filled the record before it writes files.
        if found and self._is_empty():
            raise OutsideError(
                f"the record {self._path} is empty, but there are files of runs",
                cause="the file was lost",
                next="restore a copy of it, or move the file away to start a new record",
            )

    def _is_empty(self) -> bool:
        """Whether the file is there, and holds nothing."""
        try:
            return self._path.stat().st_size == 0
        except FileNotFoundError:
            return False

    @property
    def readable_only(self) -> bool:
        """Whether it lies where nothing may be written."""
        return not os.access(self._path.parent, os.W_OK)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StateError(
                f"the record {self._path} was written by a newer ctflow",
                next="use that version, or move the file away",
            )
        while version < len(MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version < len(MIGRATIONS):
                    for statement in MIGRATIONS[version].split(";"):
                        connection.execute(statement)
                    version += 1
                    connection.execute(f"PRAGMA user_version={version}")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the database; an open transaction is given up."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def begin(self) -> None:
        """Start writing, if that has not been started: what follows is kept by ``commit``."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Keep all that was written since ``begin``, at once.

        Raises:
            OSError: the disk is full.
            OutsideError: the disk fails.
        """
        if self._open is not None and self._open.in_transaction:
            self._open.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own."""
        self.begin()
        try:
            yield self.connection
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self.commit()

    # -- runs ---------------------------------------------------------------------------------

    def add_run(self, run: Run, request: dict[str, Any]) -> int:
        """Write a new run; its number."""
        self.begin()
        cursor = self.connection.execute(
            "INSERT INTO runs (id, project, pipeline, package, state, created, ended, error,"
            " parameters, metrics, revision, images, request)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run.id, run.project, run.pipeline, run.package, run.state, run.created, run.ended,
                run.error, _dump(run.parameters), _dump(run.metrics),
                _dump(asdict(run.commit)) if run.commit else "",
                _dump([asdict(image) for image in run.images]), _dump(request),
            ),
        )  # fmt: skip
        assert cursor.lastrowid is not None  # noqa: S101 (an INSERT has one)
        return cursor.lastrowid

    def set_run(
        self, number: int, state: str, ended: float | None, error: str, metrics: dict[str, float]
    ) -> None:
        """Write how a run stands; it ends no earlier than it began, whatever the clock says."""
        self.begin()
        self.connection.execute(
            "UPDATE runs SET state = ?, ended = max(?, created), error = ?, metrics = ?"
            " WHERE seq = ?",
            (state, ended, error, _dump(metrics), number),
        )

    def find(self, prefix: str) -> list[tuple[int, str]]:
        """(number, id) of the runs whose ids start so; of the exact one where there is one."""
        exact = self.connection.execute("SELECT seq, id FROM runs WHERE id = ?", (prefix,))
        if found := exact.fetchall():
            return found
        pattern = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        return self.connection.execute(
            "SELECT seq, id FROM runs WHERE id LIKE ? ESCAPE '\\' ORDER BY seq DESC LIMIT 10",
            (pattern,),
        ).fetchall()

    def latest(self) -> tuple[int, str] | None:
        """(number, id) of the newest run."""
        row = self.connection.execute("SELECT seq, id FROM runs ORDER BY seq DESC LIMIT 1")
        found: tuple[int, str] | None = row.fetchone()
        return found

    def runs(self, limit: int, states: tuple[str, ...] = ()) -> list[tuple[int, Run]]:
        """The newest runs first, without their tasks."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        rows = self.connection.execute(
            f"SELECT {_RUN_COLUMNS} FROM runs {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (*states, limit),
        )
        return [(row[0], _run(row)) for row in rows]

    def run(self, number: int) -> Run:
        """A run with its tasks. Raises StateError where it was removed meanwhile."""
        row = self.connection.execute(
            f"SELECT {_RUN_COLUMNS} FROM runs WHERE seq = ?",  # noqa: S608
            (number,),
        ).fetchone()
        if row is None:
            raise StateError("the run was removed just now", next="see `ctflow runs list`")
        tasks = self.connection.execute(
            "SELECT doc FROM tasks WHERE run = ? ORDER BY position", (number,)
        )
        return _run(row, tuple(task_from(json.loads(doc)) for (doc,) in tasks))

    def request(self, number: int) -> dict[str, Any]:
        """What was asked for: enough to go on with the run."""
        (text,) = self.connection.execute(
            "SELECT request FROM runs WHERE seq = ?", (number,)
        ).fetchone()
        found: dict[str, Any] = json.loads(text)
        return found

    # -- tasks --------------------------------------------------------------------------------

    def put_task(
        self, number: int, position: int, task: Task, key: str = "", marks: str = ""
    ) -> None:
        """Write how a task stands. ``marks`` are its outputs' fingerprints, as JSON."""
        self.begin()
        self.connection.execute(
            "INSERT OR REPLACE INTO tasks (run, name, position, state, cache_key, doc, marks)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, task.name, position, task.state, key, _dump(task_to(task)), marks),
        )

    def finished(self, number: int) -> dict[str, tuple[str, Task, str]]:
        """(key, task, marks) of a run's tasks that ended well, by name."""
        rows = self.connection.execute(
            "SELECT name, cache_key, doc, marks FROM tasks"
            " WHERE run = ? AND state IN ('succeeded', 'cached') AND cache_key != ''",
            (number,),
        )
        return {name: (key, task_from(json.loads(doc)), marks) for name, key, doc, marks in rows}

    def drop_tasks(self, number: int) -> None:
        """Forget a run's tasks, before they are written anew."""
        self.begin()
        self.connection.execute("DELETE FROM tasks WHERE run = ?", (number,))


def needed_images(path: Path) -> set[str]:
    """The digests (hexadecimal) of the images that runs need to be gone on with, or scored again:
    of those that go on, and of those whose files are still there.

    Args:
        path: the record's file.
    """
    record = Record(path)
    if not record.exists:
        return set()
    try:
        rows = record.connection.execute(
            "SELECT DISTINCT images FROM runs WHERE state IN ('pending', 'running')"
            " OR id IN (SELECT run FROM folders)"
        ).fetchall()
    finally:
        record.close()
    return {image["digest"].partition(":")[2] for (text,) in rows for image in json.loads(text)}


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _run(row: tuple[Any, ...], tasks: tuple[Task, ...] = ()) -> Run:
    (_, id_, project, pipeline, package, state, created, ended, error, parameters, metrics,
     revision, images) = row  # fmt: skip
    commit = json.loads(revision) if revision else None
    return Run(
        id=id_,
        project=project,
        pipeline=pipeline,
        package=package,
        state=state,
        created=created,
        ended=ended,
        commit=Commit(commit["sha"], commit["branch"], tuple(commit["dirty"])) if commit else None,
        parameters=json.loads(parameters),
        images=tuple(Image(**image) for image in json.loads(images)),
        tasks=tasks,
        metrics=json.loads(metrics),
        error=error,
    )


def task_to(task: Task) -> dict[str, Any]:
    """A task as plain data, without what is empty."""
    found = {
        name: value
        for name, value in vars(task).items()
        if name not in ("input_artifacts", "artifacts") and value not in ("", None, {}, (), 0)
    }
    if "needs" in found:
        found["needs"] = list(task.needs)
    if task.exit_code is not None:
        found["exit_code"] = task.exit_code
    for name in ("input_artifacts", "artifacts"):
        if artifacts := getattr(task, name):
            found[name] = {key: [vars(one) for one in some] for key, some in artifacts.items()}
    return found


def task_from(data: dict[str, Any]) -> Task:
    """A task from plain data."""
    data = dict(data)
    data["needs"] = tuple(data.get("needs", ()))
    for name in ("input_artifacts", "artifacts"):
        data[name] = {
            key: tuple(Artifact(**one) for one in some) for key, some in data.get(name, {}).items()
        }
    return Task(**data)
