"""Removing old runs: the record's rows and the files, but nothing that a kept run refers to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from ctflow.lib.quick import dataclass
from ctflow.runners.local.folders import (
    TRASH,
    folder_size,
    lives,
    names_in,
    restore,
    set_aside,
    sweep,
)
from ctflow.runners.local.record import Record


@dataclass(frozen=True)
class Pruned:
    """The runs that were removed, newest first, and the bytes that came free.

    ``unknown``: the folders that went though the record knew nothing of them.
    """

    runs: tuple[str, ...]
    bytes: int
    unknown: tuple[str, ...] = ()


def prune(
    record: Record, folder: Path, keep: int, size: int | None = None, *, dry_run: bool = False
) -> Pruned:
    """Remove runs until at most ``keep`` are left, whose files have at most ``size`` bytes.

    The newest are kept. A kept run may have results of an older one (from the cache): that one's
    files stay, though it is not listed any more. Runs that go on are never touched, and folders
    that the record does not know are removed.

    However this is interrupted, a run is either still there with its files, or gone without a
    trace; what is left to delete then, the next call deletes.

    Args:
        folder: holds the runs' folders.
    """
    restore(record, folder)
    if dry_run:
        gone, removed = _choose(record, folder, keep, size)
        return _pruned(gone, removed, _known(record))
    # Chosen and forgotten in one transaction: no run can take a result from the cache meanwhile.
    with record.writing() as connection:
        gone, removed = _choose(record, folder, keep, size)
        known = _known(record)
        away = {name: freed for name, freed in removed.items() if set_aside(folder, name)}
        busy = removed.keys() - away.keys()
        gone = {number: name for number, name in gone.items() if name not in busy}
        connection.executemany("DELETE FROM runs WHERE seq = ?", [(number,) for number in gone])
        forget_results(connection, away)
    sweep(record, folder)
    return _pruned(gone, away, known)


def _known(record: Record) -> set[str]:
    """The folders that the record knows, by their runs or by results of theirs."""
    rows = record.connection.execute("SELECT run FROM folders UNION SELECT id FROM runs")
    return {name for (name,) in rows.fetchall()}


def _pruned(gone: dict[int, str], away: dict[str, int], known: set[str]) -> Pruned:
    unknown = tuple(name for name in away if name not in known)
    return Pruned(tuple(gone.values()), sum(away.values()), unknown)


def _choose(
    record: Record, folder: Path, keep: int, size: int | None
) -> tuple[dict[int, str], dict[str, int]]:
    """The runs to remove (number -> id), and the folders (name -> bytes)."""
    sizes = _Sizes(record, folder)
    kept = total = 0
    needed: set[str] = set()
    gone: dict[int, str] = {}
    for number, run in record.runs(-1):
        goes_on = lives(folder / run.id)
        if kept >= keep and kept and not goes_on:
            gone[number] = run.id
            continue
        used = {run.id, *sources(record, number, folder)}
        more = sum(sizes[name] for name in used - needed)
        if size is not None and total + more > size and (gone or kept) and not goes_on:
            gone[number] = run.id
            continue
        kept += 1
        needed |= used
        total += more
    names = [name for name in names_in(folder) if name not in needed and name != TRASH]
    return gone, {name: sizes[name] for name in names if not _used(folder / name)}


def _used(place: Path) -> bool:
    """Whether a process runs in what lies beside the runs' folders; it may be a mere file."""
    return place.is_dir() and not place.is_symlink() and lives(place)


class _Sizes(dict[str, int]):
    """Bytes of the runs' folders: as measured at their ends, or now."""

    def __init__(self, record: Record, folder: Path) -> None:
        rows = record.connection.execute("SELECT run, bytes FROM folders WHERE bytes IS NOT NULL")
        super().__init__(rows.fetchall())
        self._folder = folder

    def __missing__(self, name: str) -> int:
        place = self._folder / name
        self[name] = 0 if place.is_symlink() else folder_size(place)
        return self[name]


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


def forget_results(connection: sqlite3.Connection, gone: Iterable[str]) -> None:
    """Forget the folders ``gone``, and the cached results of the runs that made them."""
    rows = [(name,) for name in gone]
    connection.executemany("DELETE FROM cache WHERE run = ?", rows)
    connection.executemany("DELETE FROM folders WHERE run = ?", rows)
