"""The plain kfp client works with the stand-in, and a test moves its runs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contracts.kfp_replay import FOLDER
from tests.kfp_server import KfpServer


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as started:
        yield started


@pytest.fixture
def client(server: KfpServer) -> Any:
    import kfp

    return kfp.Client(host=server.url)


def test_upload_version_run_and_lists(server: KfpServer, client: Any) -> None:
    pipeline = client.upload_pipeline(str(FOLDER / "demo.yaml"), pipeline_name="demo")
    version = client.upload_pipeline_version(
        str(FOLDER / "demo.yaml"), "v2", pipeline_id=pipeline.pipeline_id, description="second"
    )
    experiment = client.create_experiment("trials")
    run = client.run_pipeline(
        experiment.experiment_id, "one", pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id, params={"rows": 3},
    )  # fmt: skip
    assert client.get_run(run.run_id).state == "PENDING"

    server.advance(run.run_id, {"prepare": "RUNNING"})
    running = client.get_run(run.run_id)
    assert running.state == "RUNNING"
    states = {task.display_name: task.state for task in running.run_details.task_details}
    assert states["prepare"] == "RUNNING"
    assert "evaluate" not in states

    server.finish(run.run_id)
    done = client.wait_for_run_completion(run.run_id, timeout=60, sleep_duration=0)
    assert done.state == "SUCCEEDED"
    assert [found.display_name for found in client.list_runs().runs] == ["one"]
    assert client.list_pipeline_versions(pipeline.pipeline_id).total_size == 2


def test_a_failed_run_names_its_task_and_no_reason(server: KfpServer, client: Any) -> None:
    run = client.create_run_from_pipeline_package(str(FOLDER / "demo.yaml"), enable_caching=False)
    pod = server.write_log(run.run_id, "evaluate", "Traceback: no data\n")
    server.finish(run.run_id, "FAILED", failed=["evaluate"])

    found = client.get_run(run.run_id)
    assert (found.state, found.error) == ("FAILED", None)
    failed = {t.display_name for t in found.run_details.task_details if t.state == "FAILED"}
    assert {"evaluate", "root", "executor"} <= failed
    log = f"{server.url}/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log"
    with urllib.request.urlopen(log, timeout=60) as answer:  # noqa: S310
        assert answer.read() == b"Traceback: no data\n"


def test_terminate_ends_in_failed(server: KfpServer, client: Any) -> None:
    run = client.create_run_from_pipeline_package(str(FOLDER / "slow.yaml"))
    server.advance(run.run_id, {"slow": "RUNNING"})
    client.terminate_run(run.run_id)
    assert client.get_run(run.run_id).state == "CANCELING"
    server.finish(run.run_id, "FAILED")

    found = client.get_run(run.run_id)
    assert found.state == "FAILED"
    assert [entry.state for entry in found.state_history][-2:] == ["CANCELING", "FAILED"]


def test_a_skipped_branch_has_no_tasks_inside(server: KfpServer, client: Any) -> None:
    run = client.create_run_from_pipeline_package(str(FOLDER / "demo.yaml"))
    server.finish(run.run_id, skipped=["condition-1"])
    states = {
        task.display_name: task.state
        for task in client.get_run(run.run_id).run_details.task_details
    }
    assert states["condition-1"] == "SKIPPED"
    assert "announce" not in states


def test_a_recurring_run_fires_when_a_test_says_so(server: KfpServer, client: Any) -> None:
    pipeline = client.upload_pipeline(str(FOLDER / "slow.yaml"), pipeline_name="slow")
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    experiment = client.create_experiment("nightly")
    recurring = client.create_recurring_run(
        experiment.experiment_id, "Every night", pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id, cron_expression="0 0 3 * * *",
    )  # fmt: skip
    run = client.get_run(server.trigger(recurring.recurring_run_id))
    assert run.recurring_run_id == recurring.recurring_run_id
    assert run.display_name.startswith("everynight")
    assert run.pipeline_version_reference.pipeline_id == pipeline.pipeline_id


def test_a_page_token_holds_while_items_are_deleted(server: KfpServer) -> None:
    made = [_post(server, "/pipelines", {"name": f"p{n:02}"})["pipeline_id"] for n in range(30)]
    first = _get(server, "/pipelines?sort_by=name&page_size=10")
    _call(server, "DELETE", f"/pipelines/{made[3]}")
    second = _get(server, f"/pipelines?page_size=10&page_token={first['next_page_token']}")
    assert [item["name"] for item in second["pipelines"]] == [f"p{n}" for n in range(10, 20)]


def test_the_requests_are_noted(server: KfpServer) -> None:
    _get(server, "/pipelines?page_size=1")
    assert server.requests == [("GET", "/apis/v2beta1/pipelines?page_size=1")]


def _call(server: KfpServer, method: str, path: str, content: object = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"{server.url}/apis/v2beta1{path}", data, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def _get(server: KfpServer, path: str) -> Any:
    return _call(server, "GET", path)


def _post(server: KfpServer, path: str, content: object) -> Any:
    return _call(server, "POST", path, content)
