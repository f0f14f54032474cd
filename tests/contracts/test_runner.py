"""The contract of the ``Runner`` port: submit, wait, terminate, and the record."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, StateError
from ctflow.model import Run
from ctflow.ports import Event, Runner, RunRequest
from tests.conformance.tools import Bench, Pipeline, out
from tests.integration.test_runner_faults import drive, processes_with, wait_for, wait_line


@dataclass
class Embedded:
    """The embedded runner, and a process beside it that runs something on the same record."""

    folder: Path
    token: str

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder)
        self.runner: Runner = self.bench.runner
        self.others: list[subprocess.Popen[str]] = []

    def request(self, what: Pipeline, **parameters: Any) -> RunRequest:
        return self.bench.request(what.write(self.folder / "package.json"), **parameters)

    def start_elsewhere(self, what: Pipeline, until: str) -> Run:
        """Let another process run it; the run once it prints ``until`` (a task and its state)."""
        package = what.write(self.folder / "other.json")
        other = drive(self.folder, package, self.token)
        self.others.append(other)
        wait_line(other, until)
        return self.runner.get("latest")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Embedded]:
    made = Embedded(tmp_path, f"TESTS_TOKEN={tmp_path}")
    yield made
    for other in made.others:
        other.kill()
        other.communicate()
    assert wait_for(lambda: not processes_with(made.token))


def works() -> Pipeline:
    return Pipeline().task("first", f"echo said; echo a > {out('data')}", writes=["data"])


def fails() -> Pipeline:
    return Pipeline().task("first", "echo no; exit 3").task("second", "true", after=["first"])


def waits(file: Path) -> Pipeline:
    """A task that goes on until there is the file."""
    return Pipeline().task("first", f"while [ ! -e {file} ]; do sleep 0.05; done")


def test_a_run_is_submitted_and_waited_for(place: Embedded) -> None:
    seen: list[Event] = []
    submitted = place.runner.submit(place.request(works()), seen.append)
    assert place.runner.get(submitted).id == submitted
    assert place.runner.get(submitted).state in ("pending", "running")
    done = place.runner.wait(submitted, seen.append)
    assert (done.id, done.state) == (submitted, "succeeded")
    assert {one.run for one in seen if one.kind in ("task", "log")} == {submitted}
    assert ("first", "said") in [(one.name, one.text) for one in seen if one.kind == "log"]
    # Waiting for what has ended is no work.
    assert place.runner.wait(submitted, seen.append) == done


def test_a_failed_step_is_a_run_that_says_so(place: Embedded) -> None:
    done = place.runner.run(place.request(fails()), lambda event: None)
    assert done.state == "failed"
    assert [one.name for one in done.failures()] == ["first"]
    assert place.runner.wait(done.id, lambda event: None).state == "failed"


def test_what_cannot_be_run_leaves_nothing_on_record(place: Embedded) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        place.runner.submit(place.request(works(), nowhere=1), lambda event: None)
    assert place.runner.list() == []


def test_there_is_no_such_run(place: Embedded) -> None:
    place.runner.run(place.request(works()), lambda event: None)
    with pytest.raises(StateError, match="no run 'r-nowhere'"):
        place.runner.wait("r-nowhere", lambda event: None)
    with pytest.raises(StateError, match="no run 'r-nowhere'"):
        place.runner.terminate("r-nowhere")


def test_a_run_that_goes_on_elsewhere_is_followed(place: Embedded, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = place.start_elsewhere(waits(go), "first running")
    seen: list[Event] = []
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(place.runner.wait(run.id, seen.append)))
    thread.start()
    assert wait_for(lambda: any(one.task and one.task.state == "running" for one in seen))
    go.touch()
    thread.join(60)
    assert [one.state for one in found] == ["succeeded"]
    states = [one.task.state for one in seen if one.task]
    assert states[-2:] == ["running", "succeeded"]
    assert {one.run for one in seen} == {run.id}


def test_a_run_that_goes_on_elsewhere_is_stopped(place: Embedded, tmp_path: Path) -> None:
    run = place.start_elsewhere(waits(tmp_path / "never"), "first running")
    done = place.runner.terminate(run.id)
    assert (done.id, done.state) == (run.id, "canceled")
    assert [one.state for one in done.tasks] == ["canceled"]
    assert wait_for(lambda: not processes_with(place.token))
    with pytest.raises(StateError, match="has ended: canceled"):
        place.runner.terminate(run.id)


def test_one_whose_process_is_gone_is_not_waited_for(place: Embedded, tmp_path: Path) -> None:
    run = place.start_elsewhere(waits(tmp_path / "never"), "first running")
    place.others[0].send_signal(signal.SIGKILL)
    place.others[0].wait()
    assert place.runner.wait(run.id, lambda event: None).state == "canceled"


def test_one_that_was_submitted_and_never_started_can_be_stopped(place: Embedded) -> None:
    submitted = place.runner.submit(place.request(works()), lambda event: None)
    assert place.runner.terminate(submitted).state == "canceled"
    assert place.runner.resume(submitted, lambda event: None).state == "succeeded"
