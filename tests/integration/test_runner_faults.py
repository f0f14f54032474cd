"""The embedded runner under bad treatment: killed, interrupted, without space, in a hurry."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctflow.errors import StateError
from ctflow.model import Run
from ctflow.runners.local.folders import new_folder
from tests.conformance.tools import Bench, Pipeline, out, read, text_of

TOKEN = "TESTS_TOKEN"
#: How often the runner is killed at a random moment.
KILLS = int(os.environ.get("CTFLOW_TESTS_KILLS", "12"))


@pytest.fixture
def token(tmp_path: Path) -> Iterator[str]:
    """A variable that all processes below the driver have; none may be left at the end."""
    mark = f"{TOKEN}={tmp_path}"
    yield mark
    for pid in processes_with(mark):
        os.kill(pid, signal.SIGKILL)


def processes_with(mark: str) -> list[int]:
    """The living processes with ``mark`` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition: object, seconds: float = 10.0) -> bool:
    """Whether ``condition()`` comes true in time; for what no pipe tells us about."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def drive(folder: Path, package: Path, token: str, *more: str) -> subprocess.Popen[str]:
    name, _, text = token.partition("=")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.tools", str(folder), str(package), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {name: text},
    )


def wait_line(driver: subprocess.Popen[str], wanted: str) -> None:
    assert driver.stdout is not None
    seen = []
    for line in driver.stdout:
        seen.append(line)
        if line.strip() == wanted:
            return
    raise AssertionError(f"{wanted!r} did not come: {seen}")


def stubborn() -> Pipeline:
    """A task that ignores SIGTERM, and has a grandchild in a session of its own."""
    script = (
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done') & "
        "echo started; while :; do sleep 1; done"
    )
    return (
        Pipeline()
        .task("first", f"echo a > {out('data')}", writes=["data"])
        .task("hang", script, after=["first"])
    )


def sound(bench: Bench) -> None:
    """The database is whole, and no task claims outputs that are not there."""
    connection = sqlite3.connect(bench.state / "record.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    for run in bench.runner.list():
        for task in bench.runner.get(run.id).tasks:
            for artifacts in task.artifacts.values():
                for artifact in artifacts:
                    assert Path(artifact.uri).exists()


def states_of(bench: Bench) -> dict[str, str]:
    return bench.states(bench.runner.get("latest"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_however_the_runner_ends(
    tmp_path: Path, token: str, how: signal.Signals
) -> None:
    package = stubborn().write(tmp_path / "package.json")
    driver = drive(tmp_path, package, token)
    wait_line(driver, "hang running")
    assert wait_for(lambda: len(processes_with(token)) >= 5)
    bench = Bench(tmp_path)
    # What is printed may be a moment ahead of what is kept.
    assert wait_for(lambda: states_of(bench).get("first") == "succeeded")
    driver.send_signal(how)
    if how is not signal.SIGKILL:
        # What does not stop at SIGTERM is killed after the grace; a person need not wait for it.
        # The first signal has been taken when what heeds it has ended.
        assert wait_for(lambda: len(processes_with(token)) < 5)
        driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert wait_for(lambda: not processes_with(token))
    # The last of its helpers may end a moment later.
    assert wait_for(lambda: bench.runner.list()[0].state == "canceled")
    (run,) = bench.runner.list()
    states = bench.states(bench.runner.get(run.id))
    assert states["first"] == "succeeded"
    assert states["hang"] == "canceled"
    sound(bench)


def test_background_processes_of_a_finished_task_are_ended(tmp_path: Path, token: str) -> None:
    script = "(setsid sleep 1000 > /dev/null 2>&1 &) ; echo done"
    package = Pipeline().task("t", script).write(tmp_path / "package.json")
    driver = drive(tmp_path, package, token)
    text, _ = driver.communicate(timeout=20)
    assert text.splitlines()[-1] == "succeeded"
    assert processes_with(token) == []


def test_supervisor_killed_leaves_nothing_and_fails_the_run(tmp_path: Path, token: str) -> None:
    package = stubborn().write(tmp_path / "package.json")
    driver = drive(tmp_path, package, token)
    wait_line(driver, "hang running")
    supervisors = [
        pid
        for pid in processes_with(token)
        if b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    driver.communicate(timeout=20)
    assert wait_for(lambda: not processes_with(token))
    bench = Bench(tmp_path)
    task = bench.runner.get("latest").task("hang")
    assert task is not None
    assert task.state == "failed"


def work() -> Pipeline:
    """Eight tasks in two lines, each with an output that takes a while to be written."""
    slow = "for i in 1 2 3 4 5 6 7 8 9; do printf '%s' $i; sleep 0.005; done"
    pipeline = Pipeline()
    for line in "ab":
        before: str | None = None
        for number in range(4):
            name = f"{line}{number}"
            reads: dict[str, str] = {"before": f"{before}.data"} if before else {}
            more = f"cat {read('before')} >> {out('data')}; " if before else ""
            pipeline.task(name, f"{more}({slow}; sync) >> {out('data')}", reads=reads,
                          writes=["data"])  # fmt: skip
            before = name
    return pipeline


def contents(run: Run) -> dict[str, str]:
    return {task.name: text_of(run, f"{task.name}.data") for task in run.tasks}


def test_killed_at_random_moments_and_resumed(tmp_path: Path, token: str) -> None:
    """After each kill: a sound record, no half output, no process; and resuming gets it done."""
    package = work().write(tmp_path / "package.json")
    wanted = contents(Bench(tmp_path / "whole").run(work()))
    bench = Bench(tmp_path / "killed")
    generator = random.Random(20261122)
    length = 0.6
    for _ in range(KILLS):
        driver = drive(bench.folder, package, token)
        moment = generator.uniform(0.05, length)
        try:
            driver.wait(moment)
        except subprocess.TimeoutExpired:
            driver.kill()
        driver.communicate()
        assert wait_for(lambda: not processes_with(token))
        if not (bench.state / "record.db").is_file():
            continue
        sound(bench)
        for listed in bench.runner.list(limit=1):
            run = bench.runner.get(listed.id)
            assert run.state in ("canceled", "succeeded")
            for task in run.tasks:
                if task.state in ("succeeded", "cached"):
                    assert text_of(run, f"{task.name}.data") == wanted[task.name]
            if run.state == "canceled":
                done = bench.runner.resume(run.id, bench.events.append)
                assert done.state == "succeeded", done.error
                assert contents(done) == wanted


def test_resume_while_it_goes_on_is_refused(tmp_path: Path, token: str) -> None:
    package = stubborn().write(tmp_path / "package.json")
    driver = drive(tmp_path, package, token)
    wait_line(driver, "hang running")
    bench = Bench(tmp_path)
    (run,) = bench.runner.list()
    assert run.state == "running"
    with pytest.raises(StateError, match=f"run {run.id} is still running"):
        bench.runner.resume(run.id, bench.events.append)
    driver.kill()
    driver.communicate(timeout=20)


def test_two_runs_at_once(tmp_path: Path, token: str) -> None:
    package = work().write(tmp_path / "package.json")
    drivers = [drive(tmp_path, package, token) for _ in range(3)]
    for driver in drivers:
        text, _ = driver.communicate(timeout=60)
        assert text.splitlines()[-1] == "succeeded", text
    bench = Bench(tmp_path)
    runs = [bench.runner.get(run.id) for run in bench.runner.list()]
    assert len(runs) == 3
    assert contents(runs[0]) == contents(runs[1]) == contents(runs[2])
    sound(bench)


def test_full_disk_fails_the_task_and_nothing_else(tmp_path: Path) -> None:
    """A step that may not write more: its half output is not taken for a whole one."""
    bench = Bench(tmp_path)
    script = f"ulimit -f 1; trap '' XFSZ; head -c 100000 /dev/zero > {out('data')}"
    run = bench.run(Pipeline().task("big", script, writes=["data"]).task("small"))
    assert bench.states(run) == {"big": "failed", "small": "succeeded"}
    big = run.task("big")
    assert big is not None
    assert big.artifacts == {}
    assert set(bench.states(bench.run(Pipeline().task("big", script, writes=["data"])))) == {"big"}


def test_database_that_is_none_is_named(tmp_path: Path) -> None:
    from ctflow.errors import OutsideError

    bench = Bench(tmp_path)
    bench.state.mkdir()
    (bench.state / "record.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(OutsideError, match=r"cannot use the record .*record\.db"):
        bench.runner.get("latest")


def test_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(Pipeline().task("t"))
    connection = sqlite3.connect(bench.state / "record.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StateError, match="written by a newer ctflow"):
        bench.runner.list()


def test_clock_that_is_set_back_makes_no_negative_durations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock tells an hour less than the one before."""
    now = iter(range(2_000_000_000, 0, -3600))
    bench = Bench(tmp_path)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    run = bench.run(Pipeline().task("one", f"echo a > {out('d')}", writes=["d"]).task("two"))
    again = bench.run(Pipeline().task("one", f"echo a > {out('d')}", writes=["d"]).task("two"))
    for found in (run, again, bench.runner.get(run.id)):
        assert found.state == "succeeded", found.error
        assert found.ended is not None
        assert found.ended >= found.created
        for task in found.tasks:
            assert task.started is not None
            assert task.ended is not None
            assert task.ended >= task.started
    assert [one.id for one in bench.runner.list()] == [again.id, run.id]
    assert set(bench.states(again).values()) == {"cached"}


def test_record_that_stays_locked_says_what_may_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctflow.errors import OutsideError
    from ctflow.runners.local import database

    bench = Bench(tmp_path)
    bench.run(Pipeline().task("t"))
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    other = sqlite3.connect(bench.state / "record.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert bench.runner.get("latest").state == "succeeded"  # reading goes on
        with pytest.raises(OutsideError) as raised:
            bench.runner.prune(1)
        assert "database is locked (another process keeps writing" in raised.value.message()
        assert "CTFLOW_STATE" in raised.value.message()
    finally:
        other.close()


def test_memory_of_the_runner_stays_small(tmp_path: Path) -> None:
    """A step that prints 300 MB costs the runner next to nothing."""
    package = (
        Pipeline()
        .task("loud", "head -c 300000000 /dev/zero | tr '\\0' x")
        .write(tmp_path / "package.json")
    )
    script = (
        "from tests.conformance.tools import main\n"
        "main()\n"
        "print(next(line.split()[1] for line in open('/proc/self/status')"
        " if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(package)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "succeeded" in done.stdout.split()
    assert int(done.stdout.split()[-1]) < 80_000


def test_a_first_run_that_another_process_begins_is_no_lost_record(tmp_path: Path) -> None:
    """Its folder says who holds it before there is a record; the record is empty for a moment."""
    bench = Bench(tmp_path)
    with new_folder(bench.state / "runs"):
        (bench.state / "record.db").touch()
        assert bench.run(work()).state == "succeeded"
