"""10,000 runs of 20 tasks: to list, show and filter them costs nothing, also while runs write."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctflow.model import Artifact, Run, RunState, Task
from ctflow.runners.local.record import Record, needed_images, task_to
from ctflow.runners.local.runner import LocalRunner
from tests.conformance.tools import OwnEnvironments, ShellWorkspaces
from tests.work import counted

RUNS, TASKS = 10_000, 20
#: Instructions of SQLite for each question: less than one for each run.
BOUND = RUNS
WRITER = """
import sys, itertools
from pathlib import Path
from ctflow.runners.local.record import Record
from ctflow.model import Task
record = Record(Path(sys.argv[1]))
number, _ = record.latest()
for count in itertools.count():
    record.put_task(number, count % 20, Task(f"w{count % 20}", "running"))
    if count % 5 == 0:
        record.commit()
        print(count, flush=True)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every hundredth run failed; the newest one goes on to be written by others."""
    folder = tmp_path_factory.mktemp("scale")
    record = Record(folder / "record.db")
    artifact = Artifact("d", "system.Dataset", "/nowhere/d", "sha256:" + "0" * 64, 5)
    docs = [
        json.dumps(task_to(Task(f"t{n}", "succeeded", artifacts={"d": (artifact,)},
                                inputs={"n": n}, log="/nowhere/log.txt")))
        for n in range(TASKS)
    ]  # fmt: skip
    with record.writing() as connection:
        for number in range(RUNS):
            outcome: RunState = "failed" if number % 100 == 0 else "succeeded"
            record.add_run(Run(f"r-{number:05d}", "p", "p", "d", outcome, float(number)), {})
        connection.executemany("INSERT INTO folders VALUES (?, 1)",
                               ((f"r-{number:05d}",) for number in range(RUNS)))  # fmt: skip
        connection.executemany(
            "INSERT INTO tasks (run, name, position, state, cache_key, doc) VALUES"
            " (?, ?, ?, 'succeeded', 'k', ?)",
            ((run, f"t{n}", n, docs[n]) for run in range(1, RUNS + 1) for n in range(TASKS)),
        )
    record.close()
    return folder


@pytest.fixture(params=["at rest", "while a run writes"])
def runner(request: pytest.FixtureRequest, state: Path) -> Iterator[LocalRunner]:
    found = LocalRunner(state, ShellWorkspaces(state), OwnEnvironments())
    if request.param == "at rest":
        yield found
        return
    words = [sys.executable, "-c", WRITER, str(state / "record.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            yield found
            assert writer.poll() is None, "it had stopped writing"
        finally:
            writer.kill()


def work_of(ask: Callable[[], object]) -> int:
    """SQLite's instructions for a question."""
    with counted() as work:
        ask()
    return work.sql


def test_list_show_and_filter(runner: LocalRunner) -> None:
    assert len(runner.list(20)) == 20
    assert {run.state for run in runner.list(1000, "failed")} == {"failed"}
    assert len(runner.get("r-05000").tasks) == TASKS
    questions: dict[str, Callable[[], object]] = {
        "list": lambda: runner.list(20),
        "list --state failed": lambda: runner.list(20, "failed"),
        "list --state canceled (none)": lambda: runner.list(20, "canceled"),
        "show latest": lambda: runner.get("latest"),
        "show the first": lambda: runner.get("r-00000"),
        "show one in between": lambda: runner.get("r-07123"),
    }
    much = {name: found for name, ask in questions.items() if (found := work_of(ask)) > BOUND}
    assert not much


def test_what_pruning_and_the_cache_ask(state: Path) -> None:
    runner = LocalRunner(state, ShellWorkspaces(state), OwnEnvironments())
    assert work_of(lambda: needed_images(state / "record.db")) < RUNS * 20
    assert len(runner.prune(50, dry_run=True).runs) == RUNS - 50
    # A few instructions for each run that goes, and none for its tasks.
    assert work_of(lambda: runner.prune(50, dry_run=True)) < RUNS * 100
