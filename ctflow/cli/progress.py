"""Progress of long work: a live line on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ctflow.cli.common import clean
from ctflow.model import Task
from ctflow.ports import Event, Watch

#: With more tasks than this, a summary counts them and names only those that did not succeed.
NAMED = 12
_INDENT = " " * 12
_ENDED = frozenset({"succeeded", "cached", "skipped", "failed", "canceled"})
_MARKS = {"succeeded": "✓", "cached": "✓", "failed": "✗", "canceled": "■", "skipped": "-",
          "running": "…", "pending": " "}  # fmt: skip
_PLAIN = {"succeeded": "ok", "cached": "ok", "failed": "FAILED", "canceled": "stopped",
          "skipped": "-", "running": "...", "pending": " "}  # fmt: skip


def marks(stream: TextIO) -> dict[str, str]:
    """A sign for each task state, as far as the stream's encoding has them."""
    try:
        "".join(_MARKS.values()).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN
    return _MARKS


def seconds(value: float) -> str:
    """A duration as people read it: ``0.4s``, ``12s``, ``3m05s``."""
    if value < 10:
        return f"{value:.1f}s"
    if value < 100:
        return f"{value:.0f}s"
    return f"{value // 60:.0f}m{value % 60:02.0f}s"


def task_words(task: Task, signs: dict[str, str], now: float | None = None) -> str:
    """A task in a few words: ``train ✓ 2.1s``."""
    words = f"{clean(task.name)} {signs[task.state]}"
    if task.state == "cached":
        return f"{words} cached"
    if task.state == "skipped":
        return f"{words} skipped"
    end = task.ended if task.ended is not None else now
    if task.started is not None and end is not None:
        words += f" {seconds(max(0.0, end - task.started))}"
    return words


class Progress:
    """A Watch that shows what happens on ``stream``.

    Args:
        stream: where to.
        live: redraw one line in place (a terminal) instead of writing a line for each event.
        logs: write the tasks' log lines too.
    """

    def __init__(self, stream: TextIO, *, live: bool, logs: bool) -> None:
        self._stream = stream
        self._live = live
        self._logs = logs
        self._signs = marks(stream)
        self._tasks: dict[str, Task] = {}
        self._run = ""
        self._last = ""
        self._drawn = False
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            if event.kind == "log":
                self._log(event)
            elif event.kind == "task" and event.task is not None:
                self._task(event.task)
            elif event.name == "run" and event.text == event.run:
                self._run = event.text
            elif event.kind == "note":
                self._line(f"{_INDENT}{clean(event.text)}")

    def _log(self, event: Event) -> None:
        if self._live:
            self._last = f"{event.name}: {event.text}"
            if not self._tasks:
                self._draw_last()
        elif self._logs:
            self._line(f"{_INDENT}{clean(event.name)} | {clean(event.text)}")

    def _task(self, task: Task) -> None:
        if task.group and task.state != "skipped":
            return
        self._tasks[task.name] = task
        if self._live:
            self._draw()
        elif self._logs and task.state in _ENDED:
            self._line(f"{_INDENT}{task_words(task, self._signs)}")

    def _line(self, text: str) -> None:
        self._erase()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._drawn = False

    def _draw_last(self) -> None:
        """The live line where no tasks run, such as while images are built: what was said last."""
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[2K" + f"{_INDENT}{clean(self._last)}"[:width])
        self._stream.flush()
        self._drawn = True

    def _draw(self) -> None:
        """The live line: what has ended is counted, what runs is named, and what it printed."""
        width = shutil.get_terminal_size().columns - 1
        tasks = list(self._tasks.values())
        ended = [task for task in tasks if task.state in _ENDED]
        running = [task for task in tasks if task.state == "running"]
        now = time.time()
        shown = tasks if len(tasks) <= NAMED else running
        text = f"  {'run':<9} {self._run}  "
        if len(tasks) > NAMED:
            text += f"{len(ended)} of {len(tasks)}  "
        text += "  ".join(task_words(task, self._signs, now) for task in shown)
        if self._last and running:
            text += f"   {clean(self._last)}"
        self._stream.write("\r\x1b[2K" + text[:width])
        self._stream.flush()
        self._drawn = True

    def tick(self) -> None:
        """Keep the live line's clocks going until ``close``."""
        while not self._over.wait(0.25):
            with self._lock:
                if any(task.state == "running" for task in self._tasks.values()):
                    self._draw()

    def close(self) -> None:
        """Leave the summary of the tasks."""
        self._over.set()
        with self._lock:
            self._erase()
            if not self._tasks:
                self._stream.flush()
                return
            width = shutil.get_terminal_size((100, 24)).columns if self._live else 100
            for row in summary(self._run, list(self._tasks.values()), self._signs, width):
                self._stream.write(row + "\n")
            self._stream.flush()


def summary(run: str, tasks: list[Task], signs: dict[str, str], width: int = 100) -> list[str]:
    """The run's line (several where it is long), as in the README."""
    words = [run] if run else []
    if len(tasks) > NAMED:
        counts = {state: sum(task.state == state for task in tasks) for state in _ENDED}
        text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if count)
        words.append(f"{len(tasks)} tasks: {text}")
        tasks = [task for task in tasks if task.state in ("failed", "canceled")][:NAMED]
    words += [task_words(task, signs) for task in tasks]
    rows, row = [], f"  {'run':<9} "
    for word in words:
        if len(row) + len(word) > width and row.strip() not in ("", "run"):
            rows.append(row.rstrip())
            row = _INDENT
        row += f"{word}  "
    return [*rows, row.rstrip()]


@contextmanager
def show(*, plain: bool = False) -> Iterator[Watch]:
    """Show the progress of what is done inside.

    Args:
        plain: standard output is for a result (``--json``): progress goes to standard error.
    """
    stream = sys.stderr if plain else sys.stdout
    live = stream.isatty() and os.environ.get("TERM") != "dumb"
    progress = Progress(stream, live=live, logs=not live)
    ticker = threading.Thread(target=progress.tick, daemon=True) if live else None
    if ticker is not None:
        ticker.start()
    try:
        yield progress
    finally:
        progress.close()
        if ticker is not None:
            ticker.join()
