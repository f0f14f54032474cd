"""The bound on what runs leave on the disk: the folders used longest ago go first.

A folder is used when its run ends and whenever the cache takes a result from it. The size of each
is written down at the end of its run, so that a run's end need not look at the other folders.
"""

from __future__ import annotations

import time
from pathlib import Path

from ctflow.runners.local.folders import folder_size, lives, set_aside, sweep
from ctflow.runners.local.prune import forget_results, sources
from ctflow.runners.local.record import Record

#: Seconds for which what was used is never removed: a run's command goes on with its outputs after
#: the run (gate, promotion) without holding its folder.
FRESH = 600.0
#: Seconds by which a clock may have been set back; what was used later than that from now was
#: written down under a wrong clock.
AHEAD = 86400.0


def opened(record: Record, run: str) -> None:
    """Write down that a run's folder is there and growing; the caller commits."""
    record.begin()
    record.connection.execute("INSERT OR REPLACE INTO folders VALUES (?, NULL)", (run,))


def keep_bound(record: Record, folder: Path, run: str, bound: int) -> int:
    """Measure the folder of the run that has ended; remove others until ``bound`` bytes are left.

    What a run that goes on refers to, or ``run``, is never removed, nor what was used just now: so
    the rest may be more than the bound. The runs stay in the record, without their files.

    Args:
        folder: holds the runs' folders.

    Returns:
        The bytes that came free.
    """
    _measure(record, folder, run)
    if _total(record) <= bound:
        return 0
    freed = 0
    with record.writing() as connection:  # no run can take a result from the cache meanwhile
        total, now = _total(record), time.time()
        needed = {run} | _referred(record, folder, run)
        gone: set[str] = set()
        for name, size, used in connection.execute(_LEAST_RECENT).fetchall():
            if total - freed <= bound:
                break
            fresh = now - FRESH <= used <= now + AHEAD
            if name not in needed and not fresh and set_aside(folder, name):
                gone.add(name)
                freed += size or 0
        forget_results(connection, gone)
    sweep(record, folder)
    return freed


def _total(record: Record) -> int:
    (total,) = record.connection.execute("SELECT sum(bytes) FROM folders").fetchone()
    return total or 0


_LEAST_RECENT = """
    SELECT folders.run, bytes, max(coalesce(ended, created, 0), coalesce(used, 0)) AS last
    FROM folders LEFT JOIN runs ON runs.id = folders.run
    LEFT JOIN (SELECT run, max(used) AS used FROM cache GROUP BY run) AS results
        ON results.run = folders.run
    ORDER BY last
"""


def _measure(record: Record, folder: Path, run: str) -> None:
    """Write down the sizes that nobody knows: of this run, and of those that were killed."""
    rows = record.connection.execute("SELECT run FROM folders WHERE bytes IS NULL").fetchall()
    sizes = []
    for (name,) in rows:
        if name == run or not lives(folder / name):
            sizes.append((folder_size(folder / name), name))
    with record.writing() as connection:
        connection.executemany("UPDATE folders SET bytes = ? WHERE run = ?", sizes)


def _referred(record: Record, folder: Path, run: str) -> set[str]:
    """The folders with results of ``run`` or of a run that goes on."""
    rows = record.connection.execute(
        "SELECT seq FROM runs WHERE id = ? OR state IN ('pending', 'running')", (run,)
    )
    return {name for (number,) in rows.fetchall() for name in sources(record, number, folder)}
