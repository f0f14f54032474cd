"""Removing old runs: the record's rows and the files, but nothing that a kept run refers to."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ctflow.local.folders import held
from ctflow.local.record import Record


@dataclass(frozen=True)
class Pruned:
    """The runs that were removed, newest first, and the bytes that came free."""

    runs: tuple[str, ...]
    bytes: int


def prune(
    record: Record, folder: Path, keep: int, size: int | None = None, *, dry_run: bool = False
) -> Pruned:
    """Remove runs until at most ``keep`` are left, whose files have at most ``size`` bytes.

    The newest are kept. A kept run may have results of an older one (from the cache): that one's
    files stay, though it is not listed any more. Runs that go on are never touched, and folders
    that the record does not know are removed.
    """
    kept: set[str] = set()
    needed: set[str] = set()
    gone: list[tuple[int, str]] = []
    total = 0
    for number, run in record.runs(-1):
        used = {run.id, *sources(record, number, folder)}
        more = sum(folder_size(folder / name) for name in used - needed)
        over = len(kept) >= keep or (size is not None and total + more > size)
        if over and (gone or kept) and _idle(folder / run.id):
            gone.append((number, run.id))
            continue
        kept.add(run.id)
        needed |= used
        total += more
    removed = [name for name in _names(folder) if name not in needed and _idle(folder / name)]
    freed = sum(folder_size(folder / name) for name in removed)
    if not dry_run:
        _forget(record, [number for number, _ in gone], folder, removed)
        for name in removed:
            shutil.rmtree(folder / name, ignore_errors=True)
    return Pruned(tuple(name for _, name in gone), freed)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _idle(folder: Path) -> bool:
    with held(folder) as free:
        return free


def sources(record: Record, number: int, folder: Path) -> set[str]:
    """The runs whose folders hold a run's outputs."""
    tasks = record.run(number).tasks
    uris = [one.uri for task in tasks for some in task.artifacts.values() for one in some]
    places = (_run_of(place, folder) for place in (*uris, *(task.log for task in tasks)))
    return {name for name in places if name}


def _run_of(place: str, folder: Path) -> str:
    """The run whose folder holds ``place``; '' where none does."""
    base = f"{folder.resolve()}{os.sep}"
    return place.removeprefix(base).partition(os.sep)[0] if place.startswith(base) else ""


def _forget(record: Record, numbers: list[int], folder: Path, removed: list[str]) -> None:
    """Take the runs, and the cached results whose files go, out of the record at once."""
    with record.writing() as connection:
        connection.executemany("DELETE FROM runs WHERE seq = ?", [(n,) for n in numbers])
        forget_results(connection, folder, set(removed))


def forget_results(connection: sqlite3.Connection, folder: Path, gone: set[str]) -> None:
    """Forget the cached results with files in the folders ``gone``, and the folders themselves."""
    stale = []
    for key, doc in connection.execute("SELECT key, doc FROM cache").fetchall():
        artifacts = json.loads(doc).get("artifacts", {}).values()
        if any(_run_of(one["uri"], folder) in gone for some in artifacts for one in some):
            stale.append((key,))
    connection.executemany("DELETE FROM cache WHERE key = ?", stale)
    connection.executemany("DELETE FROM folders WHERE run = ?", [(name,) for name in gone])


def folder_size(folder: Path | str) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue  # it was removed meanwhile
    return total
