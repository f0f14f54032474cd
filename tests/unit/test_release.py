"""Digests, the model store, and a release as files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ctflow.errors import ConfigError, OutsideError, StateError, UsageError
from ctflow.lib.digests import digest_path, hexadecimal, short
from ctflow.model import (
    Artifact,
    Hold,
    ModelRef,
    PredictionsKey,
    PredictionsRef,
    Reason,
    Release,
    Verdict,
    dump,
    from_json,
    iso,
)
from ctflow.release import files as files
from ctflow.release.manifest import render
from ctflow.stores.folder_store import FolderStore

DIGEST = "sha256:" + "a" * 64


def a_release(digest: str = DIGEST, environment: str = "staging") -> Release:
    verdict = Verdict("digits", environment, "r-1", "promote", (Reason("min", "promote", "fine"),))
    return Release(
        "digits", environment, ModelRef(f"file:///m/{digest[7:]}/model", digest, "sklearn"),
        "r-1", "pipeline", "0123456789ab", DIGEST, "0123456789abcdef", 1e9, verdict,
        parameters={"epochs": 30, "rate": 0.1, "name": "ü: x"}, metrics={"accuracy": 0.9},
    )  # fmt: skip


def test_digest_of_a_file_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_path(tmp_path / "f") == (f"sha256:{hashlib.sha256(b'abc').hexdigest()}", 3)


def test_digest_of_a_folder_sees_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    def folder(name: str, content: dict[str, bytes]) -> str:
        for path, data in content.items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return digest_path(tmp_path / name)[0]

    one = folder("one", {"a": b"1", "s/b": b"2"})
    assert one == folder("two", {"s/b": b"2", "a": b"1"})
    (tmp_path / "two" / "empty").mkdir()
    (tmp_path / "two" / "a").chmod(0o600)
    assert one == digest_path(tmp_path / "two")[0]
    assert len({one, folder("3", {"a": b"2", "s/b": b"1"}), folder("4", {"a": b"12", "s/b": b""}),
                folder("5", {"as/b": b"2", "a": b"1"})}) == 4  # fmt: skip


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StateError, match="out of"):
        digest_path(tmp_path / "m")


@pytest.mark.parametrize("bad", ["", "sha256:", "sha256:../../x", "md5:" + "a" * 64, "A" * 71])
def test_what_is_no_digest_never_becomes_a_path(bad: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        hexadecimal(bad)


def an_artifact(folder: Path, text: str = "weights") -> Artifact:
    place = folder / "run" / "model"
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.joblib").write_text(text)
    digest, size = digest_path(place)
    return Artifact("model", "system.Model", str(place), digest, size)


def test_the_store_keeps_content_once_and_under_its_digest(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "models")
    artifact = an_artifact(tmp_path)
    one = store.put(artifact, "sklearn")
    assert one == store.put(artifact, "sklearn")
    assert hexadecimal(artifact.digest) in one.uri
    assert digest_path(store.fetch(one.digest)) == (one.digest, one.size)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [
        f"sha256-{hexadecimal(one.digest)}"
    ]


def test_the_store_refuses_a_model_that_changed_after_its_run(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "models")
    artifact = an_artifact(tmp_path)
    (Path(artifact.uri) / "model.joblib").write_text("tampered")
    with pytest.raises(StateError, match="changed after its run"):
        store.put(artifact, "sklearn")
    (Path(artifact.uri) / "model.joblib").unlink()
    Path(artifact.uri).rmdir()
    with pytest.raises(StateError, match="is gone"):
        store.put(artifact, "sklearn")


def test_a_damaged_model_is_never_handed_out_and_is_made_good_by_putting_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "models")
    artifact = an_artifact(tmp_path)
    kept = store.put(artifact, "sklearn")
    (store.fetch(kept.digest) / "model.joblib").write_text("rot")
    with pytest.raises(OutsideError, match="damaged"):
        store.fetch(kept.digest)
    store.put(artifact, "sklearn")
    assert (store.fetch(kept.digest) / "model.joblib").read_text() == "weights"
    with pytest.raises(OutsideError, match="has no model"):
        store.fetch(DIGEST)


KEY = PredictionsKey(DIGEST, "evaluate.predictions", DIGEST, "sha256:" + "e" * 64)


def predictions_file(place: Path, answer: str = "a") -> Path:
    place.write_text(f"id,label,prediction\n1,a,{answer}\n")
    return place


def test_predictions_are_kept_by_all_that_tells_them_apart(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "models")
    plain = predictions_file(tmp_path / "p.csv")
    uri, digest = store.put_predictions(KEY, plain)
    assert (uri, digest) == store.put_predictions(KEY, plain)
    kept = store.fetch_predictions(KEY)
    assert kept is not None
    assert kept[0].read_bytes()[:2] == b"\x1f\x8b"
    assert (kept[0].as_uri(), kept[1]) == (uri, digest)
    for changed in (
        {"model": "sha256:" + "c" * 64},
        {"output": "evaluate.noisy"},
        {"evaluation_set": "sha256:" + "b" * 64},
        {"made": ""},
    ):
        other = replace(KEY, **changed)
        assert store.fetch_predictions(other) is None
        _, theirs = store.put_predictions(other, predictions_file(tmp_path / "q.csv", "b"))
        assert theirs != digest
    assert store.fetch_predictions(KEY) == kept
    # The same key again: what is kept last counts.
    assert store.put_predictions(KEY, tmp_path / "q.csv")[1] != digest
    again = store.fetch_predictions(KEY)
    assert again is not None
    assert again[1] != digest


def test_damaged_predictions_are_never_handed_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "models")
    store.put_predictions(KEY, predictions_file(tmp_path / "p.csv"))
    kept = store.fetch_predictions(KEY)
    assert kept is not None
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"x")
    with pytest.raises(OutsideError, match="are damaged; remove it"):
        store.fetch_predictions(KEY)


#: A release as it was written before its predictions said their output and what made them.
LAYOUT_1 = """\
kind: release
version: 1
project: digits
environment: staging
model: {uri: 'file:///m', digest: 'sha256:aa', format: sklearn, size: 3}
run: r-2345
pipeline: digits
pipeline_version: 0123456789ab
package: sha256:bb
commit: 0123456789abcdef0123456789abcdef01234567
created: 1790000000.5
verdict:
  project: digits
  environment: staging
  run: r-2345
  decision: promote
  reasons:
  - {rule: accuracy, decision: promote, text: accuracy 0.9 >= 0.8, slice: '', comparison: null}
  champion: null
  metrics: {accuracy: 0.9}
  champion_metrics: {}
  evaluation_set: sha256:cc
  examples: 10
  override: null
  notes: []
parameters: {epochs: 3}
metrics: {accuracy: 0.9}
images: {train: 'x@sha256:dd'}
data: {}
predictions: {uri: 'file:///p.gz', digest: 'sha256:ee', evaluation_set: 'sha256:cc'}
"""


def test_a_release_of_an_older_layout_is_read(tmp_path: Path) -> None:
    old = files.read(LAYOUT_1.encode(), "release.yaml")
    assert old is not None
    assert old.predictions == (
        PredictionsRef("file:///p.gz", "sha256:ee", "sha256:cc", output="", made=""),
    )
    assert (old.serving, old.verdict.rules) == (None, "")
    bare = files.read(LAYOUT_1.replace("predictions: {", "unused: {").encode(), "release.yaml")
    assert bare is not None
    assert bare.predictions == ()
    again = files.write(old, None, None)["deploy/staging/release.yaml"]
    assert b"version: 4" in again
    assert files.read(again, "release.yaml") == old


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (
            "5",
            "has layout 5, but this ctflow reads only up to 4 (a newer ctflow wrote it); upgrade",
        ),
        ("0", "has no valid version, but 0"),
        ("one", "has no valid version, but 'one'"),
    ],
)
def test_a_release_of_an_unknown_layout_is_not_guessed_at(version: str, says: str) -> None:
    text = LAYOUT_1.replace("version: 1\n", f"version: {version}\n")
    with pytest.raises(UsageError, match=re.escape(says)):
        files.read(text.encode(), "release.yaml")


def test_a_release_survives_its_files() -> None:
    release = a_release()
    written = files.write(release, None, None)
    assert files.read(written["deploy/staging/release.yaml"], "w") == release
    assert from_json(Release, __import__("json").loads(dump(release))) == release
    manifest = yaml.safe_load(written["deploy/staging/inferenceservice.yaml"])
    assert manifest["kind"] == "InferenceService"
    assert manifest["spec"]["predictor"]["model"]["storageUri"] == release.model.uri
    assert manifest["metadata"]["annotations"]["ctflow.dev/model-digest"] == DIGEST
    assert yaml.safe_load(written["deploy/staging/kustomization.yaml"])["resources"] == [
        "inferenceservice.yaml"
    ]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("# mine\nresources: [inferenceservice.yaml, extra.yaml]\n", False),
        ("resources: [../base]\n", True),
        ("resources: []\nnamePrefix: a-\n", True),
        ("- a list\n", True),
        ("{ not yaml", True),
    ],
)
def test_a_persons_kustomization_stays(text: str, missing: bool) -> None:
    where = "deploy/staging/kustomization.yaml"
    assert where not in files.write(a_release(), None, text.encode())
    said = files.unlisted(text.encode(), "staging")
    assert said == (f"{where} does not list inferenceservice.yaml: add it to resources"
                    if missing else "")  # fmt: skip


@pytest.mark.parametrize(
    "text", ["resources: []\n", "# nothing yet\n", "kind: Kustomization\nresources:\n"]
)
def test_a_placeholder_is_filled(text: str) -> None:
    written = files.write(a_release(), None, text.encode())
    assert b"inferenceservice.yaml" in written["deploy/staging/kustomization.yaml"]
    assert files.unlisted(text.encode(), "staging") == ""


HAND_WRITTEN = """\
# ours: do not remove
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: digits
  labels: {team: "vision"}   # flow style
spec:
  predictor:
    minReplicas: 2  # two, since the outage
    model:
      modelFormat: {name: old}
      storageUri: s3://b/ü/old   # replaced
      resources:
        limits: {cpu: "1"}
"""


def test_updating_a_manifest_changes_its_values_and_nothing_else() -> None:
    text = render(a_release(), HAND_WRITTEN, "m.yaml")
    added = [line for line in text.splitlines() if line not in HAND_WRITTEN.splitlines()]
    lost = [line for line in HAND_WRITTEN.splitlines() if line not in text.splitlines()]
    assert lost == ["      modelFormat: {name: old}", "      storageUri: s3://b/ü/old   # replaced"]
    assert '      storageUri: "file:///m/' + "a" * 64 + '/model"   # replaced' in added
    assert "      modelFormat: {name: sklearn}" in added
    assert yaml.safe_load(text)["metadata"]["annotations"]["ctflow.dev/run"] == "r-1"
    assert render(a_release(), text, "m.yaml") == text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: [", "not valid YAML"),
        ("- 1\n", "not a mapping"),
        ("spec: 3\nmetadata: {annotations: {}}\n", "cannot add it"),
        ("{}\n", "cannot add it"),
    ],
)
def test_a_manifest_without_a_place_for_the_values_is_refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        render(a_release(), text, "m.yaml")


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_model_format_reads_back_as_itself(name: str) -> None:
    release = replace(a_release(), model=ModelRef("file:///x", DIGEST, name))
    for existing in (None, HAND_WRITTEN):
        data = yaml.safe_load(render(release, existing, "m"))
        assert data["spec"]["predictor"]["model"]["modelFormat"]["name"] == name


@given(
    st.lists(st.builds(Hold, st.just(DIGEST), st.text(), st.text(), st.floats(0, 1e10).map(iso)))
)
def test_holds_survive_their_file(holds: list[Hold]) -> None:
    assert files.read_holds(files.write_holds(holds), "h") == tuple(holds)


def test_holds_that_cannot_be_read_are_an_error_and_not_no_holds() -> None:
    assert files.read_holds(None, "h") == ()
    for bad in (b"", b"holds: 3\n", b"holds: [", b"other: []\n"):
        with pytest.raises(ConfigError):
            files.read_holds(bad, "h")
    assert short(None) == "-"
