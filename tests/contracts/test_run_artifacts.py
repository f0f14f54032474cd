"""The contract of the ``RunArtifacts`` port.

On a server of ML Metadata in this process, and on the one that ``CTFLOW_E2E_MLMD`` names.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ctflow.errors import OutsideError
from ctflow.ports import Declared, RunArtifacts, RunPlace, TaskRecord
from ctflow.runners.kubeflow.metadata import Metadata
from tests.mlmd_server import CACHED, Recorder, Store, mlmd_server

PARAMETERS = {"epochs": 30, "rate": 0.5, "names": ["a", "b"], "deep": {"on": True}}
ROOT = "minio://mlpipeline/v2/artifacts/digits/run"


@dataclass
class World:
    """One server, and what writes runs to it."""

    address: str
    store: Store | None
    recorders: list[Recorder] = field(default_factory=list)

    @property
    def port(self) -> RunArtifacts:
        return Metadata(self.address)

    def run(self) -> tuple[str, Recorder]:
        name = str(uuid.uuid4())
        self.recorders.append(Recorder(self.address, name))
        return name, self.recorders[-1]

    def records(self, run: str, *declared: Declared) -> dict[str, TaskRecord]:
        return {one.path: one for one in self.port.of_run(RunPlace(run, declared=declared))}


@pytest.fixture
def world() -> Iterator[World]:
    address = os.environ.get("CTFLOW_E2E_MLMD")
    if address:
        made = World(address, None)
        yield made
    else:
        with mlmd_server() as (here, store):
            made = World(here, store)
            yield made
    for one in made.recorders:
        one.close()


def models(records: dict[str, TaskRecord]) -> dict[str, str]:
    return {path: one.artifacts["model"][0].uri for path, one in records.items() if one.artifacts}


def test_outputs_are_those_of_each_task_with_their_metadata(world: World) -> None:
    run, recorder = world.run()
    model = recorder.task("train", {
        "model": ("system.Model", f"{ROOT}/train/1/model", {"framework": "sklearn"}),
        "executor-logs": ("system.Artifact", f"{ROOT}/train/1/executor-logs", {}),
    }, parameters=PARAMETERS)["model"]  # fmt: skip
    recorder.task("evaluate", {
        "metrics": ("system.Metrics", "", {"accuracy": 0.964, "examples": 100.0}),
        "matrix": ("system.ClassificationMetrics", "", {"rows": [[1, 2], [3, 4]]}),
    }, inputs={"model": model})  # fmt: skip
    found = world.records(run)
    assert sorted(found) == ["evaluate", "train"]
    (made,) = found["train"].artifacts["model"]
    assert (made.type, made.uri) == ("system.Model", f"{ROOT}/train/1/model")
    assert made.metadata == {"framework": "sklearn"}
    assert "executor-logs" not in found["train"].artifacts
    assert found["train"].inputs == PARAMETERS
    assert found["train"].image == "images/train"
    (metrics,) = found["evaluate"].artifacts["metrics"]
    assert (metrics.type, metrics.metadata) == (
        "system.Metrics", {"accuracy": 0.964, "examples": 100.0}
    )  # fmt: skip
    assert found["evaluate"].artifacts["matrix"][0].metadata == {"rows": [[1, 2], [3, 4]]}
    (read,) = found["evaluate"].input_artifacts["model"]
    assert read.uri == made.uri


def test_a_run_that_is_not_there_has_nothing_on_record(world: World) -> None:
    assert world.records(str(uuid.uuid4())) == {}


def test_a_run_before_its_first_task_has_nothing_on_record(world: World) -> None:
    run, _ = world.run()
    assert world.records(run) == {}


def test_two_tasks_of_one_name_in_two_groups_are_told_apart(world: World) -> None:
    run, recorder = world.run()
    one, two = recorder.group("condition-1", recorder.root), recorder.group("condition-2", None)
    recorder.task("train", {"model": ("system.Model", "s3://b/one", {})}, parent=one)
    recorder.task("train", {"model": ("system.Model", "s3://b/two", {})}, parent=two)
    recorder.task("train", {"model": ("system.Model", "s3://b/top", {})})
    found = world.records(run)
    assert models(found) == {
        "condition-1.train": "s3://b/one",
        "condition-2.train": "s3://b/two",
        "train": "s3://b/top",
    }  # fmt: skip


def test_a_loops_rounds_have_numbers(world: World) -> None:
    run, recorder = world.run()
    loop = recorder.group("for-loop-1", recorder.root, iteration_count=2)
    for index in range(2):
        inner = recorder.group("for-loop-1", loop, iteration_index=index)
        recorder.task("fit", {"model": ("system.Model", f"s3://b/{index}", {})}, parent=inner)
    found = world.records(run)
    assert models(found) == {
        "for-loop-1.0.fit": "s3://b/0", "for-loop-1.1.fit": "s3://b/1",
    }  # fmt: skip
    assert {one.task for one in found.values() if one.artifacts} == {"for-loop-1.fit"}


def test_a_task_whose_group_is_not_on_record_is_known_by_its_name(world: World) -> None:
    run, recorder = world.run()
    for name in ("train", "fit"):
        output: dict[str, Any] = {"model": ("system.Model", f"s3://b/{name}", {})}
        recorder.task(name, output, parent=0)
    declared = [Declared(path, {}) for path in ("condition-1.train", "one.fit", "two.fit")]
    assert models(world.records(run, *declared)) == {
        "condition-1.train": "s3://b/train", "fit": "s3://b/fit"
    }  # fmt: skip


def test_a_task_from_the_cache_has_the_artifacts_of_another_run(world: World) -> None:
    _, earlier = world.run()
    model = earlier.task("train", {"model": ("system.Model", "s3://b/earlier", {})})["model"]
    run, recorder = world.run()
    recorder.task("train", {"model": model}, state=CACHED)
    assert world.records(run)["train"].artifacts["model"][0].uri == "s3://b/earlier"


def test_the_last_execution_of_a_retried_task_counts(world: World) -> None:
    run, recorder = world.run()
    for which in ("first", "second"):
        recorder.task("train", {"model": ("system.Model", f"s3://b/{which}", {})})
    assert world.records(run)["train"].artifacts["model"][0].uri == "s3://b/second"


def test_an_output_that_a_component_declares_is_no_log_of_kfps(world: World) -> None:
    run, recorder = world.run()
    recorder.task("train", {"executor-logs": ("system.Artifact", "s3://b/mine", {})})
    declared = Declared("train", {"executor-logs": "system.Artifact"})
    assert world.records(run, declared)["train"].artifacts["executor-logs"][0].uri == "s3://b/mine"


def test_a_run_takes_few_calls_however_many_tasks_it_has(world: World) -> None:
    run, recorder = world.run()
    for number in range(60):
        recorder.task(f"task-{number}", {"out": ("system.Artifact", f"s3://b/{number}", {})})
    if world.store is not None:
        world.store.calls.clear()
    assert len(world.records(run)) == 60
    if world.store is not None:
        assert world.store.calls == [
            "GetContextByTypeAndName", "GetExecutionsByContext", "GetEventsByExecutionIDs",
            "GetArtifactsByContext",
        ]  # fmt: skip


def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(OutsideError, match=r"ML Metadata at 127.0.0.1:9 cannot be reached"):
        Metadata("127.0.0.1:9").of_run(RunPlace("run"))
