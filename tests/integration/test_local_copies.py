"""`ctflow cache` and the local copies of models in a bucket: what nothing needs goes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctflow.lib.digests import hexadecimal
from ctflow.ports import state_places
from ctflow.serving.local.layout import Place, Served, State
from ctflow.stores.local_copies import LocalCopies
from ctflow.stores.object_store import ObjectStore, open_store
from tests.contracts.test_model_store import KEY, a_model, some_predictions
from tests.object_servers import S3_ENVIRON, s3_client, s3_server
from tests.projects import TinyProject

HOUR = 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


class World:
    """A bucket with a model, and a user's cache folder that several projects share."""

    def __init__(self, base: Path, address: str) -> None:
        self.base, self.address = base, address
        bucket = f"models-{uuid.uuid4().hex[:12]}"
        s3_client(address).create_bucket(Bucket=bucket)
        self.url = f"s3://{bucket}/team"
        model = a_model(base)
        self.digest = model.digest
        self.store("seed").put(model, "sklearn")
        gc.collect()

    def store(self, cache: str = "cache", project: str | None = None) -> ObjectStore:
        state = None if project is None else self.state(project)
        return open_store(self.url, self.address, self.base / cache, project=state)

    def state(self, project: str) -> Path:
        return self.base / project / ".ctflow"

    def copies(self, project: str | None = None) -> LocalCopies:
        state = None if project is None else self.state(project)
        return LocalCopies(self.base / "cache" / "models", state)

    def fetched(self, project: str | None = None) -> Path:
        """As a process that has ended since fetched it."""
        place = self.store(project=project).fetch(self.digest)
        gc.collect()  # its locks end with the store
        return place

    def deployed(self, project: str) -> Path:
        """A local server of the project serves it; the file that says so."""
        place = state_places(self.state(project))["serving"] / "staging"
        place.mkdir(parents=True)
        served = Served("k", "digits", self.digest, "/m", "/c", "p.py", "g.json", "c" * 40)
        Place(place).write(State(project="digits", port=1, current=served))
        return place / "state.json"


@pytest.fixture
def world(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in S3_ENVIRON.items():
        monkeypatch.setenv(name, value)
    return World(tmp_path, server)


def test_a_copy_that_nothing_needs_is_removed_and_fetched_again(world: World) -> None:
    place = world.fetched()
    (one,) = world.copies().entries()
    assert one.digest == hexadecimal(world.digest)
    assert Path(one.path) == place.parent
    assert one.size == sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    assert abs(time.time() - one.used) < HOUR
    assert world.copies().prune(dry_run=True) == [one]
    assert place.exists()
    assert world.copies().prune() == [one]
    assert not place.parent.exists()
    assert world.copies().entries() == []
    assert world.fetched() == place


def test_what_a_process_needs_stays_until_it_ends(world: World) -> None:
    code = (
        "import sys; from pathlib import Path; from ctflow.stores.object_store import open_store\n"
        "store = open_store(*sys.argv[1:3], Path(sys.argv[3])); print(store.fetch(sys.argv[4]))\n"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, world.url, world.address,
             str(world.base / "cache"), world.digest]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        place = Path(other.stdout.readline().strip())
        assert place.exists()
        assert world.copies().prune() == []
        assert place.exists()
        other.communicate()
    assert len(world.copies().prune()) == 1
    assert not place.exists()


def test_what_a_local_server_of_any_project_reads_stays(world: World) -> None:
    place = world.fetched("one")
    state = world.deployed("one")
    for who in (None, "another"):
        assert world.copies(who).prune() == []
    assert place.exists()
    state.unlink()
    assert len(world.copies("another").prune()) == 1


def test_only_what_was_not_used_for_a_time(world: World) -> None:
    world.fetched()
    assert world.copies().prune(HOUR) == []
    past = time.time() - 2 * HOUR
    for place in (world.base / "cache/models").glob("**/*"):
        os.utime(place, (past, past), follow_symlinks=False)
    assert len(world.copies().prune(HOUR, dry_run=True)) == 1  # which is no use of it
    assert world.copies().entries()[0].used == pytest.approx(past, abs=2)
    world.fetched()
    assert world.copies().prune(HOUR) == []


def test_predictions_go_with_their_model(world: World) -> None:
    store = world.store("seed")
    store.put_predictions(KEY, some_predictions(world.base / "predictions.csv"))
    found = world.store().fetch_predictions(KEY)
    assert found is not None
    gc.collect()
    (one,) = world.copies().entries()
    assert one.digest == hexadecimal(KEY.model)
    assert one.size == found[0].stat().st_size
    assert world.copies().prune() == [one]
    assert not found[0].exists()


def test_at_the_command_line(world: World) -> None:
    project = TinyProject(world.base, remote=False)
    project.env["CTFLOW_CACHE"] = str(world.base / "cache")
    place = world.fetched()
    text = project.ok("cache", "list")
    assert hexadecimal(world.digest)[:12] in text
    assert "copy of a model in a bucket" in text
    assert "0 environments, 1 model, 0 step snapshots, " in text
    found = project.json("cache", "prune", "--dry-run")
    assert [one["digest"] for one in found["models"]] == [hexadecimal(world.digest)]
    assert found["bytes"] == found["models"][0]["size"]
    assert place.exists()
    assert project.ok("cache", "prune").splitlines()[-1].startswith("removed 0 environments, 1 m")
    assert not place.exists()
