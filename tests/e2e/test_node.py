"""The end-to-end node runs pipelines of the plain kfp client in real pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.node import Node
from tests.object_servers import s3_client


@pytest.fixture
def client(node: Node) -> Any:
    import kfp

    return kfp.Client(host=node.kfp)


def _package(name: str, tmp_path: Path) -> str:
    from kfp import compiler

    from tests.e2e import node_pipelines

    package = tmp_path / f"{name}.yaml"
    compiler.Compiler().compile(getattr(node_pipelines, name), str(package))
    return str(package)


def _run(client: Any, name: str, tmp_path: Path, **params: Any) -> Any:
    """Upload the pipeline, run it, and wait for its end."""
    unique = f"{name}-{tmp_path.parent.name}-{tmp_path.name}"
    uploaded = client.upload_pipeline(_package(name, tmp_path), pipeline_name=unique)
    (version,) = client.list_pipeline_versions(uploaded.pipeline_id).pipeline_versions
    experiment = client.create_experiment("end-to-end")
    run = client.run_pipeline(
        experiment.experiment_id, unique, pipeline_id=uploaded.pipeline_id,
        version_id=version.pipeline_version_id, params=params,
    )  # fmt: skip
    return client.wait_for_run_completion(run.run_id, timeout=240, sleep_duration=1)


def _states(run: Any) -> dict[str, str]:
    return {task.display_name: task.state for task in run.run_details.task_details}


def _pods(node: Node, run: Any, path: str) -> list[str]:
    return node.kubectl(
        "get", "pods", "-n", "kubeflow", "-l", f"pipeline/runid={run.run_id}",
        "-o", f"jsonpath={path}",
    ).split()  # fmt: skip


@pytest.mark.timeout(400)
def test_two_steps_with_artifacts_in_s3_and_metrics(
    node: Node, client: Any, tmp_path: Path
) -> None:
    run = _run(client, "two_steps", tmp_path, rows=7)
    assert run.state == "SUCCEEDED"
    assert {"prepare": "SUCCEEDED", "train": "SUCCEEDED"}.items() <= _states(run).items()

    told = node.recorded(run.run_id)
    assert told["pipeline"] == "two-steps"
    by_name = {one["display_name"]: one for one in told["artifacts"]}
    assert by_name["metrics"]["type"] == "system.Metrics"
    assert (by_name["metrics"]["accuracy"], by_name["metrics"]["rows"]) == (0.75, 7.0)
    bucket, _, key = by_name["model"]["uri"].removeprefix("s3://").partition("/")
    stored = s3_client(node.s3).get_object(Bucket=bucket, Key=key)["Body"].read()
    assert stored == b"model of 7 rows"
    assert run.run_id in key

    limits = _pods(
        node, run, "{range .items[*].spec.containers[*]}{.resources.limits.memory}{'\\n'}{end}"
    )
    assert len(limits) == 4  # two pods, each with the user's container and Argo's
    assert "128Mi" in limits or "128M" in limits


@pytest.mark.timeout(400)
def test_the_log_of_a_failed_pod_says_why(node: Node, client: Any, tmp_path: Path) -> None:
    run = _run(client, "failing", tmp_path, word="nothing")
    assert (run.state, run.error) == ("FAILED", None)
    assert _states(run)["fail"] == "FAILED"
    (pod,) = _pods(node, run, "{.items[*].metadata.name}")
    assert "cannot work with nothing" in node.kubectl("logs", "-n", "kubeflow", pod, "-c", "main")
    log = f"{node.kfp}/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log"
    assert "cannot work with nothing" in requests.get(log, timeout=60).text


def _outputs(node: Node, run: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in node.recorded(run.run_id)["executions"]:
        if one["type"] == "system.ContainerExecution":
            found.setdefault(one["task_name"], []).append(one["outputs"].get("Output"))
    return found


@pytest.mark.timeout(500)
def test_loops_conditions_retries_and_an_exit_handler(
    node: Node, client: Any, tmp_path: Path
) -> None:
    counter = f"{node.s3_in_pods}/mlpipeline/counters/{tmp_path.parent.name}"
    run = _run(client, "parts", tmp_path, counter=counter)
    states = _states(run)
    assert run.state == "SUCCEEDED", states
    assert states["executor(1)"] == "SUCCEEDED"  # the second try
    assert (states["condition-5"], states["condition-6"]) == ("SUCCEEDED", "SKIPPED")
    outputs = _outputs(node, run)
    assert sorted(outputs["double"]) == [2.0, 4.0, 6.0]
    assert (outputs["total"], outputs["second-time"]) == ([12.0], [12.0])
    assert outputs["last"] == ["ended SUCCEEDED"]


@pytest.mark.timeout(400)
def test_an_exit_handler_runs_after_a_failure(node: Node, client: Any, tmp_path: Path) -> None:
    run = _run(client, "failing_parts", tmp_path)
    assert run.state == "FAILED"
    assert _outputs(node, run) == {"last": ["ended FAILED"]}


@pytest.mark.timeout(400)
def test_a_second_run_takes_cached_outputs(node: Node, client: Any, tmp_path: Path) -> None:
    first = _run(client, "cached", tmp_path, seed=str(tmp_path))
    reference = first.pipeline_version_reference
    second = client.run_pipeline(
        first.experiment_id, "again", params={"seed": str(tmp_path)},
        pipeline_id=reference.pipeline_id, version_id=reference.pipeline_version_id,
    )  # fmt: skip
    second = client.wait_for_run_completion(second.run_id, timeout=240, sleep_duration=1)
    assert (first.state, second.state) == ("SUCCEEDED", "SUCCEEDED")
    assert _states(first)["executor"] == "SUCCEEDED"
    assert _states(second)["executor"] == "SKIPPED"
    made = [node.recorded(run.run_id)["executions"] for run in (first, second)]
    tasks = [next(one for one in executions if one["task_name"]) for executions in made]
    assert [task["state"] for task in tasks] == ["COMPLETE", "CACHED"]
    assert tasks[0]["outputs"] == tasks[1]["outputs"]


@pytest.mark.timeout(400)
def test_terminate_ends_the_pods(node: Node, client: Any, tmp_path: Path) -> None:
    run = client.create_run_from_pipeline_package(_package("sleeping", tmp_path))
    started = "{.items[*].status.containerStatuses[?(@.name=='main')].started}"
    while _pods(node, run, started) != ["true"]:
        assert client.get_run(run.run_id).state in {"PENDING", "RUNNING"}
    client.terminate_run(run.run_id)
    assert client.get_run(run.run_id).state in {"CANCELING", "FAILED"}
    ended = client.wait_for_run_completion(run.run_id, timeout=240, sleep_duration=1)
    assert ended.state == "FAILED"
    assert [entry.state for entry in ended.state_history][-2:] == ["CANCELING", "FAILED"]


@pytest.mark.timeout(400)
def test_a_retried_run_does_again_what_failed(node: Node, client: Any, tmp_path: Path) -> None:
    counter = f"{node.s3_in_pods}/mlpipeline/counters/{tmp_path.parent.name}-retried"
    run = _run(client, "once_more", tmp_path, counter=counter)
    assert run.state == "FAILED"
    requests.post(f"{node.kfp}/apis/v2beta1/runs/{run.run_id}:retry", timeout=60).raise_for_status()
    assert client.get_run(run.run_id).state == "RUNNING"
    ended = client.wait_for_run_completion(run.run_id, timeout=240, sleep_duration=1)
    assert ended.state == "SUCCEEDED"
    states = [entry.state for entry in ended.state_history]
    assert states == ["PENDING", "RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    told = [one for one in node.recorded(run.run_id)["executions"] if one["task_name"]]
    assert sorted((one["task_name"], one["state"]) for one in told) == [
        ("double", "CACHED"), ("double", "COMPLETE"), ("second-time", "COMPLETE"),
    ]  # fmt: skip


@pytest.mark.timeout(400)
def test_secrets_and_volume_claims_are_mounted(node: Node, client: Any, tmp_path: Path) -> None:
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": tmp_path.parent.name},
        "spec": {
            "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "", "hostPath": {"path": str(tmp_path)},
            "claimRef": {"namespace": "kubeflow", "name": tmp_path.parent.name},
        },
    }  # fmt: skip
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": tmp_path.parent.name, "namespace": "kubeflow"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "volumeName": tmp_path.parent.name, "resources": {"requests": {"storage": "1Mi"}},
        },
    }  # fmt: skip
    secret = {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "access", "namespace": "kubeflow"}, "stringData": {"password": "s3"},
    }  # fmt: skip
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume, claim, secret]})
    )
    node.kubectl("apply", "-f", str(manifest))
    run = _run(client, "secrets_and_claims", tmp_path, claim=tmp_path.parent.name)
    assert run.state == "SUCCEEDED"
    assert (tmp_path / "file").read_text() == "s3"
    assert _outputs(node, run) == {"keep": ["s3 s3"]}


def test_what_cannot_be_run_is_refused(client: Any, tmp_path: Path) -> None:
    import kfp_server_api

    with pytest.raises(kfp_server_api.ApiException) as raised:
        client.create_run_from_pipeline_package(_package("unsupported", tmp_path))
    assert raised.value.status == 501
    assert "runs containers only, no importer" in raised.value.body
