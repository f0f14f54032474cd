"""Secret files and masks, a full disk, and a record of many runs."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ctflow.errors import Interrupted
from ctflow.model import Run
from ctflow.ports import Event
from ctflow.runners.local.logs import Log
from tests.conformance.tools import Bench, Pipeline
from tests.work import counted


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def write_secrets(bench: Bench) -> None:
    bench.state.mkdir(exist_ok=True)
    (bench.state / "secrets.yaml").write_text("db: {password: hunter2, user: ada}\n")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_secret_cut_between_two_reads_is_masked(tmp_path: Path, size: int) -> None:
    shown: list[str] = []
    log = Log(tmp_path / "log", shown.append, changes=((b"secret", b"***"), (b"other", b"***")))
    data = b"a secret, b othe r\nsecretsecret\nothersec"
    for at in range(0, len(data), size):
        log.write(data[at : at + size])
    log.close()
    wanted = ["a ***, b othe r", "******", "***sec"]
    assert (tmp_path / "log").read_text().splitlines() == wanted
    assert shown == wanted


def test_full_disk_ends_the_run_with_one_clear_line(tmp_path: Path) -> None:
    """Nothing may be written over 300 kB: the log fails, then perhaps the record."""
    package = (
        Pipeline()
        .task("loud", "head -c 5000000 /dev/zero | tr '\\0' x")
        .write(tmp_path / "package.json")
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.tools", str(tmp_path), str(package)],
        preexec_fn=limit, capture_output=True, text=True, timeout=60, env=os.environ,
    )  # fmt: skip
    assert done.returncode != 0
    assert "File too large" in done.stderr.splitlines()[-1]
    bench = Bench(tmp_path)
    assert bench.runner.get("latest").state == "canceled"
    assert bench.runner.resume("latest", bench.events.append).state == "succeeded"


def test_record_of_many_runs_is_read_at_once(tmp_path: Path) -> None:
    """3,000 runs of 10 tasks: the newest, one of them and the failed ones in no time."""
    from ctflow.model import Task
    from ctflow.runners.local.record import Record

    bench = Bench(tmp_path)
    record = Record(bench.state / "record.db")
    for number in range(3000):
        one = Run(f"r-{number:04d}", "p", "p", "sha256:1", "failed" if number % 50 == 0 else
                  "succeeded", float(number))  # fmt: skip
        row = record.add_run(one, {})
        for position in range(10):
            record.put_task(row, position, Task(f"t{position}", "succeeded"))
    record.commit()
    record.close()
    with counted() as work:
        assert [one.id for one in bench.runner.list(2)] == ["r-2999", "r-2998"]
        assert [one.id for one in bench.runner.list(2, "failed")] == ["r-2950", "r-2900"]
        assert len(bench.runner.get("r-0007").tasks) == 10
    assert work.sql < 20_000  # a walk over all runs alone takes more


def with_secret_files(bench: Bench, pipeline: Pipeline, task: str) -> Path:
    """A package whose task is given files of a secret."""
    write_secrets(bench)
    settings = {f"exec-{task}": {"secretAsVolume": [{"secretName": "db", "mountPath": "/secrets"}]}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}}
    package = bench.folder / "package.yaml"
    package.write_text(yaml.safe_dump_all([pipeline.data(), platform]), encoding="utf-8")
    return package


def test_secret_files_of_a_task_that_waited_go_with_an_interrupted_run(tmp_path: Path) -> None:
    """It has no place yet, but all that its process needs is there already."""
    bench = Bench(tmp_path, slots=1)
    both = Pipeline().task("first", "echo here; sleep 1000").task("second", "cat /secrets/user")
    package = with_secret_files(bench, both, "second")
    files: list[Path] = []

    def watch(event: Event) -> None:
        if event.kind == "log":
            files.extend(bench.state.glob("runs/**/.secrets/**/password"))
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        bench.runner.run(bench.request(package), watch)
    assert len(files) == 1
    assert not list(bench.state.glob("runs/**/.secrets"))


def test_secret_files_of_a_killed_run_go_with_the_next_look(bench: Bench) -> None:
    pipeline = Pipeline().task("t", "cat /secrets/user; while :; do sleep 1; done")
    package = with_secret_files(bench, pipeline, "t")
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.tools", str(bench.folder), str(package)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert any(line.strip() == "t running" for line in driver.stdout)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    runs = bench.state / "runs"
    assert list(runs.glob("**/.secrets"))
    (dead,) = bench.runner.list()
    assert dead.state == "canceled"
    assert not list(runs.glob("**/.secrets"))
