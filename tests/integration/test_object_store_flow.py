"""The verbs with a model store in a bucket: one machine trains, another judges and serves."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.lib.digests import hexadecimal
from tests.object_servers import S3_ENVIRON, s3_client, s3_server
from tests.projects import TinyProject, git


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


class Team:
    """A project whose models are in a bucket, and what its machines know of each other."""

    def __init__(self, base: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket = f"models-{uuid.uuid4().hex[:12]}"
        self.url, self.server = f"s3://{self.bucket}/tiny", server
        self.client: Any = s3_client(server)
        self.client.create_bucket(Bucket=self.bucket)
        for name, value in S3_ENVIRON.items():
            monkeypatch.setenv(name, value)
        self.cache = base / "cache"

        self.project = TinyProject(base)

    def use(self) -> None:
        """Name the bucket in ctflow.yaml."""
        store = f"store: {{models: '{self.url}', endpoint: '{self.server}'}}\n"
        self.project.edit("ctflow.yaml", "environments:\n", f"{store}environments:\n")
        self.project.commit("models in a bucket")
        self.project.push()

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [one["Key"] for one in found]


@pytest.fixture
def team(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Team:
    return Team(tmp_path, server, monkeypatch)


def test_one_machine_trains_and_another_judges_promotes_and_serves(team: Team) -> None:
    team.use()
    project = team.project
    project.ok("ct")
    project.approve()
    git(project.folder, "pull", "-q", "--rebase", "origin", "master")
    release = yaml.safe_load((project.folder / "deploy/staging/release.yaml").read_text())
    digest = hexadecimal(release["model"]["digest"])
    assert release["model"]["uri"] == f"{team.url}/sha256-{digest}/model"
    (predictions,) = release["predictions"]
    assert predictions["uri"].startswith(f"{team.url}/predictions/{digest}/")
    manifest = (project.folder / "deploy/staging/inferenceservice.yaml").read_text()
    assert f"storageUri: {team.url}/sha256-{digest}/model" in manifest.replace('"', "")
    written = "".join(
        path.read_text() for path in (project.folder / "deploy").rglob("*") if path.is_file()
    )
    assert S3_ENVIRON["AWS_SECRET_ACCESS_KEY"] not in written
    assert not (project.state / "models").exists()

    # Another machine: nothing of the first one is left, but git and the bucket.
    shutil.rmtree(project.folder)
    cached = Path(os.environ["XDG_CACHE_HOME"]) / "ctflow" / "models"
    shutil.rmtree(cached)
    other = team.project.clone("other")
    done = other.call("ct", "-p", "skill=0.9")
    assert done.returncode == 0, done.stderr
    assert "+0.100 over champion" in done.stdout
    assert "scoring the champion" not in done.stdout  # its predictions came from the bucket
    try:
        assert "golden 1/1" in other.ok("deploy", "staging")  # the first machine's model
        assert (cached / f"sha256-{digest}" / "model" / "skill").read_text() == "0.8"
        other.approve()
        assert other.json("promote", "latest", "--to", "production")["state"] == "open"
    finally:
        other.ok("deploy", "staging", "--stop")


def test_models_move_between_a_folder_and_a_bucket(team: Team) -> None:
    project = team.project
    project.ok("ct")
    project.approve()
    words = (team.url, "--set", f"store.endpoint={team.server}")
    assert "copied" in project.ok("store", "push", *words)
    keys = team.keys()
    assert sum("/manifests/" in key for key in keys) == 1
    assert "there" in project.ok("store", "push", *words)
    assert team.keys() == keys
    other = project.clone("other")
    (got,) = other.json("store", "pull", *words)
    assert (got["environment"], got["state"]) == ("staging", "copied")
    done = other.call("ct", "-p", "skill=0.9")
    assert done.returncode == 0, done.stderr
    assert "scoring the champion" not in done.stdout


def test_a_store_that_cannot_be_used_is_said_before_the_training(team: Team) -> None:
    team.use()
    project = team.project
    project.edit("ctflow.yaml", team.bucket, "nobody-has-this")
    project.commit("a bucket that is not there")
    project.push()
    line = project.fails(5, "ct")
    assert line.startswith(f"there is no bucket 'nobody-has-this' at {team.server}; create it")
    assert project.json("runs", "list") == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://AKIAKEY:hunter2hunter2@models/x", "the URL holds credentials"),
        ("s3://models/x?AWSAccessKeyId=hunter2hunter2", "the URL holds a query"),
        ("ftp://hunter2hunter2/x", "one of s3://, gs://, az://"),
        ("s3:///hunter2hunter2", "names no bucket"),
    ],
)
def test_urls_with_secrets_are_refused_and_not_repeated(
    team: Team, url: str, expected: str
) -> None:
    project = team.project
    for verb in ("push", "pull"):
        line = project.fails(2, "store", verb, url)
        assert expected in line
        assert "hunter2" not in line
    project.edit("ctflow.yaml", "environments:\n", f"store: {{models: '{url}'}}\nenvironments:\n")
    line = project.fails(2, "status")
    assert expected in line
    assert "ctflow.yaml:8: store.models: " in line
    assert "hunter2" not in line
