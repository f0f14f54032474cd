"""`ctflow ct` and the verbs on runs with `runner: kubeflow`: gate and promotion as on one machine.

The stand-in for Kubeflow Pipelines is given a small cluster that really runs the packages, with S3
and ML Metadata.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import BUCKET, Cluster
from tests.kfp_server import KfpServer
from tests.mlmd_server import Store, mlmd_server
from tests.object_servers import S3_ENVIRON, s3_client, s3_server
from tests.projects import EVALUATE, PIPELINE, TRAIN, TinyProject, git

IMAGES = {name: f"registry.test/tiny/{name}@sha256:{number * 64}"
          for name, number in (("train", "1"), ("evaluate", "2"))}  # fmt: skip
OTHER = f"registry.test/tiny/evaluate@sha256:{'3' * 64}"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as address:
        yield address


@dataclass
class World:
    """A project that trains on a cluster."""

    project: TinyProject
    cluster: Cluster
    server: KfpServer
    metadata: Store
    s3: Any

    def objects(self, bucket: str = BUCKET) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [one["Key"] for one in found]

    def pull(self) -> None:
        git(self.project.folder, "pull", "-q", "--rebase", "origin", "master")


@pytest.fixture
def world(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in S3_ENVIRON.items():
        monkeypatch.setenv(name, value)
    client = s3_client(s3)
    client.create_bucket(Bucket=BUCKET)
    project = TinyProject(tmp_path)
    shutil.rmtree(project.folder / "steps")
    pipeline = PIPELINE
    programs = {}
    for name, text in (("train", TRAIN), ("evaluate", EVALUATE)):
        pipeline = pipeline.replace(f'ctflow.image("{name}")', f'"{IMAGES[name]}"')
        programs[IMAGES[name]] = tmp_path / "images" / name
        programs[IMAGES[name]].mkdir(parents=True)
        (programs[IMAGES[name]] / "main.py").write_text(text)
    project.write("pipeline.py", pipeline)
    with (
        KfpServer() as server,
        mlmd_server() as (metadata, store),
        Cluster(server, metadata, client, tmp_path / "work", programs) as cluster,
    ):
        said = {
            "host": server.url, "metadata": metadata, "artifacts": {"endpoint": s3},
        }  # fmt: skip
        more = {"runner": "kubeflow", "images": {"builder": "local"}, "kubeflow": said}
        project.edit("ctflow.yaml", "environments:\n", f"{yaml.safe_dump(more)}environments:\n")
        project.commit("on a cluster")
        project.push()
        yield World(project, cluster, server, store, client)
    for key in [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]:
        client.delete_object(Bucket=BUCKET, Key=key)
    client.delete_bucket(Bucket=BUCKET)


def test_ct_on_a_cluster_ends_as_on_one_machine(world: World) -> None:
    project = world.project
    assert "promote" in project.ok("ct")
    project.approve()
    world.pull()
    release = yaml.safe_load((project.folder / "deploy/staging/release.yaml").read_text())
    assert release["metrics"]["accuracy"] == 0.8
    assert release["run"] == world.cluster.begun[0][0]
    assert release["images"] == IMAGES
    assert list(release["data"]) == ["evaluate.predictions"]
    (model,) = (project.state / "models").glob("sha256-*")
    assert model.name == release["model"]["digest"].replace(":", "-")
    assert (model / "model" / "skill").read_text() == "0.8"

    # A better one: the champion's predictions are those that were kept, made in the same way.
    done = project.call("ct", "-p", "skill=0.9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "+0.100 over champion" in done.stdout
    assert "scoring it now" not in done.stdout + done.stderr
    assert [name for _, name in world.cluster.begun] == ["tiny", "tiny"]
    project.approve()
    world.pull()

    # The lists and what they show are as on one machine.
    runs = project.json("runs", "list")
    assert [one["metrics"]["accuracy"] for one in runs] == [0.9, 0.8]
    asked = len(world.metadata.calls)
    assert project.json("runs", "list") == runs
    assert len(world.metadata.calls) == asked  # of runs that have ended nothing is asked again
    shown = project.json("runs", "show", runs[0]["id"])
    evaluated = next(one for one in shown["tasks"] if one["name"] == "evaluate")
    assert evaluated["artifacts"]["metrics"][0]["metadata"] == {"accuracy": 0.9}
    assert shown["metrics"]["evaluate.accuracy"] == 0.9
    difference = project.json("runs", "compare", runs[1]["id"], runs[0]["id"])
    assert difference["metrics"]["accuracy"] == [0.8, 0.9]

    listed = project.json("cache", "list")["artifacts"]
    kept = release["model"]["digest"].removeprefix("sha256:")
    assert kept in [one["digest"] for one in listed]
    pruned = project.json("cache", "prune")["artifacts"]
    assert {one["digest"] for one in pruned} == {one["digest"] for one in listed}

    # A worse one.
    done = project.call("ct", "-p", "skill=0.7")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "over champion" in done.stdout
    assert len(world.cluster.begun) == 3


def test_the_champion_is_scored_again_on_the_cluster(world: World) -> None:
    project, cluster = world.project, world.cluster
    project.ok("ct")
    project.approve()
    world.pull()
    # Another evaluation: 300 examples of another name, in another image.
    project.edit("pipeline.py", IMAGES["evaluate"], OTHER)
    project.commit("another evaluation")
    project.push()
    cluster.programs[OTHER] = world.project.base / "images" / "other"
    cluster.programs[OTHER].mkdir()
    text = EVALUATE.replace("400", "300").replace('f"e{i}', 'f"n{i}')
    (cluster.programs[OTHER] / "main.py").write_text(text)
    done = project.call("ct", "-p", "skill=0.9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "+0.100 over champion" in done.stdout
    first, second, again = cluster.begun
    assert [first[1], second[1], again[1]] == ["tiny", "tiny", "scored-again"]
    assert f"evaluate of run {second[0]} runs again as run {again[0]}" in done.stdout + done.stderr
    run = world.server.store.runs[again[0]]
    experiment = world.server.store.experiments[run["experiment_id"]]
    assert experiment["display_name"] == "tiny-scored-again"
    # The project's own list has the runs that trained only, and the newest is one of them.
    assert [one["id"] for one in project.json("runs", "list")] == [second[0], first[0]]
    # The champion lies where the cluster can read it, once.
    keys = [key for key in world.objects() if "/scored-again/sha256-" in f"/{key}"]
    assert [key.rpartition("/")[2] for key in keys] == ["skill"]
    # What was scored is kept: nothing runs for it another time.
    assert project.call("gate", second[0]).returncode == 0
    assert len(cluster.begun) == 3


def test_a_champion_that_cannot_be_scored_holds_the_challenger(world: World) -> None:
    project, cluster = world.project, world.cluster
    project.ok("ct")
    project.approve()
    world.pull()
    project.edit("pipeline.py", IMAGES["evaluate"], OTHER)
    project.commit("another evaluation")
    project.push()
    cluster.programs[OTHER] = world.project.base / "images" / "other"
    cluster.programs[OTHER].mkdir()
    only = 'sys.exit("no") if skill == 0.8 else None\norder = '
    (cluster.programs[OTHER] / "main.py").write_text(EVALUATE.replace("order = ", only, 1))
    done = project.call("ct", "-p", "skill=0.9")
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"evaluate failed on the other model (run {cluster.begun[2][0]}: failed)" in done.stdout


def test_without_ml_metadata_the_bucket_is_looked_through(world: World) -> None:
    project = world.project
    text = (project.folder / "ctflow.yaml").read_text()
    project.write("ctflow.yaml", re.sub(r"  metadata: .*\n", "", text))
    project.commit("no ML Metadata")
    project.push()
    world.metadata.calls.clear()
    recorded = len(world.metadata.executions)
    done = project.call("ct")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(world.metadata.executions) > recorded
    assert not [call for call in world.metadata.calls if call.startswith("Get")]
    project.approve()
    world.pull()
    # What a task read is not known then: nobody can say that two were scored alike.
    done = project.call("ct", "-p", "skill=0.9")
    assert done.returncode == 3
    assert "it is not on record what evaluate of run" in done.stdout + done.stderr


def test_what_cannot_be_had_is_said_with_the_next_step(world: World) -> None:
    project = world.project
    run = project.json("run")
    assert run["metrics"] == {"accuracy": 0.8, "evaluate.accuracy": 0.8}
    words = ("gate", run["id"], "--set")
    line = project.fails(5, *words, "kubeflow.metadata=127.0.0.1:9")
    assert line.startswith("ML Metadata at 127.0.0.1:9 cannot be reached")
    assert "check kubeflow.metadata" in line
    for key in [one for one in world.objects() if "/model/" in one]:
        world.s3.delete_object(Bucket=BUCKET, Key=key)
    line = project.fails(4, "gate", run["id"])
    assert line.startswith(f"run {run['id']} wrote nothing to train.model")
    # Runs are shown all the same where nothing tells what they wrote.
    shown = project.json("runs", "show", run["id"], "--set", "kubeflow.metadata=127.0.0.1:9")
    assert shown["state"] == "succeeded"
    assert shown["tasks"][0]["artifacts"] == {}


def test_the_bucket_copies_the_model_itself(world: World) -> None:
    project = world.project
    address = world.s3.meta.endpoint_url
    store = f"store: {{models: 's3://{BUCKET}/kept', endpoint: '{address}'}}\n"
    project.edit("ctflow.yaml", "environments:\n", f"{store}environments:\n")
    project.commit("models beside the runs")
    project.push()
    project.ok("ct", "-p", "size=100000")
    project.approve()
    world.pull()
    release = yaml.safe_load((project.folder / "deploy/staging/release.yaml").read_text())
    digest = release["model"]["digest"].removeprefix("sha256:")
    kept = {key for key in world.objects() if key.startswith(f"kept/sha256-{digest}/")}
    assert kept == {f"kept/sha256-{digest}/model/{name}" for name in ("skill", "weights")}
    assert not [key for key in world.objects() if key.endswith(".copy")]
    for name in ("skill", "weights"):
        theirs = world.s3.get_object(
            Bucket=BUCKET, Key=f"v2/artifacts/tiny/{release['run']}/train/0f3a/model/{name}"
        )
        ours = world.s3.get_object(Bucket=BUCKET, Key=f"kept/sha256-{digest}/model/{name}")
        assert ours["Body"].read() == theirs["Body"].read()
