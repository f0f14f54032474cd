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
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import CTFLOW, IDENTITY, call, project, seconds


def timed(name: str, runs: int, work: Callable[[int], object]) -> float:
    """Print the figures of ``runs`` calls after one that does not count; the median."""
    work(0)
    found = [seconds(partial(work, number)) for number in range(1, runs + 1)]
    middle = statistics.median(found)
    print(f"{name:<34} {middle:>8.3f} {min(found):>8.3f} {max(found):>8.3f}", flush=True)
    return middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    base = Path(tempfile.mkdtemp(prefix="ctflow-bench-"))
    os.environ.update(IDENTITY)
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
