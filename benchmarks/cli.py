"""How long the commands of the main job take, as whole processes.

Prints the median, least and greatest wall time in seconds of several runs of each:

    python benchmarks/cli.py [--runs N]

``run, cold`` is a pipeline of no-op container steps, one after another, compiled before and with no
cached result; ``each further step`` is the difference between pipelines of 5 and of 25 such steps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CTFLOW = [sys.executable, "-m", "ctflow"]
#: Each output differs from all others: equal work is done once, even within one run.
STEP = "import sys\nopen(sys.argv[1], 'w').write(sys.argv[1])\n"
HEAD = """\
import ctflow
from kfp import dsl


@dsl.container_component
def first(out: dsl.Output[dsl.Artifact], salt: str):
    return dsl.ContainerSpec(
        image=ctflow.image("noop"), command=["python", "main.py"], args=[out.path, salt]
    )


@dsl.container_component
def after(before: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact], salt: str):
    return dsl.ContainerSpec(
        image=ctflow.image("noop"), command=["python", "main.py"], args=[out.path, salt]
    )


@dsl.pipeline(name="noop")
def pipeline(salt: str = "x"):
    task = first(salt=salt)
"""


def project(folder: Path, steps: int) -> Path:
    """A project of ``steps`` no-op container steps in a chain."""
    place = folder / f"noop{steps}"
    (place / "steps" / "noop").mkdir(parents=True)
    (place / "steps" / "noop" / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . .\n")
    (place / "steps" / "noop" / "main.py").write_text(STEP)
    (place / "ctflow.yaml").write_text("project: noop\n")
    more = "    task = after(before=task.outputs['out'], salt=salt)\n" * (steps - 1)
    (place / "pipeline.py").write_text(HEAD + more)
    call("git", "init", "-q", place)
    call("git", "-C", place, "add", ".")
    call("git", "-C", place, "-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b")
    call(*CTFLOW, "run", "-C", place)
    return place


def call(*words: str | Path) -> None:
    """Run it, and stop when it fails."""
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


def timed(name: str, runs: int, work: Callable[[int], None]) -> float:
    """Print the figures of ``runs`` calls after one that does not count; the median."""
    work(0)
    found = []
    for number in range(1, runs + 1):
        start = time.perf_counter()
        work(number)
        found.append(time.perf_counter() - start)
    middle = statistics.median(found)
    print(f"{name:<34} {middle:>8.3f} {min(found):>8.3f} {max(found):>8.3f}", flush=True)
    return middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    base = Path(tempfile.mkdtemp(prefix="ctflow-bench-"))
    names = {"GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b", "GIT_COMMITTER_NAME": "b",
             "GIT_COMMITTER_EMAIL": "b@b"}  # fmt: skip
    os.environ.update(names)
    print(f"{'command':<34} {'median':>8} {'least':>8} {'most':>8}")
    try:
        timed("python -c pass (for comparison)", runs, lambda _: call(sys.executable, "-c", "pass"))
        timed("ctflow --help", runs, lambda _: call(*CTFLOW, "--help"))
        new = [*CTFLOW, "new", "--no-input", "project=p"]
        timed("ctflow new", runs, lambda n: call(*new[:-2], base / f"new{n}", *new[-2:]))
        five, many = project(base, 5), project(base, 25)
        cold5 = timed("run, 5 steps, cold", runs,
                      lambda n: call(*CTFLOW, "run", "-C", five, "-p", f"salt=a{n}"))  # fmt: skip
        cold25 = timed("run, 25 steps, cold", runs,
                       lambda n: call(*CTFLOW, "run", "-C", many, "-p", f"salt=a{n}"))  # fmt: skip
        print(f"{'each further step':<34} {(cold25 - cold5) / 20:>8.3f}")
        timed("run, 5 steps, cached", runs,
              lambda _: call(*CTFLOW, "run", "-C", five, "-p", "salt=a0"))  # fmt: skip
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
