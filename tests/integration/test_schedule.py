"""`ctflow schedule`: runs that time starts, here and on Kubeflow Pipelines."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.rest.client import Api
from ctflow.runners.kubeflow.api import Kfp
from tests.kfp_server import KfpServer
from tests.projects import TinyProject

DEMO = Path(__file__).parents[1] / "contracts" / "kfp" / "demo.yaml"
DAY = 86400.0


def until(what: Callable[[], Any]) -> Any:
    """Wait for something that will be so; a test that waits for ever has failed."""
    end = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    TinyProject.keep_package(tmp_path / "first")
    return TinyProject(tmp_path)


def schedule(project: TinyProject, text: str) -> None:
    config = (project.folder / "ctflow.yaml").read_text()
    project.write("ctflow.yaml", f"{config}schedules:\n  {text}\n")


def record(project: TinyProject) -> dict[str, Any]:
    place = project.state / "schedules" / "times.json"
    data: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return data


def let_days_pass(project: TinyProject, days: float) -> None:
    """As if all that is on record was so many days before."""
    data = record(project)
    for one in data.values():
        for key in ("since", "last", "ended"):
            if one[key] is not None:
                one[key] -= days * DAY
    (project.state / "schedules" / "times.json").write_text(json.dumps(data))


def runs(project: TinyProject) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.json("runs", "list")
    return found


def test_once_starts_what_is_due(project: TinyProject) -> None:
    schedule(project, "nightly: {cron: '0 3 * * *', parameters: {skill: 0.9}}")
    assert "next is nightly at " in project.ok("schedule", "run", "--once")
    assert runs(project) == []
    let_days_pass(project, 3)
    (row,) = project.json("schedule", "list")["schedules"]
    assert (row["state"], row["when"]) == ("due", "0 3 * * *")
    said = project.ok("schedule", "run", "--once")
    assert "nightly   starts for " in said
    assert "nightly   ended with exit code 0" in said
    (done,) = runs(project)
    assert done["metrics"]["accuracy"] == 0.9
    # Three were missed: the newest was made up for, and nothing is left.
    assert "next is nightly at " in project.ok("schedule", "run", "--once")
    assert len(runs(project)) == 1
    (row,) = project.json("schedule", "list")["schedules"]
    assert (row["state"], row["code"]) == ("", 0)
    assert row["last"].endswith("T03:00:00Z")
    assert "   last 20" in project.ok("schedule", "list")


def test_catching_up_starts_each_and_a_failed_run_is_told(project: TinyProject) -> None:
    schedule(project, "nightly: {interval: 24h, catch_up: true, parameters: {fault: exit}}")
    project.ok("schedule", "run", "--once")
    let_days_pass(project, 2)
    done = project.call("schedule", "run", "--once")
    assert done.returncode == 4
    assert [one["state"] for one in runs(project)] == ["failed", "failed"]
    assert done.stdout.count("ended with exit code 4") == 2


def test_with_ct_the_model_is_judged_and_proposed(project: TinyProject) -> None:
    schedule(project, "nightly: {interval: 24h}")
    project.commit("schedule")
    project.push()
    project.ok("schedule", "run", "--once", "--ct")
    let_days_pass(project, 1)
    assert "proposed" in project.ok("schedule", "run", "--once", "--ct")
    assert project.proposed() != "none"


def test_values_of_all_types_reach_the_pipeline(project: TinyProject) -> None:
    schedule(project, "nightly: {interval: 24h, parameters: {skill: 1, fault: 'a = b', size: 3}}")
    project.ok("schedule", "run", "--once")
    let_days_pass(project, 1)
    project.ok("schedule", "run", "--once")
    (done,) = runs(project)
    shown = project.json("runs", "show", done["id"])
    assert shown["parameters"] == {"skill": 1.0, "fault": "a = b", "size": 3}


@pytest.fixture
def waiting(project: TinyProject) -> Iterator[tuple[TinyProject, Any, Path]]:
    """`ctflow schedule run` whose first run waits for a file."""
    go = project.base / "go"
    schedule(project, f"often: {{interval: 1s, parameters: {{fault: 'wait:{go}'}}}}")
    log = (project.base / "log").open("w")
    options = {"start_new_session": True, "stdout": log, "stderr": log}
    with log, project.start("schedule", "run", **options) as process:
        try:
            until(lambda: record(project).get("often", {}).get("last"))
            until(lambda: runs(project))
            yield project, process, go
        finally:
            go.touch()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_one_process_starts_runs_until_it_is_ended(waiting: tuple[TinyProject, Any, Path]) -> None:
    project, process, go = waiting
    # A second one starts nothing beside it.
    text = "another `ctflow schedule run` starts this project's runs"
    assert text in project.ok("schedule", "run", "--once")
    assert text in project.fails(2, "schedule", "run")
    assert len(runs(project)) == 1
    go.touch()
    until(lambda: len(runs(project)) > 1)
    # A file that somebody broke is said once, and does not end it.
    whole = (project.folder / "ctflow.yaml").read_text()
    project.write("ctflow.yaml", "project: [\n")
    until(lambda: "not valid YAML" in (project.base / "log").read_text())
    assert process.poll() is None
    project.write("ctflow.yaml", whole)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    until(lambda: all(one["state"] != "running" for one in runs(project)))


def test_ended_in_a_run_it_ends_the_run(waiting: tuple[TinyProject, Any, Path]) -> None:
    project, process, _ = waiting
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    (done,) = runs(project)
    assert done["state"] == "canceled"
    # The time is not started again for that, but later ones are.
    (row,) = project.json("schedule", "list")["schedules"]
    assert row["state"] in ("due", "at work, or ended without a word")


def test_killed_in_a_run_nobody_starts_another_beside_it(
    waiting: tuple[TinyProject, Any, Path],
) -> None:
    project, process, go = waiting
    process.kill()
    process.wait(timeout=120)
    assert "another `ctflow schedule run`" in project.ok("schedule", "run", "--once")
    go.touch()
    until(lambda: "starts for" in project.ok("schedule", "run", "--once"))


def test_what_runs_here_cannot_do_is_said(project: TinyProject) -> None:
    schedule(project, "nightly: {interval: 24h, version: v1}")
    said = project.fails(2, "schedule", "run", "--once")
    assert "schedule nightly is of version v1" in said
    said = project.fails(2, "schedule", "run", "--once", "--set", "runner=kubeflow")
    assert "run `ctflow schedule sync`" in said
    assert "kubeflow.host is not set" in project.fails(2, "schedule", "sync")


# -- Kubeflow Pipelines ---------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as started:
        kfp = Kfp(Api("it", started.url))
        made = kfp.create_pipeline("demo", "")
        kfp.upload_version(made["pipeline_id"], "v1", "", {}, DEMO.read_bytes())
        yield started


def test_sync_and_list(tmp_path: Path, server: KfpServer) -> None:
    project = TinyProject(tmp_path, remote=False)
    project.edit("ctflow.yaml", "parameters: {skill: 0.8, fault: '', size: 0}\n", "")
    schedule(project, "nightly: {cron: '0 3 * * *', parameters: {rows: 3}}\n  old: {interval: 1h}")
    project.write("ctflow.yaml", (project.folder / "ctflow.yaml").read_text() + (
        f"kubeflow: {{host: '{server.url}', pipeline: demo}}\nrunner: kubeflow\n"
    ))  # fmt: skip
    (row, _) = project.json("schedule", "list")["schedules"]
    assert (row["name"], row["state"]) == ("nightly", "missing")
    assert row["next"].endswith("T03:00:00Z")
    assert "nightly   would be created" in project.ok("schedule", "sync", "--dry-run")
    assert server.store.recurring == {}
    assert "nightly   created" in project.ok("schedule", "sync")
    assert project.json("schedule", "sync")["schedules"] == {
        "nightly": "unchanged", "old": "unchanged",
    }  # fmt: skip
    project.edit("ctflow.yaml", "rows: 3", "rows: 4")
    project.edit("ctflow.yaml", "\n  old: {interval: 1h}", "")
    said = project.ok("schedule", "list")
    assert "differs" in said
    assert "not in ctflow.yaml" in said
    said = project.ok("schedule", "sync")
    assert "nightly   replaced" in said
    assert "old   removed" in said
    (one,) = server.store.recurring.values()
    assert (one["mode"], one["runtime_config"]) == ("ENABLE", {"parameters": {"rows": 4}})
    assert "as in ctflow.yaml" in project.ok("schedule", "list")
