"""Pipelines of 5, 25 and 200 tasks on the embedded runner, beside kfp.local in the same run.

    python benchmarks/runner.py [--runs N]

Every figure is the wall time in seconds of a whole new Python process that runs a compiled
package: the median of several, taken in turns so that a busy machine is busy for all. ``python``
are lightweight Python components (what kfp.local can run too), ``no-op`` processes that only start
(``true``). ``cold``: nothing is cached; ``cached``: everything is. The bound of 200 independent
tasks of 50 ms on two slots is what ``xargs -P2`` needs for the same processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import medians

SIZES = (5, 25, 200)
SOURCE = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"
FUNCTION = "def add(a: int) -> int:\n    return a + 1\n"
DRIVER = """
import os, resource, sys
from pathlib import Path
from ctflow.runners.local.runner import LocalRunner
from ctflow.model import Package
from ctflow.ports import Environment, RunRequest, Workspace, ignore

python = Path(sys.executable)
own = Environment("own", Path(sys.prefix), python,
                  {"PATH": f"{python.parent}:{os.environ['PATH']}"})

class Own:
    def ensure(self, requirements, watch): return own
    def find(self, requirements): return own
    def open(self, reference): return Workspace("noop", Path("/"), own, "noop")

package, state, caching = sys.argv[1:4]
runner = LocalRunner(Path(state), Own(), Own(), slots=2)
request = RunRequest("b", Package("b", "b", "", package, ()), caching=caching == "yes")
run = runner.run(request, ignore)
assert run.state == "succeeded", run.error
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
REFERENCE = """
import sys
from kfp import dsl, local

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int) -> int:
    return a + 1

@dsl.pipeline
def chain():
    task = add(a=0)
    for _ in range(int(sys.argv[1]) - 1):
        task = add(a=task.output)

local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
chain()
"""


def package(kind: str, tasks: int) -> dict[str, Any]:
    """A PipelineSpec: a chain of Python components or no-ops, or independent sleeps."""
    components: dict[str, Any] = {}
    executors: dict[str, Any] = {}
    dag: dict[str, Any] = {}
    for number in range(tasks):
        name, before = f"t{number}", f"t{number - 1}"
        task: dict[str, Any] = {
            "componentRef": {"name": f"comp-{name}"},
            "cachingOptions": {"enableCache": True},
            "dependentTasks": [before] if number and kind != "wide" else [],
        }
        component: dict[str, Any] = {"executorLabel": f"exec-{name}"}
        container: dict[str, Any] = {"image": "noop", "command": ["true"], "args": [str(number)]}
        if kind == "wide":
            container["command"], container["args"] = ["sleep", "0.05"], [str(number / 1e9)]
        if kind == "python":
            value = {
                "taskOutputParameter": {"producerTask": before, "outputParameterKey": "Output"}
            }
            task["inputs"] = {
                "parameters": {"a": value if number else {"runtimeValue": {"constant": 0}}}
            }
            component["inputDefinitions"] = {
                "parameters": {"a": {"parameterType": "NUMBER_INTEGER"}}
            }
            component["outputDefinitions"] = {
                "parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}
            }
            container["command"] = ["sh", "-ec", "program_path kfp.dsl.executor_main",
                                    SOURCE + FUNCTION]  # fmt: skip
            container["args"] = ["--executor_input", "{{$}}", "--function_to_execute", "add"]
        components[f"comp-{name}"] = component
        executors[f"exec-{name}"] = {"container": container}
        dag[name] = task
    return {
        "pipelineInfo": {"name": kind},
        "components": components,
        "deploymentSpec": {"executors": executors},
        "root": {"dag": {"tasks": dag}},
    }


class Bench:
    """Packages and states in a folder that goes away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peak = 0.0

    def package(self, kind: str, tasks: int) -> Path:
        """The package, written once."""
        path = self.folder / f"{kind}{tasks}.json"
        if not path.exists():
            path.write_text(json.dumps(package(kind, tasks)))
        return path

    def ours(self, kind: str, tasks: int, *, cached: bool = False) -> None:
        """One run in a new process."""
        state = self.folder / f"state-{kind}{tasks}"
        if not cached and state.exists():
            shutil.rmtree(state)
        words = [str(self.package(kind, tasks)), str(state), "yes" if cached else "no"]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *words], check=True, capture_output=True, text=True
        )
        self.peak = max(self.peak, int(done.stdout) / 1024)

    def theirs(self, tasks: int) -> None:
        """The same chain of Python components by kfp.local."""
        subprocess.run(
            [sys.executable, self._reference(), str(tasks), str(self.folder / "kfp")],
            check=True, capture_output=True,
        )  # fmt: skip

    def _reference(self) -> str:
        path = self.folder / "reference.py"
        path.write_text(REFERENCE)
        return str(path)

    def bound(self) -> None:
        """200 sleeps of 50 ms, two at a time, by xargs."""
        subprocess.run(
            ["xargs", "-P2", "-n1", "sh", "-c", "exec sleep 0.05"],
            input="x\n" * 200, text=True, check=True,
        )  # fmt: skip


def fill_cache(bench: Bench, kind: str, tasks: int) -> None:
    """One run that leaves its results in the cache."""
    shutil.rmtree(bench.folder / f"state-{kind}{tasks}", ignore_errors=True)
    bench.ours(kind, tasks, cached=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place))
        print(f"{'tasks':>5} {'no-op cold':>11} {'cached':>8} {'python cold':>12} "
              f"{'kfp.local':>10} {'ratio':>6}")  # fmt: skip
        found: dict[int, dict[str, float]] = {}
        for tasks in SIZES:
            work: dict[str, Callable[[], None]] = {
                "no-op": lambda n=tasks: bench.ours("noop", n),  # type: ignore[misc]
                "python": lambda n=tasks: bench.ours("python", n),  # type: ignore[misc]
                "kfp": lambda n=tasks: bench.theirs(n),  # type: ignore[misc]
            }
            found[tasks] = medians(work, runs)
            fill_cache(bench, "noop", tasks)
            found[tasks] |= medians(
                {"cached": lambda n=tasks: bench.ours("noop", n, cached=True)},  # type: ignore[misc]
                runs,
            )
            one = found[tasks]
            ratio = one["python"] / one["kfp"]
            row = f"{tasks:>5} {one['no-op']:>11.3f} {one['cached']:>8.3f} {one['python']:>12.3f}"
            print(f"{row} {one['kfp']:>10.3f} {ratio:>6.2f}", flush=True)
        few, many = SIZES[0], SIZES[-1]
        for name in ("no-op", "python", "kfp"):
            step = (found[many][name] - found[few][name]) / (many - few)
            print(f"each further step, {name}: {step * 1000:.1f} ms")
        wide = medians({"wide": lambda: bench.ours("wide", 200), "bound": bench.bound}, runs)
        print(f"200 independent tasks of 50 ms on 2 slots: {wide['wide']:.2f} s, "
              f"bound {wide['bound']:.2f} s, {wide['wide'] / wide['bound'] - 1:+.1%}")  # fmt: skip
        print(f"peak memory of the runner: {bench.peak:.0f} MB")


if __name__ == "__main__":
    main()
