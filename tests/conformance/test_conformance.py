"""KFP's language, construct by construct: outputs and task states, and agreement with kfp.local.

Expected values follow Kubeflow's backend. Where ``kfp.local`` is right the same package run by it
has to give the same outputs; where it is not, ``WRONG_THERE`` says why.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctflow.model import Run
from tests.conformance.tools import Bench, text_of

ROOT = Path(__file__).parents[2]

_DOCKER = "container components need Docker"
_COLLECTED = "Collected is not implemented: a KeyError"
#: Pipelines that kfp.local (2.16) cannot run, or runs wrong, and why.
WRONG_THERE = {
    "bare_if_named": "a bare If on a named output skips the branch",
    "conditions": "conditions are evaluated by Python, and an error is false",
    "container_model": _DOCKER,
    "container_outputs": _DOCKER,
    "containers": _DOCKER,
    "exit_handler_bad": "ExitHandler is not implemented",
    "exit_handler_good": "ExitHandler is not implemented",
    "format_string": "integers in a format string become floats",
    "if_elif_else": "OneOf is not implemented",
    "ignore_failure": "a failed task ends the pipeline",
    "importer": _DOCKER,
    "loop_artifacts": _COLLECTED,
    "loop_constant": _COLLECTED,
    "loop_empty": _COLLECTED,
    "loop_nested": _COLLECTED,
    "loop_output": _COLLECTED,
    "loop_parameter": _COLLECTED,
    "loop_records": _COLLECTED,
    "loop_records_output": _COLLECTED,
    "named_outputs": "a bare If on a named output skips the branch",
    "nested_in_loop": _COLLECTED,
    "not_a_number": "a condition on NaN is false without a word",
    "optional": "an optional input without a value is refused",
    "retry": "the pipeline fails, as it should: there are no outputs to compare",
    "run_names": _DOCKER,
    "types": "an optional input without a value is refused",
    "variables": _DOCKER,
}
#: kfp.local gives a pipeline's outputs by name; what they are here.
OUTPUT: dict[str, dict[str, Any]] = {
    "after": {},
    "artifacts": {"Output": "ABCNone"},
    "chain": {"Output": 13},
    "limits": {},
    "loop_condition": {},
    "metrics": {},
    "nested": {"Output": 12},
    "nested_if": {},
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages of the suite, compiled once by KFP's own compiler."""
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.pipelines", str(folder)], check=True, cwd=ROOT
    )
    return folder


@pytest.fixture(scope="session")
def there(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What kfp.local gives for the same pipelines."""
    folder = tmp_path_factory.mktemp("kfp-local")
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.reference", str(folder), *OUTPUT],
        check=True, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"WITHOUT_KFP": "1"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, slots=2)


def outputs_of(run: Run) -> dict[str, Any]:
    found = {}
    for task in run.tasks:
        if task.outputs and not task.group:
            value = next(iter(task.outputs.values()))
            if isinstance(value, float) and math.isnan(value):
                value = "nan"
            found[task.name] = value.replace(run.id, "RUN") if isinstance(value, str) else value
    return found


def str_or_number(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else repr(value)


def states(run: Run) -> dict[str, str]:
    return {task.name: task.state for task in run.tasks}


def test_every_pipeline_is_checked() -> None:
    from tests.conformance import expected

    assert set(expected.EXPECTED) == set(OUTPUT) | set(WRONG_THERE)


@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_kfp_local_agrees(name: str, there: dict[str, Any]) -> None:
    assert there[name] == OUTPUT[name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "expectation" in metafunc.fixturenames:
        from tests.conformance.expected import EXPECTED

        metafunc.parametrize("expectation", sorted(EXPECTED.items()), ids=sorted(EXPECTED))


def test_outputs_and_states(
    expectation: tuple[str, dict[str, Any]], packages: Path, bench: Bench
) -> None:
    name, wanted = expectation
    run = bench.run(packages / f"{name}.yaml")
    assert run.state == wanted.get("run", "succeeded"), run.error
    assert outputs_of(run) == wanted["outputs"]
    bad = {task: state for task, state in states(run).items() if state != "succeeded"}
    assert bad == wanted.get("states", {})
    if name in OUTPUT:
        assert set(OUTPUT[name].values()) <= set(map(str_or_number, outputs_of(run).values()))


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


def test_not_a_number_is_an_error_where_it_is_used(packages: Path, bench: Bench) -> None:
    run = bench.run(packages / "not_a_number.yaml")
    task = run.task("missing")
    assert task is not None
    assert math.isnan(task.outputs["Output"])
    assert run.error == "condition-1: input missing-Output is NaN, which KFP cannot pass on"
