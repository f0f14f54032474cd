"""What every ``Schedules`` does, and what the one of Kubeflow Pipelines does besides."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.model.schedules import Schedule, ScheduleChange
from ctflow.ports.schedules import Schedules
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError
from ctflow.rest.patience import Patience
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.connection import words
from ctflow.runners.kubeflow.recurring import KfpSchedules
from ctflow.runners.kubeflow.starting import RunSettings
from ctflow.stages.schedule import sync
from tests.contracts.fake_schedules import FakeSchedules
from tests.kfp_faults import KINDS, only, proxy
from tests.kfp_server import KfpServer

PACKAGES = Path(__file__).parent / "kfp"
NIGHTLY = Schedule("nightly", "0 3 * * *", parameters={"rows": 2})


@pytest.fixture
def server() -> Iterator[KfpServer]:
    seconds = itertools.count()
    # Each thing is made a second after the one before: of the same second, any may be the newest.
    with KfpServer(
        clock=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(next(seconds)))
    ) as started:
        yield started


def client(server: KfpServer) -> Kfp:
    api = Api("Kubeflow Pipelines", server.url, patience=Patience(3, sleep=lambda s: None))
    api.said = words
    return Kfp(api)


def upload(server: KfpServer, name: str, package: str = "demo.yaml") -> str:
    kfp = client(server)
    pipeline = kfp.pipeline("demo") or kfp.create_pipeline("demo", "")
    data = (PACKAGES / package).read_bytes()
    return str(
        kfp.upload_version(pipeline["pipeline_id"], name, "", {}, data)["pipeline_version_id"]
    )


def schedules_of(server: KfpServer, kfp: Kfp | None = None, **more: str) -> KfpSchedules:
    return KfpSchedules(kfp or client(server), "digits", "demo", RunSettings("digits", **more))


@pytest.fixture(params=["kfp", "memory"])
def port(request: pytest.FixtureRequest) -> Schedules:
    if request.param == "memory":
        return FakeSchedules()
    started: KfpServer = request.getfixturevalue("server")
    upload(started, "v1")
    return schedules_of(started)


def states(port: Schedules, *schedules: Schedule) -> dict[str, str]:
    return {one.name: one.state for one in sync(port, schedules)}


# -- every one ------------------------------------------------------------------------------------


def test_what_is_made_is_there_and_not_enabled(port: Schedules) -> None:
    (wanted,) = port.wanted([NIGHTLY], dry_run=False)
    assert port.existing() == ()
    port.create(wanted)
    (there,) = port.existing()
    assert (there.schedule, there.settings, there.enabled) == ("nightly", wanted.settings, False)
    port.set_enabled(there.id, True)
    port.set_enabled(there.id, True)
    assert [one.enabled for one in port.existing()] == [True]
    port.set_enabled(there.id, False)
    assert [one.enabled for one in port.existing()] == [False]
    port.delete(there.id)
    assert port.existing() == ()
    # By somebody else at the same time.
    port.delete(there.id)
    port.set_enabled(there.id, True)
    assert port.existing() == ()


def test_two_of_one_name_are_both_there(port: Schedules) -> None:
    (wanted,) = port.wanted([NIGHTLY], dry_run=False)
    port.create(wanted)
    port.create(wanted)
    assert len({one.id for one in port.existing()}) == 2
    assert states(port, NIGHTLY) == {"nightly": "enabled"}
    assert len(port.existing()) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(NIGHTLY, cron="0 4 * * *"),
        replace(NIGHTLY, cron="", every=60),
        replace(NIGHTLY, parameters={"rows": 3}),
        replace(NIGHTLY, catch_up=True),
        replace(NIGHTLY, concurrency=2),
        replace(NIGHTLY, version="v1"),
        replace(NIGHTLY, enabled=False),
    ],
)
def test_each_setting_counts(port: Schedules, other: Schedule) -> None:
    assert states(port, NIGHTLY) == {"nightly": "created"}
    assert states(port, NIGHTLY) == {"nightly": "unchanged"}
    assert states(port, other) == {"nightly": "replaced"}
    assert states(port, other) == {"nightly": "unchanged"}
    assert [one.enabled for one in port.existing()] == [other.enabled]
    assert states(port) == {"nightly": "removed"}


# -- Kubeflow Pipelines ---------------------------------------------------------------------------


def recurring(server: KfpServer) -> list[dict[str, Any]]:
    return list(server.store.recurring.values())


def test_kfp_is_sent_all_that_it_would_guess(server: KfpServer) -> None:
    version = upload(server, "v1")
    port = schedules_of(server, service_account="trainer", pipeline_root="s3://b/runs")
    often = Schedule("often", every=5400, version="v1", catch_up=True, concurrency=3, enabled=False)
    sync(port, [replace(NIGHTLY, cron="@daily"), replace(often, parameters={"rows": 7})])
    nightly, second = sorted(recurring(server), key=lambda one: str(one["display_name"]))
    assert nightly["display_name"] == "digits-nightly"
    assert nightly["trigger"] == {"cron_schedule": {"cron": "0 0 0 * * *"}}
    assert (nightly["mode"], nightly["max_concurrency"], nightly["no_catchup"]) == (
        "ENABLE", "1", True,
    )  # fmt: skip
    assert nightly["runtime_config"] == {"parameters": {"rows": 2}, "pipeline_root": "s3://b/runs"}
    assert nightly["service_account"] == "trainer"
    assert "pipeline_version_id" not in nightly["pipeline_version_reference"]
    assert second["trigger"] == {"periodic_schedule": {"interval_second": "5400"}}
    assert (second["mode"], second["max_concurrency"], second["no_catchup"]) == (
        "DISABLE", "3", False,
    )  # fmt: skip
    assert second["pipeline_version_reference"]["pipeline_version_id"] == version
    first_line, last = nightly["description"].splitlines()
    assert first_line == "@daily (UTC)"
    assert json.loads(last.removeprefix("ctflow: "))["schedule"] == "nightly"
    # Runs of the newest version come from the newest version.
    newest = upload(server, "v2")
    run = server.store.runs[server.trigger(nightly["recurring_run_id"])]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == newest


def test_only_what_ctflow_made_for_this_project_is_touched(server: KfpServer) -> None:
    upload(server, "v1")
    kfp = client(server)
    port = schedules_of(server)
    sync(port, [NIGHTLY])
    (mine,) = recurring(server)
    keys = ("display_name", "description", "experiment_id", "pipeline_version_reference",
            "runtime_config", "trigger", "max_concurrency", "mode", "no_catchup")  # fmt: skip
    body = {key: mine[key] for key in keys}
    # By hand under our name; a copy that the web page made; one of another project.
    for change in (
        {"description": "by hand"},
        {"display_name": "Clone of digits-nightly"},
        {"description": mine["description"].replace('"digits"', '"other"')},
    ):
        kfp.create_recurring_run({**body, **change})
    assert sync(port, [NIGHTLY]) == (ScheduleChange("nightly", "unchanged"),)
    assert sync(port, []) == (ScheduleChange("nightly", "removed"),)
    assert len(recurring(server)) == 3


def test_what_is_unchanged_costs_four_requests(server: KfpServer) -> None:
    upload(server, "v1")
    sync(schedules_of(server), [NIGHTLY])
    kfp = client(server)
    sync(schedules_of(server, kfp), [NIGHTLY])
    assert kfp.api.requests == 4


def test_a_dry_run_makes_nothing_not_even_the_experiment(server: KfpServer) -> None:
    upload(server, "v1")
    before = len(server.store.experiments)
    assert sync(schedules_of(server), [NIGHTLY], dry_run=True) == (
        ScheduleChange("nightly", "created"),
    )
    assert (len(server.store.experiments), recurring(server)) == (before, [])


@pytest.mark.parametrize(
    ("schedule", "error", "said"),
    [
        (replace(NIGHTLY, parameters={"row": 1}), ConfigError, "nightly: .* did you mean 'rows'"),
        (replace(NIGHTLY, parameters={"rows": 1.5}), ConfigError, "nightly: parameter rows"),
        (replace(NIGHTLY, parameters={"rows": "ten"}), ConfigError, "nightly: parameter rows"),
        (replace(NIGHTLY, parameters={"rows": 2**53 + 1}), ConfigError, "would round it"),
        (replace(NIGHTLY, version="v9"), ConfigError, "has no version 'v9'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(
    server: KfpServer, schedule: Schedule, error: type[Exception], said: str
) -> None:
    upload(server, "v1")
    with pytest.raises(error, match=said):
        sync(schedules_of(server), [schedule])
    assert recurring(server) == []


def test_a_parameter_as_text_becomes_what_the_version_declares(server: KfpServer) -> None:
    upload(server, "v1")
    sync(schedules_of(server), [replace(NIGHTLY, parameters={"rows": "12"})])
    assert recurring(server)[0]["runtime_config"]["parameters"] == {"rows": 12}


def test_a_pipeline_that_was_never_uploaded(server: KfpServer) -> None:
    with pytest.raises(StateError, match=r"has no pipeline 'demo'.*ctflow upload"):
        sync(schedules_of(server), [NIGHTLY])
    client(server).create_pipeline("demo", "")
    with pytest.raises(ConfigError, match="has no version"):
        sync(schedules_of(server), [NIGHTLY])


class Cut(Kfp):
    """Loses the answers of the first creations, after or before the server acted."""

    def __init__(self, api: Api, acted: list[bool]) -> None:
        super().__init__(api)
        self.acted = acted

    def create_recurring_run(self, body: Json) -> Json:
        if self.acted:
            if self.acted.pop(0):
                super().create_recurring_run(body)
            raise ApiError("the connection was closed", unsure=True)
        return super().create_recurring_run(body)


@pytest.mark.parametrize("acted", [[True], [False], [False, True], [False, False]])
def test_a_lost_answer_makes_no_second_one(server: KfpServer, acted: list[bool]) -> None:
    upload(server, "v1")
    kfp = Cut(client(server).api, acted)
    sync(schedules_of(server, kfp), [NIGHTLY])
    assert [one["mode"] for one in recurring(server)] == ["ENABLE"]


def test_a_server_that_never_makes_it_is_told_of(server: KfpServer) -> None:
    upload(server, "v1")
    kfp = Cut(client(server).api, [False, False, False])
    with pytest.raises(OutsideError, match="connection was closed"):
        sync(schedules_of(server, kfp), [NIGHTLY])
    assert recurring(server) == []


def told(server: KfpServer, name: str, commit: str) -> str:
    """Upload a version whose pipeline wants to know its commit."""
    import yaml

    from ctflow.runners.kubeflow import labels

    kfp = client(server)
    spec = yaml.safe_load((PACKAGES / "demo.yaml").read_text())
    spec["root"]["inputDefinitions"]["parameters"]["ctflow_commit"] = {
        "parameterType": "STRING", "isOptional": True, "defaultValue": "",
    }  # fmt: skip
    pipeline = kfp.pipeline("demo") or kfp.create_pipeline("demo", "")
    text = labels.written("", {"commit": commit, "package": "sha256:1"})
    data = yaml.safe_dump(spec).encode()
    made = kfp.upload_version(pipeline["pipeline_id"], name, text, {}, data)
    return str(made["pipeline_version_id"])


def test_a_pipeline_that_wants_to_know_its_commit_is_told_that_of_its_version(
    server: KfpServer,
) -> None:
    for name, commit in (("v1", "1a2b3c"), ("v2", "4d5e6f")):
        version = told(server, name, commit)
        port = schedules_of(server)
        sync(port, [NIGHTLY])
        assert states(port, NIGHTLY) == {"nightly": "unchanged"}
        (one,) = recurring(server)
        assert one["runtime_config"]["parameters"] == {"rows": 2, "ctflow_commit": commit}
        assert one["pipeline_version_reference"]["pipeline_version_id"] == version


def test_an_experiment_that_is_archived_or_gone(server: KfpServer) -> None:
    upload(server, "v1")
    sync(schedules_of(server), [NIGHTLY])
    path = f"/apis/v2beta1/experiments/{recurring(server)[0]['experiment_id']}"
    client(server).api.call("POST", f"{path}:archive")
    with pytest.raises(StateError, match="experiment 'digits' is archived"):
        sync(schedules_of(server), [NIGHTLY])
    client(server).api.call("DELETE", path)
    # What it left starts nothing: it is made anew.
    assert states(schedules_of(server), NIGHTLY) == {"nightly": "replaced"}
    (one,) = recurring(server)
    assert one["mode"] == "ENABLE"
    assert one["experiment_id"] in server.store.experiments


@pytest.mark.parametrize("kind", KINDS)
def test_a_sync_survives_whatever_breaks(server: KfpServer, kind: str) -> None:
    """Each of its calls breaks once, in this way; the same command again ends as it should."""
    upload(server, "v1")
    other = replace(NIGHTLY, cron="0 4 * * *")
    for broken in range(10):
        server.store.recurring.clear()
        sync(schedules_of(server), [NIGHTLY])
        with proxy(server.url) as between:
            between.fault = only(broken, kind)
            api = Api("KFP", between.url, patience=Patience(sleep=lambda s: None))
            port = schedules_of(server, Kfp(api))
            if kind == "html":
                with pytest.raises(ApiError, match="asks for a login"):
                    sync(port, [other])
                at_work = [one for one in recurring(server) if one["mode"] == "ENABLE"]
                assert len(at_work) <= 1
            sync(port, [other])
            assert len(between.calls) > broken
        (one,) = recurring(server)
        assert one["mode"] == "ENABLE"
        assert one["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * *"}}


def test_many_jobs_at_once_leave_one(server: KfpServer) -> None:
    upload(server, "v1")
    sync(schedules_of(server), [NIGHTLY])
    jobs = 6
    start = threading.Barrier(jobs)
    failed: list[Exception] = []

    def job() -> None:
        start.wait()
        try:
            sync(schedules_of(server), [replace(NIGHTLY, cron="0 4 * * *")])
        except Exception as error:  # noqa: BLE001 (it is looked at below)
            failed.append(error)

    threads = [threading.Thread(target=job) for _ in range(jobs)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    (left,) = recurring(server)
    assert left["mode"] == "ENABLE"
    assert left["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * *"}}


def test_on_a_server_with_users() -> None:
    class Ana:
        def headers(self) -> dict[str, str]:
            return {"kubeflow-userid": "ana@acme.dev"}

        def renew(self) -> bool:
            return False

    with KfpServer(grants=[("ana@acme.dev", "team-a")]) as server:
        kfp = Kfp(Api("KFP", server.url, Ana(), patience=Patience(1)), "team-a")
        made = kfp.create_pipeline("demo", "")
        data = (PACKAGES / "demo.yaml").read_bytes()
        kfp.upload_version(made["pipeline_id"], "v1", "", {}, data)
        port = schedules_of(server, kfp)
        assert states(port, NIGHTLY) == {"nightly": "created"}
        assert states(port, NIGHTLY) == {"nightly": "unchanged"}
        (one,) = recurring(server)
        assert (one["namespace"], one["mode"]) == ("team-a", "ENABLE")
        nobody = Kfp(Api("KFP", server.url, patience=Patience(1)), "team-a")
        with pytest.raises(ApiError, match="401"):
            sync(schedules_of(server, nobody), [NIGHTLY])


def test_the_newest_of_many_is_one_request(server: KfpServer) -> None:
    upload(server, "v1")
    newest = upload(server, "v2")
    kfp = client(server)
    pipeline = kfp.pipeline("demo")
    assert pipeline is not None
    found = kfp.newest_version(pipeline["pipeline_id"])
    assert found is not None
    assert found["pipeline_version_id"] == newest
