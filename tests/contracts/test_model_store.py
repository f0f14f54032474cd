"""What every model store must do: content by its digest, complete or absent, whoever writes."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow.errors import OutsideError, StateError
from ctflow.lib.digests import digest_file, digest_path, hexadecimal
from ctflow.model import Artifact, ModelRef, PredictionsKey
from tests.contracts.model_stores import StoreWorld

ABSENT = "sha256:" + "0" * 64
FILES = {
    "model.joblib": b"weights",
    "deep/er/vocabulary.txt": b"a\nb\n",
    "an odd name [1] #2 100%?~.bin": b"odd",
    "ünïcode": "ü".encode(),
    "empty": b"",
}


def a_model(folder: Path, files: dict[str, bytes] | None = None, name: str = "model") -> Artifact:
    """A run's model: a folder with these files."""
    place = folder / "run" / name
    for path, data in (FILES if files is None else files).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    digest, size = digest_path(place)
    return Artifact("model", "system.Model", str(place), digest, size)


def a_file(folder: Path, data: bytes = b"weights", name: str = "model.onnx") -> Artifact:
    """A run's model that is one file."""
    place = folder / "run" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    digest, size = digest_file(place)
    return Artifact("model", "system.Model", str(place), digest, size)


def entry(digest: str) -> str:
    return f"sha256-{hexadecimal(digest)}"


def test_a_model_comes_back_as_it_was(world: StoreWorld, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    kept = world.machine().put(artifact, "sklearn")
    assert (kept.digest, kept.size, kept.format) == (artifact.digest, artifact.size, "sklearn")
    place = world.machine().fetch(kept.digest)
    assert place.name == "model"
    found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert found == FILES


def test_a_model_may_be_one_file(world: StoreWorld, tmp_path: Path) -> None:
    for data in (b"weights", b""):
        artifact = a_file(tmp_path, data)
        kept = world.machine().put(artifact, "onnx")
        place = world.machine().fetch(kept.digest)
        assert (place.name, place.read_bytes()) == ("model.onnx", data)
        assert kept.uri.endswith(f"/{entry(artifact.digest)}/model.onnx")


def test_the_uri_is_the_content_and_what_lies_below_it_are_the_files_only(
    world: StoreWorld, tmp_path: Path
) -> None:
    kept = world.machine().put(a_model(tmp_path), "sklearn")
    below = f"{entry(kept.digest)}/model/"
    assert kept.uri.endswith(f"/{below.rstrip('/')}")
    found = {
        path.removeprefix(below): data
        for path, data in world.contents().items()
        if path.startswith(entry(kept.digest))
    }
    assert found == FILES


def test_the_same_content_is_kept_once(world: StoreWorld, tmp_path: Path) -> None:
    first = world.machine().put(a_model(tmp_path / "a"), "sklearn")
    before = world.contents()
    assert world.machine().put(a_model(tmp_path / "b"), "sklearn") == first
    # Under another name too: the name is no part of the content.
    assert world.machine().put(a_model(tmp_path / "c", name="other"), "sklearn") == first
    assert world.contents() == before


def test_a_model_that_changed_after_its_run_is_refused(world: StoreWorld, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    (Path(artifact.uri) / "model.joblib").write_text("tampered")
    with pytest.raises(StateError, match="changed after its run"):
        world.machine().put(artifact, "sklearn")
    with pytest.raises(StateError, match="is gone"):
        world.machine().put(replace(artifact, uri=str(tmp_path / "nothing")), "sklearn")
    assert not world.machine().has(artifact.digest)


def test_what_is_not_there_is_said_to_be_not_there(world: StoreWorld, tmp_path: Path) -> None:
    store = world.machine()
    store.check()
    assert not store.has(ABSENT)
    with pytest.raises(OutsideError, match=f"has no model {ABSENT}") as caught:
        store.fetch(ABSENT)
    assert "\n" not in str(caught.value)
    kept = store.put(a_model(tmp_path), "sklearn")
    assert store.has(kept.digest)
    assert world.machine().has(kept.digest)


def test_what_is_damaged_is_never_handed_out(world: StoreWorld, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    world.machine().put(artifact, "sklearn")
    path = f"{entry(artifact.digest)}/model/model.joblib"
    world.overwrite(path, b"Weights")
    with pytest.raises(OutsideError, match="damaged") as caught:
        world.machine().fetch(artifact.digest)
    assert "promote its run again" in caught.value.next
    # What the message says to do makes it good.
    world.remove(entry(artifact.digest) if "folder" in caught.value.next else path)
    world.machine().put(artifact, "sklearn")
    assert digest_path(world.machine().fetch(artifact.digest))[0] == artifact.digest


@pytest.mark.parametrize("cut", [None, b"", b"weight"])
def test_what_is_missing_or_cut_short_is_not_handed_out_and_putting_it_again_completes_it(
    world: StoreWorld, tmp_path: Path, cut: bytes | None
) -> None:
    artifact = a_model(tmp_path)
    world.machine().put(artifact, "sklearn")
    path = f"{entry(artifact.digest)}/model/model.joblib"
    if cut is None:
        world.remove(path)
    else:
        world.overwrite(path, cut)
    with pytest.raises(OutsideError, match=r"damaged|is missing|is cut short"):
        world.machine().fetch(artifact.digest)
    world.machine().put(artifact, "sklearn")
    assert digest_path(world.machine().fetch(artifact.digest))[0] == artifact.digest


def test_two_writers_of_one_model_at_once_do_not_harm_it(world: StoreWorld, tmp_path: Path) -> None:
    artifacts = [a_model(tmp_path / str(n), name=f"model-{n % 2}") for n in range(4)]
    start = threading.Barrier(len(artifacts))
    found: list[ModelRef | BaseException] = []

    def write(artifact: Artifact) -> None:
        store = world.machine()
        start.wait()
        try:
            found.append(store.put(artifact, "sklearn"))
        except BaseException as error:  # noqa: BLE001 (shown by the assertion)
            found.append(error)

    threads = [threading.Thread(target=write, args=(one,)) for one in artifacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1, found
    digest = artifacts[0].digest
    assert digest_path(world.machine().fetch(digest))[0] == digest


def test_two_readers_at_once_get_the_whole(world: StoreWorld, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    store = world.machine()
    store.put(artifact, "sklearn")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(digest_path(store.fetch(artifact.digest))[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [artifact.digest] * 4


def test_a_writer_that_is_killed_leaves_nothing_half_and_the_next_one_completes_it(
    world: StoreWorld, tmp_path: Path
) -> None:
    artifact = a_model(tmp_path, {"a": b"a" * 100, "b": b"b" * (9 << 20), "c": b"c"})
    program = Path(__file__).with_name("killed_put.py")
    killed = 0
    while True:
        done = subprocess.run(
            [sys.executable, str(program), str(killed + 1), artifact.uri, artifact.digest,
             *world.words],
            capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        # Nothing, for a file of it is read at least once more when all of it was checked.
        assert not world.machine().has(artifact.digest)
        with pytest.raises(OutsideError, match="has no model"):
            world.machine().fetch(artifact.digest)
    assert killed >= 4
    assert digest_path(world.machine().fetch(artifact.digest))[0] == artifact.digest


KEY = PredictionsKey(ABSENT, "evaluate.predictions", ABSENT, "sha256:" + "e" * 64)


def some_predictions(place: Path, answer: str = "a") -> Path:
    place.write_text(f"id,label,prediction\n1,a,{answer}\n")
    return place


def test_predictions_are_stored_by_all_that_they_depend_on(
    world: StoreWorld, tmp_path: Path
) -> None:
    store = world.machine()
    plain = some_predictions(tmp_path / "p.csv")
    assert store.fetch_predictions(KEY) is None
    uri, digest = store.put_predictions(KEY, plain)
    assert (uri, digest) == store.put_predictions(KEY, plain)
    assert uri.endswith(f"/{hexadecimal(digest)}.gz")
    kept = world.machine().fetch_predictions(KEY)
    assert kept is not None
    assert gzip.decompress(kept[0].read_bytes()) == plain.read_bytes()
    assert (kept[0].name, kept[1]) == (f"{hexadecimal(digest)}.gz", digest)
    for changed in (
        {"model": "sha256:" + "c" * 64},
        {"output": "evaluate.noisy"},
        {"evaluation_set": "sha256:" + "b" * 64},
        {"made": ""},
    ):
        other = replace(KEY, **changed)
        assert store.fetch_predictions(other) is None
        _, theirs = store.put_predictions(other, some_predictions(tmp_path / "q.csv", "b"))
        assert theirs != digest
    assert world.machine().fetch_predictions(KEY) is not None
    # Packed already, or the only file of a folder: the same.
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "p.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert store.put_predictions(KEY, tmp_path / "packed") == (uri, digest)
    # The same key again: what is kept last counts, for those that have looked before too.
    _, second = store.put_predictions(KEY, tmp_path / "q.csv")
    again = store.fetch_predictions(KEY)
    assert again is not None
    assert again[1] == second != digest
    assert store.put_predictions(KEY, plain) == (uri, digest)
    assert (store.fetch_predictions(KEY) or ("", ""))[1] == digest


def test_damaged_predictions_are_never_handed_out(world: StoreWorld, tmp_path: Path) -> None:
    uri, digest = world.machine().put_predictions(KEY, some_predictions(tmp_path / "p.csv"))
    path = next(one for one in world.contents() if uri.endswith(f"/{one}"))
    world.overwrite(path, world.contents()[path][:-1] + b"x")
    with pytest.raises(OutsideError, match="damaged"):
        world.machine().fetch_predictions(KEY)
    world.remove(path)
    assert world.machine().put_predictions(KEY, tmp_path / "p.csv") == (uri, digest)
    assert world.machine().fetch_predictions(KEY) is not None
