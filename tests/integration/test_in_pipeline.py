"""Gate and promotion as tasks of the pipeline: by the embedded runner, and as a pod runs them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.object_servers import S3_ENVIRON, s3_client, s3_server
from tests.projects import TinyProject, git

IN_PIPELINE = """\
    evaluated = evaluate(fault=fault, model=trained.outputs["model"])
    judged = components.gate(
        {
            "train.model": trained.outputs["model"],
            "evaluate.metrics": evaluated.outputs["metrics"],
            "evaluate.predictions": evaluated.outputs["predictions"],
        },
        commit=ctflow_commit,
        package=ctflow_package,
        parameters={"skill": skill},
        repository=REPOSITORY,
        golden=False,
    )
    with dsl.If(judged.outputs["decision"] == "promote"):
        components.promote(judged.outputs["evidence"], repository=REPOSITORY)
"""


def gated(project: TinyProject) -> TinyProject:
    """The project with its gate in the pipeline, pushed."""
    project.edit("pipeline.py", "from kfp import dsl", "from ctflow import components\n"
                 f"from kfp import dsl\n\nREPOSITORY = {str(project.bare)!r}")  # fmt: skip
    project.edit("pipeline.py", "size: int = 0):\n    trained",
                 "size: int = 0,\n         ctflow_commit: str = '', ctflow_package: str = ''):\n"
                 "    trained")  # fmt: skip
    project.edit(
        "pipeline.py", '    evaluate(fault=fault, model=trained.outputs["model"])\n', IN_PIPELINE
    )
    project.commit("gate in the pipeline")
    project.push()
    return project


def test_the_pipeline_judges_and_proposes_on_one_machine(tmp_path: Path) -> None:
    project = gated(TinyProject(tmp_path))
    run = project.json("run")
    tasks = {task["name"]: task["state"] for task in run["tasks"]}
    assert tasks["gate"] == tasks["condition-1.promote"] == "succeeded"
    assert run["parameters"]["ctflow_commit"] == git(project.folder, "rev-parse", "HEAD")
    assert run["parameters"]["ctflow_package"] == run["package"]
    project.approve()
    release = yaml.safe_load(git(project.bare, "show", "master:deploy/staging/release.yaml"))
    assert release["package"] == run["package"]
    assert release["commit"] == run["parameters"]["ctflow_commit"]
    assert set(release["images"]) == {"train", "evaluate"}

    # A worse model is a run that succeeded, and nothing more.
    git(project.folder, "pull", "-q", "--ff-only", "origin", "master")
    worse = project.json("run", "-p", "skill=0.7")
    tasks = {task["name"]: task["state"] for task in worse["tasks"]}
    assert (tasks["gate"], tasks["condition-1"]) == ("succeeded", "skipped")
    assert worse["state"] == "succeeded"
    assert project.proposed() == "none"
    done = project.call("ct", "-p", "skill=0.7")
    assert done.returncode == 3, done.stderr
    # What the tasks left is not judged or proposed a second time. The champion's predictions are
    # those that the task before kept: the same code made them.
    better = project.ok("ct", "-p", "skill=0.95")
    assert "+0.150 over champion" in better
    assert "proposed already" in better


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


class Pod:
    """Calls ``ctflow task`` as a pod does: with files, variables and a clone of its own."""

    def __init__(self, base: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in S3_ENVIRON.items():
            monkeypatch.setenv(name, value)
        bucket = f"models-{uuid.uuid4().hex[:12]}"
        self.client: Any = s3_client(server)
        self.client.create_bucket(Bucket=bucket)
        self.bucket, self.base = bucket, base
        self.project = TinyProject(base)
        store = f"store: {{models: 's3://{bucket}/tiny', endpoint: '{server}'}}\n"
        self.project.edit("ctflow.yaml", "environments:\n", f"{store}environments:\n")
        self.commit = self.project.commit("models in a bucket")
        self.project.push()

    def gate(self, run: str, skill: float, *words: str, code: int = 0) -> str:
        """Judge a model of a skill; what the task printed."""
        folder = self.base / run
        folder.mkdir()
        (folder / "model").mkdir()
        (folder / "model" / "skill").write_text(str(skill))
        rows = [f"e{i},{i % 2},{i % 2 if i < skill * 400 else 1 - i % 2}\n" for i in range(400)]
        (folder / "predictions").write_text("id,label,prediction\n" + "".join(rows))
        outputs = [
            ["train.model", "system.Model", "", str(folder / "model"), "s3://x/model", "{}"],
            ["evaluate.metrics", "system.Metrics", "sha256:" + "1" * 64, str(folder / "none"), "",
             json.dumps({"accuracy": skill})],
            ["evaluate.predictions", "system.Dataset", "sha256:" + "1" * 64,
             str(folder / "predictions"), "s3://x/predictions", ""],
        ]  # fmt: skip
        done = self.project.call(
            "task", "gate", "--run", run, "--pipeline", f"tiny-{run}", "--created",
            "2026-11-28T06:00:00Z", "--repository", str(self.project.bare), "--commit",
            self.commit, "--package", "sha256:" + "2" * 64, "--parameters", '{"skill": 1}',
            "--images", '{"train": "r/train@sha256:' + "3" * 64 + '"}', "--no-golden",
            "--decision", str(folder / "out" / "decision"), "--evidence", str(folder / "evidence"),
            *(word for output in outputs for word in ("--output", *output)), *words,
            cwd=self.base,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def decision(self, run: str) -> str:
        return (self.base / run / "out" / "decision").read_text()

    def promote(self, run: str) -> dict[str, Any]:
        done = self.project.call(
            "task", "promote", "--repository", str(self.project.bare), "--evidence",
            str(self.base / run / "evidence"), "--promotion", str(self.base / run / "promotion"),
            cwd=self.base,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads((self.base / run / "promotion").read_text())
        return found


@pytest.fixture
def pod(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path, server, monkeypatch)


def test_pods_judge_and_propose(pod: Pod) -> None:
    said = pod.gate("run-1", 0.8)
    assert "no champion yet" in said
    assert "the golden requests were not tried: no model is started here" in said
    assert pod.decision("run-1") == "promote"
    first = pod.promote("run-1")
    assert first["state"] == "open"
    # A task that is tried again ends in the same state.
    assert pod.promote("run-1")["commit"] == first["commit"]
    pod.project.approve()

    pod.gate("run-2", 0.7)
    assert pod.decision("run-2") in ("hold", "reject")
    assert "+0.150 over champion" in pod.gate("run-3", 0.95)
    assert pod.decision("run-3") == "promote"

    # From any other machine: neither the run's record nor its files, only git and the store.
    shutil.rmtree(pod.base / "run-3")
    other = pod.project.clone("other")
    other.env["CTFLOW_CACHE"] = str(pod.base / "other-cache")
    assert "proposed as" in other.ok("promote", "run-3")
    other.approve()
    release = yaml.safe_load(git(other.bare, "show", "master:deploy/staging/release.yaml"))
    assert release["run"] == "run-3"
    assert release["pipeline"] == "tiny"
    assert release["model"]["uri"].startswith(f"s3://{pod.bucket}/tiny/sha256-")
    assert release["images"] == {"train": "r/train@sha256:" + "3" * 64}


def test_what_a_pod_is_not_told_is_said(pod: Pod) -> None:
    gone = pod.gate("run-a", 0.9, "--commit", "0" * 40, code=2)
    assert "the repository has no commit 000000000000" in gone
    assert "give the pipeline a parameter `ctflow_commit" in pod.gate(
        "run-b", 0.9, "--commit", "", code=2
    )
    assert "does not know the project's repository" in pod.gate(
        "run-c", 0.9, "--repository", "", code=2
    )
    assert "is not in the repository" in pod.gate("run-d", 0.9, "--folder", "../..", code=2)
    pod.project.edit("ctflow.yaml", "models: 's3://", "models: './x/s3:/")
    pod.commit = pod.project.commit("models in a folder")
    pod.project.push()
    assert "the model store is a folder" in pod.gate("run-e", 0.9, code=2)


def test_a_damaged_document_proposes_nothing(pod: Pod) -> None:
    pod.gate("run-1", 0.8)
    key = next(
        one["Key"]
        for one in pod.client.list_objects_v2(Bucket=pod.bucket)["Contents"]
        if "/evidence/" in one["Key"]
    )
    assert key == "tiny/evidence/run-1/staging.json"
    pod.client.put_object(Bucket=pod.bucket, Key=key, Body=b"{")
    assert "is not JSON" in pod.project.fails(2, "promote", "run-1")
    body = (pod.base / "run-1" / "evidence").read_bytes().replace(b'"run-1"', b'"run-2"')
    pod.client.put_object(Bucket=pod.bucket, Key=key, Body=body)
    assert "is another run's" in pod.project.fails(2, "promote", "run-1")


def test_a_token_is_in_no_file_and_no_command_line() -> None:
    from ctflow.lib.secrets import KNOWN
    from ctflow.scm.checkout import use_login

    variables = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}
    use_login("https://forge.example/acme/digits.git", "token-of-a-person", variables)
    assert variables["GIT_CONFIG_COUNT"] == "2"
    assert variables["GIT_CONFIG_KEY_1"] == "http.https://forge.example/.extraHeader"
    assert KNOWN.mask(variables["GIT_CONFIG_VALUE_1"]) == "Authorization: Basic ***"
    plain: dict[str, str] = {}
    use_login("git@forge.example:acme/digits.git", "token-of-a-person", plain)
    assert "GIT_CONFIG_COUNT" not in plain
