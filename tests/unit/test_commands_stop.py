"""Ctrl-C while images are built: programs of other threads end, at whatever moment it comes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import Interrupted, OutsideError
from ctflow.images.builders import commands

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]


class Work:
    """`execute` in a thread of its own; what it raised."""

    def __init__(self, argv: list[str]) -> None:
        self.error: BaseException | None = None
        self.lines: list[str] = []
        self.said = threading.Event()
        self._argv = argv
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            commands.execute(self._argv, self._line, what="work", environ=os.environ)
        except BaseException as error:  # noqa: BLE001 (looked at by the test)
            self.error = error

    def _line(self, text: str) -> None:
        self.lines.append(text)
        self.said.set()

    def ended(self, within: float = 20.0) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A Popen whose program runs already while its caller has not come back: (started, go on)."""
    started, go = threading.Event(), threading.Event()
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        process = real(*args, **kwargs)
        started.set()
        assert go.wait(30)
        return process

    monkeypatch.setattr("ctflow.images.builders.commands.subprocess.Popen", popen)
    yield started, go
    go.set()


def test_a_running_program_is_ended() -> None:
    work = Work(SLEEP)
    assert work.said.wait(30)
    with commands.stopped():
        assert work.ended()
    assert isinstance(work.error, OutsideError)


def test_a_program_that_just_starts_is_ended(
    late: tuple[threading.Event, threading.Event],
) -> None:
    """The signal comes between the program's start and the thread's note of it."""
    started, go = late
    work = Work(SLEEP)
    assert started.wait(30)
    threading.Timer(0.3, go.set).start()
    with commands.stopped():
        assert work.ended()
    assert isinstance(work.error, OutsideError)


def test_no_other_program_is_started(tmp_path: Path) -> None:
    """A thread between two programs, such as a build and a push, does not begin the second."""
    there = tmp_path / "there"
    with commands.stopped():
        work = Work(["touch", str(there)])
        assert work.ended()
    assert isinstance(work.error, Interrupted)
    assert not there.exists()
    after = Work(["touch", str(there)])
    assert after.ended()
    assert after.error is None
    assert there.exists()


def test_a_second_ctrl_c_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while a program that ignores the first one is waited for."""
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    work = Work([sys.executable, "-c", text + "print('here', flush=True); time.sleep(600)"])
    assert work.said.wait(30)
    monkeypatch.setattr(commands, "_stopping", threading.Event())  # stays set, for good
    wait = subprocess.Popen.wait

    def interrupted(process: Any, timeout: float | None = None) -> int:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), commands.stopped():
        pytest.fail("it waited")
    assert work.ended()
    assert isinstance(work.error, OutsideError)
    late = Work(["true"])
    assert late.ended()
    assert isinstance(late.error, Interrupted)
