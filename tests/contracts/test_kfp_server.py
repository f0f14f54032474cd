"""The stand-in for Kubeflow Pipelines' API server answers as 2.17.0 was recorded to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.contracts.kfp_replay import Replay, Script, exchanges, package
from tests.kfp_server import KfpServer
from tests.kfp_server.values import Item

RECORDED = exchanges()
DEMO = ("bbabcbf3-4773-4a4e-8b35-103f370a6806", "788221d4-6a78-4f43-9439-6dcb203949a0")
SLOW = ("1a48492e-99a5-49e3-a439-b374de2b93ec", "b71b54d6-d2dc-4047-90b4-7d97b7f848d3")
STRICT = ("610ecf10-fbf0-4db2-a9e0-0e61f42f1891", "818287d3-30e6-450f-9e79-66e2e42cc94e")
EXPERIMENT = "49a486ef-1831-4ad4-8cc9-9f644bf1642d"
LONG = "6f5c1da6-e9d6-440e-9063-1ab9ed473980"
FAILING = "50c57710-62d1-4097-ba18-51032e03bcfb"
GOOD = "8577b2dc-98b0-40ad-804e-d8ce50c4bd80"
NO_TRIGGER = "257fe403-cf3e-4f78-b830-78a7ade20771"
EVERY_30_S = "f1cf62aa-229d-4fec-be9b-e9472088d8dc"


def _without(*keys: str) -> Callable[[Any], Any]:
    def ignored(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: ignored(value) for key, value in found.items() if key not in keys}
        return [ignored(one) for one in found] if isinstance(found, list) else found

    return ignored


#: Recordings that the stand-in answers otherwise: the reason, and the answer without that.
OTHERWISE: dict[int, tuple[str, Callable[[Any], Any]]] = {
    365: ("the first run hung in a workflow without attempts", _without("run_details")),
    377: ("the first run hung in a workflow without attempts", _without("run_details")),
    519: ("which of two missing parameters is named is up to chance", _without("message")),
}


def test_the_recordings_are_all_replayed() -> None:
    """No recording is left out but those that `OTHERWISE` names."""
    replayed = [*FIRST, *SECOND, *THIRD]
    assert sorted(replayed) == sorted(RECORDED)
    assert len(RECORDED) == 304
    assert set(OTHERWISE) <= set(RECORDED)


FIRST = [n for n in RECORDED if n < 300]
SECOND = [
    *(n for n in RECORDED if 300 < n < 356),
    *(n for n in RECORDED if 500 < n < 541),
    *(n for n in RECORDED if 355 < n < 400),
    *(n for n in RECORDED if 540 < n < 600),
]  # in the order of their times
THIRD = [n for n in RECORDED if n > 600]


def test_pipelines_and_experiments_as_recorded() -> None:
    script = Script()
    script.expect(experiment="eceba5f1-1dcd-4806-b542-6f8c44bcb750")
    _replay(
        script,
        FIRST,
        {47: _first_version, 80: _many, 110: _to_be_deleted, 138: _experiment_to_be_deleted},
    )


def test_runs_and_recurring_runs_as_recorded() -> None:
    script = Script()
    script.expect(experiment="26d09452-d8f9-4961-a8f1-423ccc74b2c9")
    before = {
        301: _what_was_there, 303: _workflow("wjjtx"), 304: _workflow("lgjrt"),
        343: _long_runs, 354: _long_ends, 356: _the_others_end, 363: _no_trigger_fires,
        541: _every_30_s_fires, 549: _inside_archived,
    }  # fmt: skip
    _replay(script, SECOND, before, otherwise=OTHERWISE)


def test_multi_user_mode_as_recorded() -> None:
    _replay(Script(), THIRD, {}, grants=[("alice@example.com", "team-a")])


def _replay(
    script: Script,
    numbers: Iterable[int],
    before: dict[int, Callable[[Replay], None]],
    grants: Iterable[tuple[str, str]] | None = None,
    otherwise: Mapping[int, tuple[str, Callable[[Any], Any]]] | None = None,
) -> None:
    granted = None if grants is None else list(grants)
    with KfpServer(clock=script.clock, new_id=script.new_id, grants=granted) as server:
        replay = Replay(server, script)
        for n in numbers:
            if n in before:
                before[n](replay)
            _, ignored = (otherwise or {}).get(n, ("", lambda found: found))
            replay.run(RECORDED[n], ignored)
    assert not replay.differences, "\n".join(replay.differences)


# --- what came about between the recordings


def _first_version(replay: Replay) -> None:
    replay.script.expect(version="e92369d2-5b9e-41ac-b887-15d06d8daa22")


def _many(replay: Replay) -> None:
    """250 pipelines, with the ids and times that some list tells of."""
    known = {
        item["name"]: item
        for exchange in RECORDED.values()
        for item in (exchange.get("answer") or {}).get("pipelines", [])
        if isinstance(item["name"], str)
    }
    for index in range(250):
        name = f"many-{index:03}"
        found: Item = known.get(name, {"pipeline_id": f"ffffffff-0000-4000-8000-{index:012}"})
        if index == 200:
            replay.script.now = "2026-11-26T00:18:32Z"
        replay.script.now = max(found.get("created_at", ""), replay.script.now)
        replay.script.expect(pipeline=found["pipeline_id"])
        replay.server.routes.pipelines.add({"name": name})


def _pipeline(replay: Replay, name: str, ids: tuple[str, str]) -> None:
    replay.script.expect(pipeline=ids[0], version=ids[1])
    pipelines = replay.server.routes.pipelines
    pipelines.add({"name": f"{name}-{ids[0][:4]}"})
    pipelines.add_version(ids[0], {"name": name}, package(name).encode())


def _to_be_deleted(replay: Replay) -> None:
    _pipeline(replay, "demo", (
        "afbc41a3-9f37-4f66-aa85-06cc41b59c61", "ff639a0a-b156-4c06-a9be-98458f0fe6c7",
    ))  # fmt: skip
    _pipeline(replay, "slow", (
        "75ce55f6-6239-4ad2-870a-ed3e1066d1a0", "0f376285-bd3d-4c4a-84f3-efbbb7fac0b6",
    ))  # fmt: skip


def _experiment_to_be_deleted(replay: Replay) -> None:
    replay.script.expect(experiment="638794dc-6602-4e8d-87fd-32705bbef7c2")
    replay.post("/experiments", {"display_name": "short-lived"})


def _what_was_there(replay: Replay) -> None:
    for name, ids in (("demo", DEMO), ("slow", SLOW), ("strict", STRICT)):
        _pipeline(replay, name, ids)
    replay.script.expect(experiment=EXPERIMENT)
    replay.post("/experiments", {"display_name": "runs"})
    reference = {"pipeline_id": DEMO[0], "pipeline_version_id": DEMO[1]}
    for run_id, at in (
        ("1eedc996-e522-48f7-8ea6-3bc5be7a5e52", "2026-11-26T00:20:56Z"),
        ("673614ab-cc9e-43cc-ae96-22ab3d11da44", "2026-11-26T00:22:53Z"),
        ("61d6bdac-df93-4044-b390-b9d536ac9b2e", "2026-11-26T00:23:53Z"),
    ):
        replay.script.now = at
        replay.script.expect(run=run_id)
        replay.post("/runs", {"display_name": "first", "pipeline_version_reference": reference})
        if at.endswith("20:56Z"):
            replay.server.advance(run_id)
        elif at.endswith("22:53Z"):
            replay.server.finish(run_id, "FAILED", failed=["prepare"])
        else:
            replay.server.finish(run_id)
    _workflow("4sxv8")(replay)


def _workflow(letters: str) -> Callable[[Replay], None]:
    return lambda replay: replay.script.expect(workflow=letters)


def _long_runs(replay: Replay) -> None:
    replay.server.advance(LONG, {"slow": "RUNNING"})


def _long_ends(replay: Replay) -> None:
    replay.script.now = "2026-11-26T00:26:04Z"
    replay.server.finish(LONG, "FAILED")


def _the_others_end(replay: Replay) -> None:
    failed = {"failing": "slow", "float-for-int": "prepare", "account": "slow", "root": "evaluate"}
    replay.script.now = "2026-11-26T00:25:32Z"
    for run in list(replay.server.store.runs.values()):
        name = run["display_name"]
        if name == "good":
            continue
        if name in {"state given", "big-int"}:
            replay.server.report_without_state(run["run_id"])
        if name in failed:
            replay.server.finish(run["run_id"], "FAILED", failed=[failed[name]])
        elif name == "big-int":
            replay.server.advance(run["run_id"], {"prepare": "RUNNING"})
        elif run["state"] == "PENDING":
            replay.server.finish(run["run_id"])
    replay.script.now = "2026-11-26T00:26:31Z"
    replay.server.finish(GOOD)
    own = replay.server.write_log(GOOD, "prepare", "rows 12\n")
    recorded = "demo-4sxv8-system-container-impl-1223717898"
    replay.words[recorded] = own
    replay.words["demo-4sxv8-1223717898"] = own


def _fires(replay: Replay, recurring_run_id: str, recorded: tuple[str, str]) -> str:
    run_id = replay.server.trigger(recurring_run_id)
    run = replay.server.store.runs[run_id]
    replay.words |= {recorded[0]: run_id, recorded[1]: run["display_name"]}
    return run_id


def _no_trigger_fires(replay: Replay) -> None:
    names = ("6edbdefd-8052-475b-b5f4-0f7747a42a56", "notriggerdlzjf-1-2033067794")
    replay.script.now = "2026-11-26T00:26:20Z"
    replay.server.advance(_fires(replay, NO_TRIGGER, names), {"slow-driver": "RUNNING"})


def _every_30_s_fires(replay: Replay) -> None:
    names = ("819f37b9-8a75-5b84-9b3f-643b107c3bc8", "every30sfrq4b-1-2363724847")
    replay.script.now = "2026-11-26T00:51:01Z"
    replay.server.advance(_fires(replay, EVERY_30_S, names), {"slow-driver": "RUNNING"})


def _inside_archived(replay: Replay) -> None:
    experiment = "44e99e63-c222-48ba-a3b0-a921c758a511"
    replay.script.expect(
        experiment=experiment, recurring_run="50a3c701-dd6b-460e-bf00-d9f071972252"
    )
    replay.post("/experiments", {"display_name": "to be archived"})
    replay.post("/recurringruns", {
        "display_name": "inside", "experiment_id": experiment, "max_concurrency": "1",
        "mode": "ENABLE", "runtime_config": {"parameters": {"seconds": 1}},
        "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
        "pipeline_version_reference": {"pipeline_id": SLOW[0], "pipeline_version_id": SLOW[1]},
    })  # fmt: skip
