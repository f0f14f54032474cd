"""Runs whose process was killed: found, and recorded as canceled."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ctflow.errors import StateError
from ctflow.lib.locks import locked
from ctflow.model import Run
from ctflow.runners.local.folders import lives, restore
from ctflow.runners.local.record import Record

ACTIVE = ("pending", "running")
_REASON = "interrupted: its process was killed"


def close_abandoned(record: Record, runs: Path) -> None:
    """Record all that say they go on, and do not, as canceled."""
    restore(record, runs)
    for number, run in record.runs(1000, ACTIVE):
        with suppress(StateError):  # removed just now
            closed_if_abandoned(record, number, run, runs)


def closed_if_abandoned(record: Record, number: int, run: Run, runs: Path) -> Run:
    """The run; if it says that it goes on and its process is gone, recorded as canceled.

    Args:
        runs: holds the runs' folders.
    """
    folder = runs / run.id
    if run.state not in ACTIVE or record.readable_only or lives(folder):
        return run
    with locked(folder, folder=True) as free:
        if not free:  # somebody has just gone on with it
            return run
        return _closed(record, number, folder)


def cancel_tasks(record: Record, number: int) -> None:
    """Write down that what still runs, by the record, does so no more; the caller commits."""
    for position, task in enumerate(record.run(number).tasks):
        if task.state in ACTIVE:
            lost = replace(task, state="canceled", error="interrupted")
            record.put_task(number, position, lost)


def _closed(record: Record, number: int, folder: Path) -> Run:
    # Late: they bring in all that runs tasks, and hardly a run is found like this.
    from ctflow.pipelinespec.parameters import metrics_of
    from ctflow.runners.local.jobs import forget_all_secrets

    forget_all_secrets(folder)
    with record.writing():
        run = record.run(number)
        if run.state not in ACTIVE:  # somebody else was first
            return run
        cancel_tasks(record, number)
        tasks = {task.name: task for task in run.tasks}
        record.set_run(number, "canceled", None, _REASON, metrics_of(tasks))
        return record.run(number)
