"""What the end-to-end node makes of packages, without the node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contracts.kfp_replay import package
from tests.e2e.servers.kfp_node.expressions import condition
from tests.e2e.servers.kfp_node.workflow import Compiler
from tests.kfp_server.errors import Refused


def _workflow(spec: Any, **parameters: Any) -> Any:
    run = {
        "run_id": "7", "service_account": "pipeline-runner",
        "runtime_config": {"parameters": parameters},
    }  # fmt: skip
    return Compiler(run, spec).workflow("w")


def _compiled(name: str, tmp_path: Path) -> Any:
    from kfp import compiler

    from tests.e2e import node_pipelines

    path = tmp_path / "p.yaml"
    compiler.Compiler().compile(getattr(node_pipelines, name), str(path))
    return yaml.safe_load(path.read_text())


def test_data_go_from_task_to_task() -> None:
    made = _workflow(yaml.safe_load(package("demo")), rows=3)
    assert {"name": "rows", "value": "3"} in made["spec"]["arguments"]["parameters"]
    root = next(one for one in made["spec"]["templates"] if one["name"] == "root")
    tasks = {task["name"]: task for task in root["dag"]["tasks"]}
    arguments = {one["name"]: one["value"] for one in tasks["evaluate"]["arguments"]["parameters"]}
    assert arguments["artifact--data"] == "{{tasks.prepare.outputs.parameters.artifact--data}}"
    assert "prepare.Succeeded" in tasks["evaluate"]["depends"]
    assert tasks["condition-1"]["when"] == (
        "{{=asFloat(tasks['evaluate'].outputs.parameters['Output']) > "
        "asFloat(inputs.parameters['threshold'])}} == true"
    )


def test_argo_sees_no_placeholder_of_a_command() -> None:
    made = _workflow(yaml.safe_load(package("demo")))
    found = []
    for template in made["spec"]["templates"]:
        for variable in template.get("container", {}).get("env", []):
            if variable["name"] == "KFP_TASK":
                assert "{{" not in variable["value"]
                found += json.loads(variable["value"])["command"]
    assert "{{$.inputs.parameters['rows']}}" in found


def test_every_container_has_a_memory_limit(tmp_path: Path) -> None:
    made = _workflow(_compiled("two_steps", tmp_path))
    containers = [
        container
        for template in made["spec"]["templates"] if "container" in template
        for container in [template["container"], *template["initContainers"]]
    ]  # fmt: skip
    assert len(containers) == 4
    assert all(container["resources"]["limits"]["memory"] for container in containers)
    assert containers[0]["resources"]["limits"]["memory"].startswith("128M")


def test_an_exit_handler_waits_for_any_end_and_hides_no_failure(tmp_path: Path) -> None:
    made = _workflow(_compiled("failing_parts", tmp_path))
    root = next(one for one in made["spec"]["templates"] if one["name"] == "root")
    last = next(task for task in root["dag"]["tasks"] if task["name"] == "last")
    assert "exit-handler-1.Failed" in last["depends"]
    assert set(root["dag"]["target"].split()) == {"exit-handler-1", "last"}
    assert root["dag"]["failFast"] is False


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("int(inputs.parameter_values['x']) >= 2", "(asInt(inputs.parameters['x'])) >= 2"),
        (
            "!(inputs.parameter_values['f'] == true)",
            "!((inputs.parameters['f'] == 'true') == true)",
        ),
        ("inputs.parameter_values['s'] == 'a'", "inputs.parameters['s'] == 'a'"),
    ],
)
def test_conditions_compare_values_of_their_types(words: str, expected: str) -> None:
    types = {"x": "NUMBER_INTEGER", "f": "BOOLEAN", "s": "STRING"}
    inputs = {name: {"componentInputParameter": name} for name in types}
    defined = {name: {"parameterType": kind} for name, kind in types.items()}
    assert condition(words, inputs, defined) == "{{=" + expected + "}} == true"


def test_what_cannot_be_run_is_refused_when_the_run_is_made(tmp_path: Path) -> None:
    with pytest.raises(Refused) as raised:
        _workflow(_compiled("unsupported", tmp_path))
    assert (raised.value.status, raised.value.code) == (501, 12)
    assert "importer" in raised.value.message


def test_servers_that_run_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    told = tmp_path / "servers"
    told.write_text("export CTFLOW_E2E_KFP=http://127.0.0.1:1\n")
    up = Path(__file__).parents[1] / "e2e" / "servers" / "up"
    environ = {**os.environ, "CTFLOW_E2E_SERVERS": str(told), "CTFLOW_E2E_CACHE": str(tmp_path)}
    made = subprocess.run([up], env=environ, capture_output=True, text=True, check=True)
    assert made.stdout == told.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["servers"]
