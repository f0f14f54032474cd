"""`ctflow run --engine`: the template's project in containers, as it runs in processes.

With the real podman, and with a real dockerd of the tests' own.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.containers import PYTHON, Containers, select_pause
from tests.engines import Docker


def call(root: Path, environ: Mapping[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", *words], cwd=root, capture_output=True, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


#: For tests that need no more than one.
only_podman = pytest.mark.parametrize("engine", ["podman"], indirect=True)


@dataclass(frozen=True)
class Engine:
    """An engine: its program, and what tells the program where it works."""

    name: str
    environ: Mapping[str, str]
    run: Callable[[Sequence[str]], str]

    def containers(self, *filters: str) -> list[str]:
        """The ids of all containers, also those that have ended."""
        words = [word for one in filters for word in ("--filter", one)]
        return self.run([self.name, "ps", "--all", "--quiet", *words]).split()


@pytest.fixture(params=["podman", "docker"])
def engine(request: pytest.FixtureRequest, containers: Containers) -> Engine:
    """podman, and docker with a daemon."""
    if request.param == "podman":
        return Engine("podman", containers.environ, containers.run)
    daemon: Docker = request.getfixturevalue("docker")
    environ = {**containers.environ, **daemon.environ}
    return Engine("docker", environ, lambda argv: daemon.run(*argv))


@pytest.fixture
def environ(engine: Engine, tmp_path: Path) -> dict[str, str]:
    """For ctflow's own process: the engine's settings, and a cache of its own."""
    place = str(Path(__file__).parents[2])
    return {
        **engine.environ, "CTFLOW_CACHE": str(tmp_path / "cache"), "PYTHONPATH": place,
        "ENGINE": engine.name,
    }  # fmt: skip


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


@only_podman
def test_same_results_as_processes(
    containers: Containers, docker: Docker, environ: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The demo project, its images made without an engine, run with each."""
    for name in list(os.environ):
        if name.startswith("OPENBLAS_"):  # a container gets none: other kernels, other last digits
            monkeypatch.delenv(name)
    environ = {**environ, **docker.environ}
    call(tmp_path, environ, "new", "demo", "--no-input")
    root = tmp_path / "demo"
    config = root / "ctflow.yaml"
    text = config.read_text().replace("base: python:3.11-slim", f"base: {containers.base}")
    config.write_text(text.replace(
        "\nimages:\n", f"\nimages:\n  registry: {containers.address}/demo\n  builder: layers\n"
    ))  # fmt: skip
    here = json.loads(call(root, environ, "run", "--json", "--no-cache"))
    for name in ("podman", "docker"):
        given = ("run", "--json", "--engine", name)
        there = json.loads(call(root, environ, *given, "--no-cache"))
        assert results(there) == results(here)
        assert {task["state"] for task in there["tasks"]} == {"succeeded"}
        assert all("@sha256:" in image["reference"] for image in there["images"])
        assert there["images"] != here["images"]
        again = json.loads(call(root, environ, *given))
        assert {task["name"] for task in again["tasks"] if task["state"] == "cached"} >= {
            "train", "evaluate", "validate"
        }  # fmt: skip
    assert containers.run(["podman", "ps", "--all", "--quiet"]).split() == []
    assert docker.run("docker", "ps", "--all", "--quiet").split() == []


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
    given = (
        "run",
        "--json",
        "--engine",
        environ["ENGINE"],
        "-p",
        f"code={code}",
        *words,
    )
    return json.loads(call(root, environ, *given, code=fails))


def test_what_a_step_finds(small: Path, environ: dict[str, str]) -> None:
    """The image's folder and variables, the package's variables, the caller's user."""
    code = (
        "out.write_text(repr((os.getcwd(), os.environ['FROM_IMAGE'], os.environ['COLOUR'], "
        "os.getuid(), 'TOKEN' in os.environ, [k for k in os.environ if 'CONTAINER_' in k])))"
    )
    run = run_code(small, {**environ, "TOKEN": "x"}, code)
    (task,) = run["tasks"]
    found = task["outputs"]["out"]
    assert found == repr(("/step", "1", "red; $(touch x)", os.getuid(), False, []))


def test_state_is_read_only(small: Path, environ: dict[str, str]) -> None:
    """A step writes to its own folder, and nowhere else in the project."""
    place = small / ".ctflow" / "record.db"
    run = run_code(small, environ, f"open({str(place)!r}, 'a')", fails=4)
    assert run["state"] == "failed"
    logs = call(small, environ, "runs", "logs", run["id"])
    assert "Read-only file system" in logs


def test_exit_codes(engine: Engine, small: Path, environ: dict[str, str]) -> None:
    run = run_code(small, environ, "print('last words'); sys.exit(7)", fails=4)
    assert run["tasks"][0]["exit_code"] == 7
    assert engine.containers() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_killed(
    engine: Engine, small: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    """Also by kill -9: neither a container nor a process of one."""
    mark = f"marked-{os.getpid()}-{number}"
    code = f"time.sleep(600)  # {mark}"
    run_code(small, environ, "pass")  # so that all is built
    process = subprocess.Popen(
        [sys.executable, "-m", "ctflow", "run", "--engine", engine.name, "-p", f"code={code}"],
        cwd=small, env={**os.environ, **environ}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _until(lambda: engine.containers("label=ctflow.run", "status=running") != [])
    process.send_signal(number)
    process.wait()
    _until(lambda: engine.containers("label=ctflow.run") == [])
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


#: What the limits of a pipeline look like, and what its Kubernetes extension makes of
#: ``mount_pvc``, ``use_secret_as_volume`` and ``use_secret_as_env``.
SETTINGS = """
    made.set_memory_limit("64M").set_cpu_limit("0.5")
    made.platform_config["kubernetes"] = {
        "pvcMount": [{"constant": "data", "mountPath": "/data"}],
        "secretAsVolume": [{"secretName": "login", "mountPath": "/login"}],
        "secretAsEnv": [{"secretName": "login",
                         "keyToEnv": [{"secretKey": "token", "envVar": "TOKEN"}]}],
    }
"""


@pytest.fixture
def settled(small: Path) -> Path:
    """The project, its task with limits, a volume and a secret."""
    (small / "pipeline.py").write_text(PIPELINE + SETTINGS)
    (small / ".ctflow").mkdir()
    (small / ".ctflow/secrets.yaml").write_text("login: {token: very-secret, user: ada}\n")
    return small


#: Prints the limits of the control groups that it finds itself in, of version 1 or 2.
LOOK = """
found = {}
for name, files in {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "cpu": ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_quota_us"),
}.items():
    for file in files:
        place = pathlib.Path("/sys/fs/cgroup") / file
        if place.exists():
            found[name] = int(place.read_text().split()[0])
out.write_text(repr(found))
"""


def test_limits_are_kept(settled: Path, environ: dict[str, str]) -> None:
    """They are those of the container's control groups; who needs more is killed, and told so."""
    (task,) = run_code(settled, environ, LOOK)["tasks"]
    found = ast.literal_eval(task["outputs"]["out"])
    assert found["cpu"] == 50_000  # of the 100,000 microseconds of a period
    assert 63_000_000 < found["memory"] <= 64_000_000
    run = run_code(settled, environ, "len(bytearray(300_000_000))", fails=4)
    (task,) = run["tasks"]
    assert task["exit_code"] == 137
    said = call(settled, environ, "runs", "logs", run["id"])
    assert "because it used more memory than its limit of 64 MB" in said
    assert "set_memory_limit" in said
    # A step that fails by itself is not blamed on its memory.
    run = run_code(settled, environ, "print('by itself'); sys.exit(1)", fails=4)
    said = call(settled, environ, "runs", "logs", run["id"])
    assert "by itself" in said
    assert "more memory" not in said


def test_volumes_and_secrets(settled: Path, environ: dict[str, str]) -> None:
    """A volume keeps what a run writes for the next; a secret is there as files and variable."""
    look = (
        "found = sorted((p.name, p.read_text()) for p in pathlib.Path('/login').iterdir())\n"
        "pathlib.Path('/data/kept').write_text('kept')\n"
        "good = found == [('token', 'very' + '-secret'), ('user', 'ada')]\n"
        "out.write_text(repr((good, os.environ['TOKEN'] == 'very' + '-secret', os.getuid())))\n"
        "print('it is', os.environ['TOKEN'])\n"
    )
    run = run_code(settled, environ, look)
    (task,) = run["tasks"]
    assert task["outputs"]["out"] == repr((True, True, os.getuid()))
    assert (settled / ".ctflow/volumes/data/kept").read_text() == "kept"
    assert (settled / ".ctflow/volumes/data/kept").stat().st_uid == os.getuid()
    (task,) = run_code(settled, environ, "out.write_text(open('/data/kept').read())")["tasks"]
    assert task["outputs"]["out"] == "kept"
    assert "it is ***" in call(settled, environ, "runs", "logs", run["id"])
    # The secret's files do not outlive the task, nor is it anywhere else but in its file.
    holding = [
        path for path in settled.rglob("*")
        if path.is_file() and b"very-secret" in path.read_bytes()
    ]  # fmt: skip
    assert [path.name for path in holding] == ["secrets.yaml"]


def test_the_network_is_taken_away(settled: Path, environ: dict[str, str]) -> None:
    """With --network none a step has no way out."""
    code = "out.write_text(repr(sorted(os.listdir('/sys/class/net'))))"
    (task,) = run_code(settled, environ, code, "--network", "none")["tasks"]
    assert task["outputs"]["out"] == "['lo']"


@only_podman
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
    assert "docker is not on the PATH; install it with `apt-get install docker.io`" in done.stderr


COMPONENT = """\
import ctflow
from kfp import dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image=ctflow.image("work"), install_kfp_package=False)
def write(text: str, data: Output[Dataset]) -> str:
    import os

    with open(data.path, "w") as file:
        file.write(text)
    return os.environ.get("FROM_IMAGE", "not in the image")


@dsl.component(base_image=ctflow.image("work"), install_kfp_package=False)
def read(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return file.read()


@dsl.pipeline(name="walk")
def pipeline(text: str = "hello"):
    read(data=write(text=text).outputs["data"])
"""


def test_a_python_component_runs_in_its_image(small: Path, environ: dict[str, str]) -> None:
    import kfp

    (small / "pipeline.py").write_text(COMPONENT)
    # What an image for such components has: KFP's executor, which needs nothing else.
    shutil.copytree(Path(kfp.__file__).parent, small / "steps/work/kfp")
    with (small / "steps/work/Dockerfile").open("a") as file:
        file.write(f"COPY kfp /usr/local/lib/python{PYTHON}/site-packages/kfp\n")
    given = ("run", "--json", "--engine", environ["ENGINE"])
    run = json.loads(call(small, environ, *given))
    found = {task["name"]: task["outputs"]["Output"] for task in run["tasks"]}
    assert found == {"write": "1", "read": "hello"}
    assert {task["state"] for task in json.loads(call(small, environ, *given))["tasks"]} == {
        "cached"
    }
