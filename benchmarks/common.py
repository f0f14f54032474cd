"""What several benchmarks need: projects of no-op steps, processes, and times taken in turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# With it each process compiles all that it imports; no tool here is to be measured like that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
CTFLOW = [sys.executable, "-m", "ctflow"]
IDENTITY = {
    "GIT_AUTHOR_NAME": "b",
    "GIT_AUTHOR_EMAIL": "b@b",
    "GIT_COMMITTER_NAME": "b",
    "GIT_COMMITTER_EMAIL": "b@b",
}
#: Each output differs from all others: equal work is done once, even within one run.
STEP = "import sys\nopen(sys.argv[1], 'w').write(' '.join(sys.argv[1:]))\n"
CONTAINERS = """\
import ctflow
from kfp import dsl


@dsl.container_component
def first(out: dsl.Output[dsl.Artifact], salt: str, number: int):
    return dsl.ContainerSpec(
        image=ctflow.image("noop"), command=["python", "main.py"], args=[out.path, salt, number]
    )


@dsl.container_component
def after(before: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact], salt: str):
    return dsl.ContainerSpec(
        image=ctflow.image("noop"), command=["python", "main.py"], args=[out.path, salt]
    )


@dsl.pipeline(name="noop")
def pipeline(salt: str = "x"):
    task = first(salt=salt, number=0)
"""
PYTHON = """\
from kfp import dsl


@dsl.component
def add(a: int, salt: str) -> int:
    return a + 1


@dsl.pipeline(name="noop")
def pipeline(salt: str = "x"):
    task = add(a=0, salt=salt)
"""
#: The further steps by kind of component and shape of the pipeline.
FURTHER = {
    ("containers", "chain"): "after(before=task.outputs['out'], salt=salt)",
    ("containers", "wide"): "first(salt=salt, number={number})",
    ("python", "chain"): "add(a=task.output, salt=salt)",
    ("python", "wide"): "add(a={number}, salt=salt)",
}


def project(folder: Path, steps: int, kind: str = "containers", shape: str = "chain") -> Path:
    """A committed project of no-op steps that has run once.

    Args:
        folder: where its folder is made.
        steps: how many.
        kind: ``containers`` or ``python`` (lightweight Python components).
        shape: ``chain``, one after another, or ``wide``, independent of each other.
    """
    place = folder / f"{kind}-{shape}{steps}"
    (place / "steps" / "noop").mkdir(parents=True)
    (place / "steps" / "noop" / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . .\n")
    (place / "steps" / "noop" / "main.py").write_text(STEP)
    (place / "ctflow.yaml").write_text("project: noop\n")
    step = FURTHER[kind, shape]
    more = "".join(f"    task = {step.format(number=number)}\n" for number in range(1, steps))
    (place / "pipeline.py").write_text((CONTAINERS if kind == "containers" else PYTHON) + more)
    call("git", "init", "-q", place)
    call("git", "-C", place, "add", ".")
    call("git", "-C", place, "commit", "-qm", "b", env=IDENTITY)
    call(*CTFLOW, "run", "-C", place)
    return place


def call(
    *words: str | Path, env: Mapping[str, str] | None = None, timeout: float | None = None
) -> str:
    """What it prints, run with the variables of ``env`` besides those of this process.

    Raises:
        subprocess.CalledProcessError: it fails; its output is in it.
        subprocess.TimeoutExpired: it takes more than ``timeout`` seconds.
    """
    done = subprocess.run(
        list(map(str, words)), check=True, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    return done.stdout


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turns(work: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """The times of each in seconds, taken in turns: what drifts meanwhile drifts for all."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, one in work.items():
            times[name].append(seconds(one))
    return times


def medians(work: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The median time of each in seconds, taken in turns."""
    return {name: statistics.median(found) for name, found in turns(work, runs).items()}
