"""Runs whose process died without a word: found, and put down as what they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ctflow.errors import StateError
from ctflow.lib.locks import locked
from ctflow.model import Run
from ctflow.runners.local.folders import lives, restore
from ctflow.runners.local.jobs import forget_all_secrets
from ctflow.runners.local.parameters import metrics_of
from ctflow.runners.local.record import Record

ACTIVE = ("pending", "running")
_REASON = "interrupted: its process ended without a word"


def bury_all(record: Record, runs: Path) -> None:
    """Put down all that say they go on, and do not."""
    restore(record, runs)
    for number, run in record.runs(1000, ACTIVE):
        with suppress(StateError):  # removed just now
            bury(record, number, run, runs)


def bury(record: Record, number: int, run: Run, runs: Path) -> Run:
    """The run; if it says that it goes on and its process is gone, put down as canceled.

    Args:
        runs: holds the runs' folders.
    """
    folder = runs / run.id
    if run.state not in ACTIVE or record.readable_only or lives(folder):
        return run
    with locked(folder, folder=True) as free:
        if not free:  # somebody has just gone on with it
            return run
        return _buried(record, number, folder)


def cancel_tasks(record: Record, number: int) -> None:
    """Write down that what still runs, by the record, does so no more; the caller commits."""
    for position, task in enumerate(record.run(number).tasks):
        if task.state in ACTIVE:
            lost = replace(task, state="canceled", error="interrupted")
            record.put_task(number, position, lost)


def _buried(record: Record, number: int, folder: Path) -> Run:
    forget_all_secrets(folder)
    with record.writing():
        run = record.run(number)
        if run.state not in ACTIVE:  # somebody else was first
            return run
        cancel_tasks(record, number)
        tasks = {task.name: task for task in run.tasks}
        record.set_run(number, "canceled", None, _REASON, metrics_of(tasks))
        return record.run(number)
