"""Kubernetes-only settings on one machine: volumes, secrets, deadlines, and what means nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.errors import ConfigError
from ctflow.local.logs import Log
from ctflow.model import Run
from tests.conformance.tools import Bench, Pipeline, out, text_of

SECRET = "hunter2-ö"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(bench: Bench, pipeline: Pipeline, settings: dict[str, Any], **more: Any) -> Run:
    """Run a package of two YAML documents, as the compiler writes them."""
    executors = {f"exec-{name}": value for name, value in settings.items()}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    package = bench.folder / "package.yaml"
    package.write_text(yaml.safe_dump_all([pipeline.data(), platform]), encoding="utf-8")
    return bench.run(package, **more)


def write_secrets(bench: Bench) -> None:
    bench.state.mkdir(exist_ok=True)
    (bench.state / "secrets.yaml").write_text(f"db: {{password: {SECRET}, user: ada}}\n")


def test_volume_is_a_folder_that_tasks_share(bench: Bench) -> None:
    mount = {"pvcMount": [{"constant": "data", "mountPath": "/data"}]}
    other = {"pvcMount": [{"pvcNameParameter": {"runtimeValue": {"constant": "data"}},
                           "mountPath": "/mnt/in"}]}  # fmt: skip
    pipeline = Pipeline().task("write", "echo shared > /data/x; ls /database 2> /dev/null || true")
    pipeline.task("read", f"cat /mnt/in/x > {out('d')}", after=["write"], writes=["d"])
    done = run(bench, pipeline, {"write": mount, "read": other})
    assert done.state == "succeeded", done.error
    assert text_of(done, "read.d") == "shared\n"
    assert (bench.state / "volumes" / "data" / "x").read_text() == "shared\n"


def test_secrets_come_as_variables_and_files_and_are_not_logged(bench: Bench) -> None:
    write_secrets(bench)
    settings = {
        "secretAsEnv": [{"secretName": "db",
                         "keyToEnv": [{"secretKey": "password", "envVar": "PASSWORD"}]}],
        "secretAsVolume": [{"secretName": "db", "mountPath": "/secrets"}],
    }  # fmt: skip
    script = (
        f'echo "it is $PASSWORD."; [ "$PASSWORD" = "$(cat /secrets/password)" ]; '
        f"cat /secrets/user > {out('d')}"
    )
    done = run(bench, Pipeline().task("t", script, writes=["d"]), {"t": settings})
    assert done.state == "succeeded", done.error
    assert text_of(done, "t.d") == "ada"
    assert list(bench.runner.logs(done.id)) == [("t", "it is ***.")]
    assert [event.text for event in bench.events if event.kind == "log"] == ["it is ***."]
    kept = [
        path
        for path in bench.state.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert kept == [bench.state / "secrets.yaml"]


def test_secret_that_is_not_there_is_refused_before_the_first_task(bench: Bench) -> None:
    write_secrets(bench)
    settings = {"secretAsEnv": [{"secretName": "cloud", "keyToEnv": []}]}
    with pytest.raises(ConfigError, match=r"t uses secret cloud.*secrets\.yaml") as caught:
        run(bench, Pipeline().task("t"), {"t": settings})
    assert SECRET not in str(caught.value)
    assert not bench.events


def test_settings_without_a_meaning_are_listed_once(bench: Bench) -> None:
    settings = {"nodeSelector": {"labels": {"gpu": "yes"}}, "tolerations": []}
    done = run(bench, Pipeline().task("a").task("b"), {"a": settings, "b": settings})
    assert done.state == "succeeded"
    notes = [event.text for event in bench.events if "meaning" in event.text]
    assert notes == ["these settings have no meaning on this machine: nodeSelector, tolerations"]


def test_task_that_takes_too_long_is_stopped(bench: Bench) -> None:
    started = time.monotonic()
    pipeline = Pipeline().task("slow", "sleep 60").task("quick")
    done = run(bench, pipeline, {"slow": {"activeDeadlineSeconds": 0.2}})
    assert time.monotonic() - started < 10
    task = done.task("slow")
    assert task is not None
    assert (task.state, task.error) == ("failed", "it took longer than its 0.2 s")
    assert bench.states(done)["quick"] == "succeeded"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_secret_cut_between_two_reads_is_masked(tmp_path: Path, size: int) -> None:
    shown: list[str] = []
    log = Log(tmp_path / "log", shown.append, mask=(b"secret", b"other"))
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
    from ctflow.local.record import Record
    from ctflow.model import Task

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
    started = time.perf_counter()
    assert [one.id for one in bench.runner.list(2)] == ["r-2999", "r-2998"]
    assert [one.id for one in bench.runner.list(2, "failed")] == ["r-2950", "r-2900"]
    assert len(bench.runner.get("r-0007").tasks) == 10
    assert time.perf_counter() - started < 0.3


def test_secret_files_of_a_killed_run_go_with_the_next_look(bench: Bench) -> None:
    write_secrets(bench)
    settings = {"exec-t": {"secretAsVolume": [{"secretName": "db", "mountPath": "/secrets"}]}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}}
    package = bench.folder / "package.yaml"
    pipeline = Pipeline().task("t", "cat /secrets/user; while :; do sleep 1; done")
    package.write_text(yaml.safe_dump_all([pipeline.data(), platform]), encoding="utf-8")
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
