"""What ctflow costs on Kubeflow Pipelines, against the stand-in on this machine.

``python benchmarks/kubeflow.py`` prints: a ``ctflow upload`` that changes nothing, the reading of
a run with many tasks, a ``ctflow runs list`` of many runs. The server runs in this process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ctflow.rest.client import Api
from ctflow.runners.kubeflow.api import Kfp
from ctflow.runners.kubeflow.reading import run_of

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kfp_server import KfpServer

TIMES = 9
TASKS, RUNS = 500, 1000
PIPELINE = """\
from kfp import dsl


@dsl.container_component
def step(number: int):
    return dsl.ContainerSpec(
        image="registry.example/step@sha256:{digest}", command=["step"], args=[number]
    )


@dsl.pipeline(name="many")
def many():
    for number in range({tasks}):
        step(number=number)
"""


def seconds(call: Callable[[], object]) -> list[float]:
    """How long it takes, each time."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def say(what: str, times: list[float], more: str = "") -> None:
    """One line: least and median."""
    print(f"{what:<40} least {min(times):.3f} s  median {statistics.median(times):.3f} s  {more}")


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as scratch, KfpServer() as server:
        root = Path(scratch) / "many"
        root.mkdir()
        (root / "pipeline.py").write_text(PIPELINE.format(digest="a" * 64, tasks=TASKS))
        (root / "ctflow.yaml").write_text(
            "project: many\npipeline: pipeline.py:many\nrunner: kubeflow\n"
            f"images: {{registry: localhost:1/many}}\nkubeflow: {{host: '{server.url}'}}\n"
        )
        environ = {**os.environ, "CTFLOW_CACHE": f"{scratch}/cache"}
        for who in ("AUTHOR", "COMMITTER"):
            environ |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@example.com"}

        def call(*words: str, program: tuple[str, ...] = (sys.executable, "-m", "ctflow")) -> str:
            done = subprocess.run(
                [*program, *words],
                cwd=root,
                env=environ,
                check=True,
                capture_output=True,
                text=True,
            )
            return done.stdout

        for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "many")):
            call(*words, program=("git",))
        call("upload")
        before = len(server.requests)
        call("upload")
        sent = len(server.requests) - before
        say("upload, unchanged", seconds(lambda: call("upload")), f"{sent} requests")

        run_id = json.loads(call("run", "--no-wait", "--json"))["id"]
        server.advance(run_id, {f"step-{number}": "RUNNING" for number in range(2, TASKS + 1)})
        kfp = Kfp(Api("the stand-in", server.url))
        size = len(json.dumps(kfp.run(run_id)).encode())
        say(f"asking for a run of {TASKS} tasks", seconds(lambda: kfp.run(run_id)),
            f"{size / 1e6:.2f} MB")  # fmt: skip
        raw = kfp.run(run_id)
        from ctflow.pipelinespec.spec_reader import parse

        reference = raw["pipeline_version_reference"]
        version = kfp.get_version(reference["pipeline_id"], reference["pipeline_version_id"])
        pipeline = parse([version["pipeline_spec"]], "the version")
        say("reading its answer", seconds(lambda: run_of(raw, "many", pipeline, "")))

        first = server.store.runs[run_id]
        for number in range(RUNS - 1):
            other = f"{number:08d}-0000-0000-0000-000000000000"
            server.store.runs[other] = {
                **first, "run_id": other, "display_name": f"run {number}", "run_details": {}
            }  # fmt: skip
        first["run_details"] = {}
        say(
            f"runs list --limit {RUNS}", seconds(lambda: call("runs", "list", "--limit", str(RUNS)))
        )


if __name__ == "__main__":
    main()
