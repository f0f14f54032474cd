"""Uploads and runs on Kubeflow Pipelines: against the stand-in that is held to the real server."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, Interrupted, OutsideError, StateError
from ctflow.lib.digests import digest_bytes
from ctflow.model import Commit, Package, Upload
from ctflow.model.versions import version_labels, version_name
from ctflow.pipelinespec.packages import load
from ctflow.ports import Event, RunRequest, VersionRequest, ignore
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError
from ctflow.rest.patience import Patience
from ctflow.runners.kubeflow import labels
from ctflow.runners.kubeflow.api import Kfp
from ctflow.runners.kubeflow.connection import words
from ctflow.runners.kubeflow.logs import Logs
from ctflow.runners.kubeflow.outputs import RunOutputs
from ctflow.runners.kubeflow.reading import run_of
from ctflow.runners.kubeflow.runner import KubeflowRunner
from ctflow.runners.kubeflow.starting import RunSettings
from ctflow.runners.kubeflow.uploads import KfpPipelines
from ctflow.stores.object_store.artifact_files import open_files
from tests.contracts.kfp_replay import FOLDER, exchanges, full
from tests.kfp_faults import KINDS, only, proxy
from tests.kfp_server import KfpServer
from tests.projects import TinyProject, git

SHA = "1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d"
DEMO = FOLDER / "demo.yaml"
#: Nothing is kept there: what the runs wrote is not asked for.
CACHE = Path("/nowhere")
PARAMETERS = {"rows": 3, "word": "a"}


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as started:
        yield started


def package(folder: Path, source: Path = DEMO, text: bytes = b"", **more: Any) -> Package:
    """A package of a file, with ``text`` added to it."""
    data = source.read_bytes() + text
    place = folder / f"{digest_bytes(data)[7:27]}.yaml"
    place.write_bytes(data)
    commit = more.pop("commit", Commit(SHA, "master"))
    name = source.stem
    return Package("tiny", name, digest_bytes(data), str(place), (), commit, **more)


def kfp(url: str, namespace: str = "", **more: Any) -> Kfp:
    api = Api(f"KFP at {url}", url, patience=Patience(sleep=lambda s: None), said=words, **more)
    return Kfp(api, namespace)


def asked(made: Package, name: str = "") -> VersionRequest:
    return VersionRequest(made, name or version_name(made), version_labels(made))


def pipelines(url: str, **more: Any) -> KfpPipelines:
    return KfpPipelines(kfp(url, **more), "tiny", lambda commit: "Add a step")


def runner(url: str, **more: Any) -> KubeflowRunner:
    server = kfp(url)
    return KubeflowRunner(
        server, "tiny", KfpPipelines(server, "tiny"), RunSettings("trials", actor="ana"),
        Logs(server, None, "kubeflow"), RunOutputs(None, open_files(None, CACHE, {}), CACHE),
        **{"sleep": lambda s: None, **more},
    )  # fmt: skip


# -- uploads --------------------------------------------------------------------------------------


def test_a_version_is_uploaded_once(server: KfpServer, tmp_path: Path) -> None:
    made = package(tmp_path)
    assert pipelines(server.url).find(asked(made)) is None
    done = pipelines(server.url).upload(asked(made))
    assert (done.pipeline, done.version, done.package) == ("tiny", SHA, made.digest)
    assert done.uploaded
    (version,) = server.store.versions.values()
    assert labels.read(version["description"]) == {
        "commit": SHA, "branch": "master", "package": made.digest, "project": "tiny",
        "pipeline": "demo",
    }  # fmt: skip
    assert version["description"].startswith("Add a step\n")
    assert version["tags"]["commit"] == SHA
    assert made.digest[7:].startswith(version["tags"]["package"])

    before = len(server.requests)
    again = pipelines(server.url).upload(asked(made))
    assert again == replace(done, uploaded=False)
    assert len(server.requests) - before == 2


def test_another_package_under_a_name_that_is_taken(server: KfpServer, tmp_path: Path) -> None:
    first, other = package(tmp_path), package(tmp_path, text=b"# another\n")
    pipelines(server.url).upload(asked(first))
    with pytest.raises(StateError) as refused:
        pipelines(server.url).upload(asked(other))
    said = str(refused.value)
    assert f"version {SHA} of pipeline tiny exists with another package" in said
    assert first.digest[:19] in said
    assert other.digest[:19] in said
    assert pipelines(server.url).upload(asked(other, "second")).uploaded
    assert len(server.store.versions) == 2


def test_what_the_plain_client_uploaded_is_known_by_its_content(
    server: KfpServer, tmp_path: Path
) -> None:
    import kfp as sdk

    client = sdk.Client(host=server.url)
    pipeline = client.upload_pipeline(str(DEMO), pipeline_name="tiny")
    client.upload_pipeline_version(str(DEMO), SHA, pipeline_id=pipeline.pipeline_id)
    assert not pipelines(server.url).upload(asked(package(tmp_path))).uploaded
    # A comment is no other pipeline; another step is.
    assert not pipelines(server.url).upload(asked(package(tmp_path, text=b"# more\n"))).uploaded
    with pytest.raises(StateError, match="one that ctflow did not upload"):
        pipelines(server.url).upload(asked(package(tmp_path, FOLDER / "slow.yaml")))
    # And the other way round.
    done = pipelines(server.url).upload(asked(package(tmp_path), "mine"))
    found = client.get_pipeline_version(done.pipeline_id, done.version_id)
    assert found.name == "mine"
    assert client.get_pipeline_id("tiny") == done.pipeline_id


def test_two_jobs_upload_at_once(server: KfpServer, tmp_path: Path) -> None:
    made = package(tmp_path)
    done: list[Upload] = []
    threads = [
        threading.Thread(target=lambda: done.append(pipelines(server.url).upload(asked(made))))
        for _ in range(6)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(done) == 6
    assert len({one.version_id for one in done}) == 1
    assert (len(server.store.pipelines), len(server.store.versions)) == (1, 1)
    assert sum(one.uploaded for one in done) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_survives_whatever_breaks(server: KfpServer, tmp_path: Path, kind: str) -> None:
    """Each of its calls breaks once, in this way; afterwards there is one of everything."""
    made = package(tmp_path)
    for broken in range(4):
        server.store.pipelines.clear()
        server.store.versions.clear()
        with proxy(server.url) as between:
            between.fault = only(broken, kind)
            if kind == "html":
                with pytest.raises(ApiError, match="asks for a login"):
                    pipelines(between.url).upload(asked(made))
            done = pipelines(between.url).upload(asked(made))
            assert done.version == SHA
            assert len(between.calls) > broken
        assert (len(server.store.pipelines), len(server.store.versions)) == (1, 1)


def test_packages_are_checked_before_anything_is_sent(server: KfpServer, tmp_path: Path) -> None:
    broken = package(tmp_path, text=b"\n\t: [\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        pipelines(server.url).upload(asked(broken))
    large = package(tmp_path, text=b"# " + b"x" * (32 * 2**20) + b"\n")
    with pytest.raises(ConfigError, match=r"32\.0 MiB, and Kubeflow Pipelines takes 32 MiB"):
        pipelines(server.url).upload(asked(large))
    with pytest.raises(ConfigError, match="the version's name has 128 characters"):
        pipelines(server.url).upload(asked(package(tmp_path), "n" * 128))
    from ctflow.model import Image

    here = replace(package(tmp_path), images=(Image("train", "ctflow.local/tiny/train@x", "x"),))
    with pytest.raises(ConfigError, match="the images of train are on this machine only"):
        pipelines(server.url).upload(asked(here))
    assert server.requests == []
    assert pipelines(server.url).upload(asked(package(tmp_path), "n" * 127)).uploaded


def test_versions_without_a_clean_commit_have_names_of_their_own(tmp_path: Path) -> None:
    made = package(tmp_path, commit=None)
    assert version_name(made) == f"package-{made.digest[7:19]}"
    dirty = package(tmp_path, commit=Commit(SHA, None, ("a.py",)))
    assert version_name(dirty) == f"{SHA[:12]}-uncommitted-{made.digest[7:19]}"


def test_who_may_not_upload_is_told(tmp_path: Path) -> None:
    class User:
        def __init__(self, name: str) -> None:
            self.name = name

        def headers(self) -> dict[str, str]:
            return {"kubeflow-userid": self.name} if self.name else {}

        def renew(self) -> bool:
            return False

    with KfpServer(grants=[("ana@acme.dev", "team-a")]) as server:

        def by(name: str, namespace: str = "team-a") -> KfpPipelines:
            return KfpPipelines(kfp(server.url, namespace, credentials=User(name)), "tiny")

        with pytest.raises(ApiError, match=r"does not accept who asks \(401\)"):
            by("").upload(asked(package(tmp_path)))
        with pytest.raises(ApiError, match=r"does not allow it \(403\)"):
            by("eve@acme.dev").upload(asked(package(tmp_path)))
        assert by("ana@acme.dev").upload(asked(package(tmp_path))).uploaded
        (pipeline,) = server.store.pipelines.values()
        assert pipeline["namespace"] == "team-a"


# -- runs -----------------------------------------------------------------------------------------


def request(made: Package, **parameters: Any) -> RunRequest:
    return RunRequest("tiny", made, {**PARAMETERS, **parameters}, made.commit)


def test_a_run_is_started_watched_and_read(server: KfpServer, tmp_path: Path) -> None:
    made = package(tmp_path)
    seen: list[Event] = []
    steps = iter([{"prepare": "RUNNING"}, {"prepare": "SUCCEEDED", "evaluate": "RUNNING"}])

    def goes_on(seconds: float) -> None:
        states = next(steps, None)
        if states is None:
            server.finish(run_id)
        else:
            server.advance(run_id, states)

    here = runner(server.url)
    run_id = here.submit(request(made), seen.append)
    (raw,) = server.store.runs.values()
    assert raw["display_name"].startswith("tiny-1a2b3c4-")
    assert labels.read(raw["description"])["actor"] == "ana"
    here._sleep = goes_on
    done = here.wait(run_id, seen.append)
    assert (done.state, done.pipeline, done.package) == ("succeeded", "demo", made.digest)
    assert done.commit == Commit(SHA, "master")
    assert done.parameters["rows"] == 3
    assert [task.name for task in done.tasks] == [
        "condition-1", "condition-1.announce", "evaluate", "prepare",
    ]  # fmt: skip
    assert {task.state for task in done.tasks} == {"succeeded"}
    states = [(one.name, one.task.state) for one in seen if one.task is not None]
    order = [states.index(("prepare", state)) for state in ("pending", "running", "succeeded")]
    assert order == sorted(order)
    assert {one.run for one in seen} == {run_id}
    assert done.url == f"{server.url}/#/runs/details/{run_id}"

    assert here.get(run_id[:8]) == here.get("latest") == here.get(raw["display_name"]) == done
    assert [one.id for one in here.list()] == [run_id]
    assert here.list(state="failed") == []
    with pytest.raises(StateError, match="there is no run 'nothing'"):
        here.get("nothing")
    with pytest.raises(StateError, match="there is no run"):
        here.get("00000000-0000-0000-0000-000000000000")


def test_a_branch_that_is_not_taken_and_a_task_that_is_not_reached(
    server: KfpServer, tmp_path: Path
) -> None:
    here = runner(server.url)
    run_id = here.submit(request(package(tmp_path)), ignore)
    server.finish(run_id, skipped=["condition-1"])
    states = {task.name: task.state for task in here.get(run_id).tasks}
    assert states["condition-1"] == states["condition-1.announce"] == "skipped"
    assert states["evaluate"] == "succeeded"


def test_a_failed_run_shows_the_log_of_its_task(server: KfpServer, tmp_path: Path) -> None:
    here = runner(server.url)
    run_id = here.submit(request(package(tmp_path)), ignore)
    server.advance(run_id, {"prepare": "SUCCEEDED", "evaluate": "RUNNING"})
    server.write_log(run_id, "evaluate", "one\nTraceback: no data\n")
    server.finish(run_id, "FAILED", failed=["evaluate"])
    done = here.get(run_id)
    assert done.state == "failed"
    assert [task.name for task in done.failures()] == ["evaluate"]
    assert list(here.logs(run_id, "evaluate"))[-1] == ("evaluate", "Traceback: no data")
    with pytest.raises(StateError, match="did you mean 'evaluate'"):
        list(here.logs(run_id, "evaluat"))
    ((_, line),) = here.logs(run_id, "prepare")
    assert "cannot be read" in line

    before = len(server.store.runs)
    here._sleep = lambda s: server.finish(run_id)
    assert here.resume(run_id, ignore).state == "succeeded"
    assert len(server.store.runs) == before
    with pytest.raises(StateError, match="only a failed run can be retried"):
        here.resume(run_id, ignore)


def test_a_terminated_run_is_canceled(server: KfpServer, tmp_path: Path) -> None:
    here = runner(server.url)
    run_id = here.submit(request(package(tmp_path)), ignore)
    server.advance(run_id, {"prepare": "RUNNING"})
    here._sleep = lambda s: server.finish(run_id, "FAILED")
    done = here.terminate(run_id)
    assert done.state == "canceled"
    assert {task.name: task.state for task in done.tasks}["prepare"] == "canceled"
    assert [one.id for one in here.list(state="canceled")] == [run_id]
    assert here.list(state="failed") == []
    with pytest.raises(StateError, match="has ended: canceled"):
        here.terminate(run_id)


@pytest.mark.parametrize("answer", [True, False, None])
def test_ctrl_c_asks_what_is_to_become_of_the_run(
    server: KfpServer, tmp_path: Path, answer: bool | None
) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    ask = None if answer is None else (lambda run: answer)
    here = runner(server.url, sleep=stop, ask=ask)
    run_id = here.submit(request(package(tmp_path)), ignore)
    server.advance(run_id)
    with pytest.raises(Interrupted) as stopped:
        here.wait(run_id, ignore)
    said = "is being terminated" if answer else f"ctflow runs wait {run_id}"
    assert said in str(stopped.value)
    assert server.store.runs[run_id]["state"] == ("CANCELING" if answer else "RUNNING")


def test_a_wait_ends_in_time(server: KfpServer, tmp_path: Path) -> None:
    here = runner(server.url, timeout=0.0)
    run_id = here.submit(request(package(tmp_path)), ignore)
    with pytest.raises(OutsideError, match="has not ended after 0 s; it goes on"):
        here.wait(run_id, ignore)


def test_the_server_is_away_while_a_run_is_watched(server: KfpServer, tmp_path: Path) -> None:
    seen: list[Event] = []
    with proxy(server.url) as between:
        here = runner(between.url)
        run_id = here.submit(request(package(tmp_path)), ignore)
        start = len(between.calls)
        between.fault = lambda n, method, path: "502" if n < start + 12 else None
        server.finish(run_id)
        assert here.wait(run_id, seen.append).state == "succeeded"
    assert any("answered 502; asking again" in one.text for one in seen)


@pytest.mark.parametrize("kind", [*KINDS, "401"])
def test_a_run_starts_once_whatever_breaks(server: KfpServer, tmp_path: Path, kind: str) -> None:
    made = package(tmp_path)
    for broken in range(6):
        for kept in (server.store.pipelines, server.store.versions, server.store.runs):
            kept.clear()
        with proxy(server.url) as between:
            between.fault = only(broken, kind)
            here = runner(between.url)
            if kind in ("html", "401"):
                with pytest.raises(ApiError, match=r"login|401"):
                    here.submit(request(made), ignore)
                assert server.store.runs == {}
            run_id = here.submit(request(made), ignore)
            assert set(server.store.runs) == {run_id}
        assert (len(server.store.pipelines), len(server.store.versions)) == (1, 1)
        assert len(server.store.runs) == 1


def test_parameters_are_checked_before_anything_is_sent(server: KfpServer, tmp_path: Path) -> None:
    made = package(tmp_path)
    for given, said in (
        ({"rows": 2**53 + 1}, "parameter rows: 9007199254740993 is beyond 2^53"),
        ({"rows": "1.5"}, "parameter rows"),
        ({"nothing": 1}, "the pipeline has no parameter 'nothing'"),
    ):
        with pytest.raises(ConfigError) as refused:
            runner(server.url).submit(request(made, **given), ignore)
        assert said in str(refused.value)
    assert server.requests == []


def test_without_the_cache_the_run_carries_its_own_package(
    server: KfpServer, tmp_path: Path
) -> None:
    here = runner(server.url)
    run_id = here.submit(replace(request(package(tmp_path)), caching=False), ignore)
    spec = server.store.runs[run_id]["pipeline_spec"]
    spec = spec.get("pipeline_spec", spec)
    cached = [
        task["cachingOptions"]["enableCache"] for task in spec["root"]["dag"]["tasks"].values()
    ]
    assert cached
    assert not any(cached)
    server.finish(run_id)
    assert here.get(run_id).task("evaluate") is not None


def test_more_runs_than_a_page_has(server: KfpServer, tmp_path: Path) -> None:
    here = runner(server.url)
    first = here.submit(request(package(tmp_path)), ignore)
    raw = server.store.runs[first]
    for number in range(450):
        run_id = f"{number:08d}-0000-0000-0000-000000000000"
        server.store.runs[run_id] = {**raw, "run_id": run_id, "display_name": f"run {number}"}
    assert len(here.list(limit=451)) == 451
    assert len(here.list(limit=7)) == 7
    assert here.get("00000449").name == "run 449"


def test_an_archived_experiment_takes_no_runs(server: KfpServer, tmp_path: Path) -> None:
    made = kfp(server.url).ensure_experiment("trials")
    kfp(server.url).api.call("POST", f"/apis/v2beta1/experiments/{made['experiment_id']}:archive")
    with pytest.raises(StateError, match="experiment 'trials' is archived"):
        runner(server.url).submit(request(package(tmp_path)), ignore)
    assert server.store.runs == {}


def recorded(name: str) -> dict[str, Any]:
    """What a real server answered."""
    (found,) = [one for one in exchanges().values() if one["name"] == name]
    answer: dict[str, Any] = full(found["answer"])
    return answer


def test_runs_of_a_real_server_are_read(tmp_path: Path) -> None:
    demo, _ = load(Path(package(tmp_path).path))
    done = run_of(recorded("run-get-succeeded"), "tiny", demo, "")
    assert (done.state, done.pipeline, done.commit) == ("succeeded", "demo", None)
    assert done.ended is not None
    assert done.ended > done.created
    tasks = {task.name: task for task in done.tasks}
    assert set(tasks) == {"prepare", "evaluate", "condition-1", "condition-1.announce"}
    for task in tasks.values():
        assert task.state == "succeeded", task
        assert task.started is not None
        assert task.ended is not None
    # The pod whose log the recordings ask for.
    (log,) = [one for one in exchanges().values() if one["name"] == "log-pod-finished"]
    assert f"/{tasks['evaluate'].log}/" in log["path"] or f"/{tasks['prepare'].log}/" in log["path"]

    slow, _ = load(Path(package(tmp_path, FOLDER / "slow.yaml").path))
    going = run_of(recorded("run-get-canceling"), "tiny", slow, "")
    assert (going.state, going.ended) == ("running", None)
    ended = run_of(recorded("run-get-after-terminate"), "tiny", slow, "")
    assert ended.state == "canceled"
    assert [task.state for task in ended.tasks] == ["canceled"]
    failed = run_of(recorded("run-get-failed"), "tiny", slow, "")
    assert failed.state == "failed"
    assert [task.name for task in failed.failures()] == ["slow"]
    # Without its package the tasks have KFP's names.
    plain = run_of(recorded("run-get-succeeded"), "tiny", None, "")
    assert {task.name for task in plain.tasks} == {
        "prepare", "evaluate", "condition-1", "announce",
    }  # fmt: skip


def test_runs_of_the_plain_client_are_read(server: KfpServer, tmp_path: Path) -> None:
    import kfp as sdk

    client = sdk.Client(host=server.url)
    experiment = client.create_experiment("trials")
    pipeline = client.upload_pipeline(str(DEMO), pipeline_name="other")
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    made = client.run_pipeline(
        experiment.experiment_id, "by hand", pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id, params=PARAMETERS,
    )  # fmt: skip
    server.finish(made.run_id)
    here = runner(server.url)
    found = here.get("by hand")
    assert (found.id, found.state, found.commit, found.package) == (
        made.run_id, "succeeded", None, "",
    )  # fmt: skip
    assert found.task("condition-1.announce") is not None
    # And the other way round.
    mine = here.submit(request(package(tmp_path)), ignore)
    assert {one.run_id for one in client.list_runs().runs} == {made.run_id, mine}
    assert client.get_run(mine).experiment_id == experiment.experiment_id


# -- the command line -----------------------------------------------------------------------------

PIPELINE = """\
from kfp import dsl


@dsl.container_component
def train(rate: float, model: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(
        image="registry.example/train@sha256:{digest}", command=["train"], args=[model.path, rate]
    )


@dsl.pipeline(name="tiny")
def tiny(rate: float = 0.5, ctflow_commit: str = ""):
    train(rate=rate)
""".format(digest="a" * 64)


@pytest.fixture
def project(tmp_path: Path, server: KfpServer) -> TinyProject:
    made = TinyProject(tmp_path, remote=False)
    shutil.rmtree(made.folder / "steps")
    made.write("pipeline.py", PIPELINE)
    made.write(
        "ctflow.yaml",
        "project: tiny\npipeline: pipeline.py:tiny\nrunner: kubeflow\n"
        f"images: {{registry: localhost:1/tiny}}\nkubeflow: {{host: '{server.url}'}}\n",
    )
    made.commit("On a cluster")
    return made


def test_from_the_command_line(server: KfpServer, project: TinyProject) -> None:
    sha = git(project.folder, "rev-parse", "HEAD")
    assert "would upload" in project.ok("upload", "--dry-run")
    assert server.store.pipelines == {}
    assert project.json("upload")["uploaded"]
    (version,) = server.store.versions.values()
    assert version["name"] == sha
    assert version["description"].startswith("On a cluster\n")
    assert "unchanged" in project.ok("upload")

    said = project.ok("run", "--no-wait", "-p", "rate=0.25")
    (run_id,) = server.store.runs
    assert f"follow it with `ctflow runs wait {run_id}`" in said
    sent = server.store.runs[run_id]["runtime_config"]["parameters"]
    assert sent == {"rate": 0.25, "ctflow_commit": sha}
    server.advance(run_id, {"train": "RUNNING"})
    server.write_log(run_id, "train", "epoch 1\nno memory\n")
    assert "train  running" in project.ok("runs", "show", run_id)
    assert project.ok("runs", "open", "--print").strip().endswith(run_id)
    server.finish(run_id, "FAILED", failed=["train"])
    failed = project.call("runs", "wait", run_id)
    assert failed.returncode == 4
    assert "task train failed" in failed.stderr
    assert "no memory" in failed.stderr
    assert project.ok("runs", "logs", run_id, "train") == "epoch 1\nno memory\n"
    assert project.json("runs", "list")[0]["state"] == "failed"

    assert "--no-wait goes with Kubeflow Pipelines" in project.fails(
        2, "run", "--on", "local", "--no-wait"
    )
    assert "--engine goes with local runs" in project.fails(2, "run", "--engine", "podman")
    secret = project.fails(2, "upload", "--set", "kubeflow.auth.token_env=eyJhbGciOi.JIUzI1NiJ9.x")
    assert "never the value itself" in secret
    assert "eyJhbGciOi" not in secret


def test_credentials_are_not_printed(server: KfpServer, project: TinyProject) -> None:
    project.env["KFP_TOKEN"] = "token-of-a-person"
    project.edit("ctflow.yaml", "'}\n", "', auth: {token_env: KFP_TOKEN}}\n")
    project.commit("with a token")
    done = project.call("upload", "-v")
    assert done.returncode == 0, done.stderr
    assert "token-of-a-person" not in done.stdout + done.stderr
    project.env["KFP_TOKEN"] = ""
    assert "the environment variable KFP_TOKEN is not set" in project.fails(2, "upload")
