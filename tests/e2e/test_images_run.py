"""`ctflow run --engine podman`: the template's project in containers, as it runs in processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.containers import Containers, select_pause


def call(root: Path, environ: Mapping[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", *words], cwd=root, capture_output=True, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def environ(containers: Containers, tmp_path: Path) -> dict[str, str]:
    """For ctflow's own process: the engines' settings, and a cache of its own."""
    place = str(Path(__file__).parents[2])
    return {**containers.environ, "CTFLOW_CACHE": str(tmp_path / "cache"), "PYTHONPATH": place}


def results(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has found out: metrics, and of each task its state and outputs' digests."""
    return {
        "metrics": run["metrics"],
        "tasks": {
            task["name"]: (
                task["outputs"],
                {k: [one["digest"] for one in v] for k, v in task["artifacts"].items()},
            )
            for task in run["tasks"]
        },
    }


def test_same_results_as_processes(
    containers: Containers, tmp_path: Path, environ: dict[str, str]
) -> None:
    """The demo project, its images made without an engine, run with podman."""
    call(tmp_path, environ, "new", "demo", "--no-input")
    root = tmp_path / "demo"
    config = root / "ctflow.yaml"
    text = config.read_text().replace("base: python:3.11-slim", f"base: {containers.base}")
    config.write_text(text.replace(
        "\nimages:\n", f"\nimages:\n  registry: {containers.address}/demo\n  builder: layers\n"
    ))  # fmt: skip
    here = json.loads(call(root, environ, "run", "--json", "--no-cache"))
    there = json.loads(call(root, environ, "run", "--json", "--no-cache", "--engine", "podman"))
    assert results(there) == results(here)
    assert {task["state"] for task in there["tasks"]} == {"succeeded"}
    assert all("@sha256:" in image["reference"] for image in there["images"])
    assert there["images"] != here["images"]
    again = json.loads(call(root, environ, "run", "--json", "--engine", "podman"))
    assert {task["name"] for task in again["tasks"] if task["state"] == "cached"} >= {
        "train", "evaluate", "validate"
    }  # fmt: skip
    assert containers.run(["podman", "ps", "--all", "--quiet"]).split() == []


PIPELINE = """\
import ctflow
from kfp import dsl


@dsl.container_component
def work(code: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=ctflow.image("work"), command=["python", "main.py"], args=[code, out]
    )


@dsl.pipeline(name="walk")
def pipeline(code: str = "pass"):
    made = work(code=code)
    made.set_env_variable("COLOUR", "red; $(touch x)")
    made.set_caching_options(False)
"""
MAIN = """\
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[2])
out.write_text("nothing")
exec(sys.argv[1])
"""


@pytest.fixture
def small(containers: Containers, tmp_path: Path, environ: dict[str, str]) -> Path:
    """A project of one step, whose code is a parameter."""
    root = tmp_path / "small"
    (root / "steps/work").mkdir(parents=True)
    (root / "pipeline.py").write_text(PIPELINE)
    (root / "steps/work/main.py").write_text(MAIN)
    (root / "steps/work/Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nWORKDIR /step\nENV FROM_IMAGE=1\nCOPY main.py ./\n"
        'ENTRYPOINT ["false"]\n'
    )
    (root / "ctflow.yaml").write_text(
        f"project: small\nimages:\n  registry: {containers.address}/{tmp_path.name.lower()}\n"
        f"  base: {containers.base}\n  builder: layers\n"
    )
    return root


def run_code(root: Path, environ: Mapping[str, str], code: str, *words: str, fails: int = 0) -> Any:
    """Run code in the step's container; the run, as --json tells it."""
    given = ("run", "--json", "--engine", "podman", "-p", f"code={json.dumps(code)}", *words)
    return json.loads(call(root, environ, *given, code=fails))


def test_what_a_step_finds(containers: Containers, small: Path, environ: dict[str, str]) -> None:
    """The image's folder and variables, the package's variables, the caller's user."""
    code = (
        "out.write_text(repr((os.getcwd(), os.environ['FROM_IMAGE'], os.environ['COLOUR'], "
        "os.getuid(), 'TOKEN' in os.environ, [k for k in os.environ if 'CONTAINER_' in k])))"
    )
    run = run_code(small, {**environ, "TOKEN": "x"}, code)
    (task,) = run["tasks"]
    found = task["outputs"]["out"]
    assert found == repr(("/step", "1", "red; $(touch x)", os.getuid(), False, []))


def test_state_is_read_only(containers: Containers, small: Path, environ: dict[str, str]) -> None:
    """A step writes to its own folder, and nowhere else in the project."""
    place = small / ".ctflow" / "record.db"
    run = run_code(small, environ, f"open({str(place)!r}, 'a')", fails=4)
    assert run["state"] == "failed"
    logs = call(small, environ, "runs", "logs", run["id"])
    assert "Read-only file system" in logs


def test_exit_codes(containers: Containers, small: Path, environ: dict[str, str]) -> None:
    run = run_code(small, environ, "print('last words'); sys.exit(7)", fails=4)
    assert run["tasks"][0]["exit_code"] == 7
    assert containers.run(["podman", "ps", "--all", "--quiet"]).split() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_killed(
    containers: Containers, small: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    """Also by kill -9: neither a container nor a process of one."""
    mark = f"marked-{os.getpid()}-{number}"
    code = json.dumps(f"time.sleep(600)  # {mark}")
    run_code(small, environ, "pass")  # so that all is built
    process = subprocess.Popen(
        [sys.executable, "-m", "ctflow", "run", "--engine", "podman", "-p", f"code={code}"],
        cwd=small, env={**os.environ, **environ}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    listed = ["podman", "ps", "--all", "--quiet", "--filter", "label=ctflow.run"]
    _until(lambda: containers.run([*listed, "--filter", "status=running"]) != "")
    process.send_signal(number)
    process.wait()
    _until(lambda: containers.run(listed) == "")
    _until(lambda: not _processes(f"sleep(600)  # {mark}"))


def _until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, "it did not happen"
        select_pause()


def _processes(text: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in place.read_bytes():
                found.append(place.parent.name)
    return found


def test_an_engine_that_is_not_here(small: Path, environ: dict[str, str]) -> None:
    """One line, with the command that gets it; before anything is run."""
    path = small / "bin"
    path.mkdir()
    (path / "git").symlink_to("/usr/bin/git")
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", "run", "--engine", "docker"], cwd=small,
        env={**os.environ, **environ, "PATH": str(path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 5
    assert "docker is not on the path; get it with `apt-get install docker.io`" in done.stderr
