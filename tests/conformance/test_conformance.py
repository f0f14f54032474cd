"""KFP's language, construct by construct: outputs and task states, and agreement with kfp.local.

Expected values follow Kubeflow's backend. kfp.local runs every pipeline of the suite too. Where it
is right, all that each of its tasks gives has to be what the same task gives here; where it is not,
``there.py`` says what it does instead.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctflow.model import Artifact, Run, Task
from tests.conformance.expected import EXPECTED
from tests.conformance.there import WRONG_THERE
from tests.conformance.tools import Bench, text_of

ROOT = Path(__file__).parents[2]
AGREED = sorted(set(EXPECTED) - set(WRONG_THERE))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages of the suite, compiled once by KFP's own compiler."""
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.pipelines", str(folder)], check=True, cwd=ROOT
    )
    return folder


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What kfp.local does with the same pipelines, all in one process."""
    folder = tmp_path_factory.mktemp("kfp-local")
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.reference", str(folder), *sorted(EXPECTED)],
        check=True, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"WITHOUT_KFP": "1"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def here(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs a pipeline of the suite, each once and in a state of its own."""

    @functools.cache
    def run(name: str) -> Run:
        bench = Bench(tmp_path_factory.mktemp(name.replace("_", "-")), slots=2)
        return bench.run(packages / f"{name}.yaml")

    return run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, slots=2)


def outputs_of(run: Run) -> dict[str, Any]:
    found = {}
    for task in run.tasks:
        if task.outputs and not task.group:
            value = _parameter(next(iter(task.outputs.values())))
            found[task.name] = value.replace(run.id, "RUN") if isinstance(value, str) else value
    return found


def described(run: Run) -> list[Any]:
    """The tasks that have run, as ``reference`` writes kfp.local's; failed ones each time."""
    found: list[list[Any]] = []
    for task in run.tasks:
        if task.state == "failed" and not task.group:
            found += [[_component(task), "failed"]] * task.attempts
        elif task.state == "succeeded" and not task.group:
            found.append([_component(task), _given(task)])
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True))


def _component(task: Task) -> str:
    return re.sub(r"(-\d+)+$", "", task.name.rpartition(".")[2])


def _given(task: Task) -> dict[str, Any]:
    artifacts = {name: _artifact(found[0]) for name, found in task.artifacts.items()}
    return {**{name: _parameter(value) for name, value in task.outputs.items()}, **artifacts}


def _parameter(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _artifact(artifact: Artifact) -> list[Any]:
    path = Path(artifact.uri)
    content = path.read_text(encoding="utf-8") if path.is_file() else None
    return [artifact.type, artifact.metadata, content]


def states(run: Run) -> dict[str, str]:
    return {task.name: task.state for task in run.tasks}


def test_every_pipeline_is_checked(packages: Path) -> None:
    assert {package.stem for package in packages.glob("*.yaml")} == set(EXPECTED)
    assert set(WRONG_THERE) < set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_outputs_and_states(name: str, here: Callable[[str], Run]) -> None:
    wanted = EXPECTED[name]
    run = here(name)
    assert run.state == wanted.get("run", "succeeded"), run.error
    assert outputs_of(run) == wanted["outputs"]
    bad = {task: state for task, state in states(run).items() if state != "succeeded"}
    assert bad == wanted.get("states", {})


@pytest.mark.parametrize("name", AGREED)
def test_kfp_local_agrees(name: str, there: dict[str, Any], here: Callable[[str], Run]) -> None:
    """The same tasks run, and each gives the same: artifacts and their metadata too."""
    seen, run = there[name], here(name)
    assert seen["tasks"] == described(run)
    assert ("error" in seen) == (run.state == "failed")
    given = [value for task in run.tasks if not task.group for value in _given(task).values()]
    assert all(value in given for value in seen.get("outputs", {}).values())


@pytest.mark.parametrize("name", sorted(WRONG_THERE))
def test_kfp_local_is_wrong_in_just_this_way(
    name: str, there: dict[str, Any], here: Callable[[str], Run]
) -> None:
    """A failure here may mean that this kfp is mended: then the pipeline is one of the agreed."""
    seen, wrong = there[name], WRONG_THERE[name]
    assert seen.get("error", "") == wrong.error
    assert not wrong.warning or wrong.warning in seen["warnings"]
    assert wrong.tasks is None or seen["tasks"] == wrong.tasks
    assert wrong.among is None or wrong.among in seen["tasks"]
    run = here(name)
    ends_alike = ("error" in seen) == (run.state == "failed")
    assert not (ends_alike and seen["tasks"] == described(run)), "kfp.local is right here"


def test_pipelines_again_come_from_the_cache(packages: Path, bench: Bench) -> None:
    bench.run(packages / "nested_in_loop.yaml")
    again = bench.run(packages / "nested_in_loop.yaml")
    assert {task.state for task in again.tasks if not task.group} == {"cached"}


def test_caching_can_be_switched_off_for_a_task(packages: Path, bench: Bench) -> None:
    bench.run(packages / "limits.yaml")
    assert states(bench.run(packages / "limits.yaml")) == {"add": "succeeded"}


def test_every_type_arrives_as_what_it_was(packages: Path, bench: Bench) -> None:
    given: dict[str, Any] = {"i": 7, "f": 3, "b": False, "s": "a\n'b' \"c\" $(d) é", "l":
             [1.0, [2, "x"]],
             "d": {"k": {"n": 1}}, "o": "there"}  # fmt: skip
    run = bench.run(packages / "types.yaml", **given)
    values, kinds = json.loads(outputs_of(run)["show"])
    assert values == [7, 3.0, False, given["s"], [1.0, [2, "x"]], {"k": {"n": 1}}, "there"]
    assert kinds == [
        "int", "float", "bool", "str", ["float", ["int", "str"]], {"k": {"n": "int"}}, "str",
    ]  # fmt: skip


def test_numbers_keep_their_kind_from_the_package(packages: Path, bench: Bench) -> None:
    """In the package all numbers are doubles; whole ones in lists and dicts are integers again."""
    _, kinds = json.loads(outputs_of(bench.run(packages / "types.yaml"))["show"])
    assert kinds == [
        "int", "float", "bool", "str", ["int", "float", {"x": "int"}],
        {"a": "int", "b": ["int", "int"], "c": "float"}, "NoneType",
    ]  # fmt: skip


def test_commands_of_containers(packages: Path, bench: Bench) -> None:
    run = bench.run(packages / "containers.yaml")
    s = "it's $HOME; é"
    assert text_of(run, "shell.data") == f"{s}|3|a={s}/3|--no-k|xno|"
    assert text_of(run, "shell-2.data") == f"{s}|7|a={s}/7|--k|key|xyes|"
    assert text_of(run, "words.data") == '{"a": 1, "b": [1, 2.5]}|[1, "x", 2.5]|true|30|'


def test_folder_artifact_and_metrics(packages: Path, bench: Bench) -> None:
    run = bench.run(packages / "container_model.yaml")
    artifact = run.artifact("model.model")
    assert artifact is not None
    assert artifact.type == "system.Model"
    assert (Path(artifact.uri) / "weights").read_text() == "w"
    assert bench.run(packages / "metrics.yaml").metrics == {
        "accuracy": 0.75, "measure.accuracy": 0.75,
    }  # fmt: skip


def test_metadata_travels_with_an_artifact(packages: Path, bench: Bench) -> None:
    run = bench.run(packages / "importer.yaml")
    artifact = run.artifact("importer.artifact")
    assert artifact is not None
    assert (artifact.uri, artifact.metadata) == ("gs://bucket/data", {"note": "hi", "n": 1})
    assert outputs_of(run) == {"about": "gs://bucket/data hi"}


def test_parallelism_of_a_loop_is_respected(packages: Path, bench: Bench) -> None:
    bench.run(packages / "loop_parameter.yaml", caching=False)
    moves = [
        (event.name, event.task.state)
        for event in bench.events
        if event.task is not None and event.name.endswith(".add")
    ]
    assert moves == [
        ("for-loop-1.0.add", "running"), ("for-loop-1.0.add", "succeeded"),
        ("for-loop-1.1.add", "running"), ("for-loop-1.1.add", "succeeded"),
    ]  # fmt: skip


def test_not_a_number_is_an_error_where_kubeflow_meets_it(here: Callable[[str], Run]) -> None:
    """The launcher reads executor_output.json as JSON, which has no NaN, but takes a file with one;
    the driver of the task that uses it cannot write it down."""
    run = here("not_a_number")
    assert run.error == "missing: cannot read executor_output.json: NaN is not JSON"
    task = here("not_a_number_file").task("missing-file")
    assert task is not None
    assert math.isnan(task.outputs["x"])
    assert here("not_a_number_file").error == "number: input x is NaN, which KFP cannot pass on"
