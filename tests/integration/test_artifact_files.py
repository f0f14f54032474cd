"""Artifacts of a cluster's runs, brought here from S3: the ``ArtifactFiles`` port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.lib.digests import digest_bytes, digest_path
from ctflow.model import Artifact
from ctflow.stores.local_copies import LocalCopies
from ctflow.stores.object_store import open_store
from ctflow.stores.object_store.artifact_files import BucketFiles, open_files
from tests.object_servers import S3_ENVIRON, Asked, Proxy, proxy, s3_client, s3_server

ROOT = "v2/artifacts/tiny/run"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with s3_server() as found:
        yield found


@dataclass
class Bucket:
    """A bucket of the server, behind a proxy that sees what is asked."""

    name: str
    client: Any
    proxy: Proxy
    cache: Path

    def files(self) -> BucketFiles:
        return open_files(self.proxy.address, self.cache, S3_ENVIRON)

    def write(self, path: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=f"{ROOT}/{path}", Body=data)
        return self.uri(path)

    def uri(self, path: str) -> str:
        return f"minio://{self.name}/{ROOT}/{path}"


@pytest.fixture
def bucket(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in S3_ENVIRON.items():
        monkeypatch.setenv(name, value)
    name = f"mlpipeline-{uuid.uuid4().hex[:12]}"
    client = s3_client(address)
    client.create_bucket(Bucket=name)
    with proxy(address) as between:
        yield Bucket(name, client, between, tmp_path / "cache")


def test_a_file_is_brought_here_once(bucket: Bucket) -> None:
    data = os.urandom(300_000)
    uri = bucket.write("evaluate/0f3a/predictions", data)
    place, digest, size = bucket.files().fetch(uri)
    assert place.read_bytes() == data
    assert (digest, size, place.name) == (digest_bytes(data), 300_000, "predictions")
    bucket.proxy.seen.clear()
    assert bucket.files().fetch(uri) == (place, digest, size)
    assert {one.method for one in bucket.proxy.seen} == {"HEAD"}


def test_a_folder_is_brought_here_whole(bucket: Bucket, tmp_path: Path) -> None:
    for name, data in {"a": b"1", "deep/b": b"22", "deep/er/c": b""}.items():
        bucket.write(f"train/1/model/{name}", data)
    bucket.write("train/1/model-of-another/a", b"not this one")
    place, digest, size = bucket.files().fetch(bucket.uri("train/1/model"))
    found = {str(one.relative_to(place)): one.read_bytes()
             for one in place.rglob("*") if one.is_file()}  # fmt: skip
    assert found == {"a": b"1", "deep/b": b"22", "deep/er/c": b""}
    assert (digest_path(place)[0], size) == (digest, 3)


def test_what_changed_is_brought_anew(bucket: Bucket) -> None:
    uri = bucket.write("train/1/model", b"first")
    _, first, _ = bucket.files().fetch(uri)
    bucket.write("train/1/model", b"other")
    place, second, _ = bucket.files().fetch(uri)
    assert (place.read_bytes(), second) == (b"other", digest_bytes(b"other"))
    assert first != second


def test_a_damaged_copy_is_not_believed(bucket: Bucket) -> None:
    uri = bucket.write("train/1/model", b"first")
    place, digest, _ = bucket.files().fetch(uri)
    place.write_bytes(b"wrong")
    assert bucket.files().fetch(uri)[0].read_bytes() == b"first"
    assert digest == digest_bytes(b"first")


def test_what_changes_while_it_is_read_is_not_kept(bucket: Bucket) -> None:
    uri = bucket.write("train/1/model", b"first")
    bucket.write("train/1/other", b"never read")

    def change(asked: Asked) -> None:
        if asked.method == "GET":
            bucket.proxy.fault = lambda asked: None
            bucket.write("train/1/model", b"later")

    bucket.proxy.fault = change
    with pytest.raises(OutsideError, match="changed while it was read"):
        bucket.files().fetch(uri)
    assert LocalCopies(bucket.cache / "artifacts").entries() == []
    assert bucket.files().fetch(uri)[0].read_bytes() == b"later"


_FETCH = """
import sys
from pathlib import Path
from ctflow.stores.object_store.artifact_files import open_files
open_files(sys.argv[1], Path(sys.argv[2])).fetch(sys.argv[3])
"""


def test_a_kill_leaves_nothing_that_looks_complete(bucket: Bucket) -> None:
    for number in range(4):
        bucket.write(f"train/1/model/{number}", os.urandom(50_000))
    uri = bucket.uri("train/1/model")
    process: subprocess.Popen[bytes] | None = None

    def kill(asked: Asked) -> None:
        # With the last of the files still to come.
        if asked.method == "GET" and asked.object.endswith("/3") and process is not None:
            process.send_signal(signal.SIGKILL)

    bucket.proxy.fault = kill
    words = [sys.executable, "-c", _FETCH, bucket.proxy.address, str(bucket.cache), uri]
    process = subprocess.Popen(words, env=os.environ | S3_ENVIRON)
    assert process.wait(60) == -signal.SIGKILL
    assert LocalCopies(bucket.cache / "artifacts").entries() == []
    bucket.proxy.fault = lambda asked: None
    place, digest, _ = bucket.files().fetch(uri)
    assert digest_path(place)[0] == digest
    assert sorted(one.name for one in place.iterdir()) == ["0", "1", "2", "3"]


def test_what_is_not_there_is_said_so(bucket: Bucket) -> None:
    with pytest.raises(StateError, match=r"there is nothing at minio://mlpipeline-.*/gone"):
        bucket.files().fetch(bucket.uri("train/1/gone"))
    with pytest.raises(OutsideError, match="there is no bucket 'nobody-has-this'"):
        bucket.files().fetch("s3://nobody-has-this/train/1/model")
    for uri in ("/etc/passwd", "https://example.org/x", "s3://bucket", "s3://bucket/../x", "s3://"):
        with pytest.raises(ConfigError, match="is no place in a bucket"):
            bucket.files().fetch(uri)


def test_the_key_is_that_of_the_variables_that_the_settings_name(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.write("train/1/model", b"first")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-account")
    seen: list[str] = []
    environ = {"CLUSTER_KEY": "cluster-key", "CLUSTER_SECRET": "cluster-secret"}
    names = ("CLUSTER_KEY", "CLUSTER_SECRET", "eu-north-1")
    files = open_files(bucket.proxy.address, bucket.cache, environ, *names)
    bucket.proxy.headers = seen.append
    assert files.fetch(uri)[0].read_bytes() == b"first"
    assert all("Credential=cluster-key/" in one and "/eu-north-1/s3/" in one for one in seen)
    assert not any("of-another-account" in one for one in seen)
    with pytest.raises(ConfigError, match="variable CLUSTER_SECRET is not set"):
        open_files(None, bucket.cache, {"CLUSTER_KEY": "x"}, *names).fetch(uri)


def test_content_is_put_and_not_sent_twice(bucket: Bucket, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    (model / "skill").write_text("0.8")
    (model / "deep" / "more").write_text("x" * 1000)
    uri = bucket.uri("scored-again/sha256-1/model")
    bucket.files().put(uri, model)
    assert sorted(bucket.files().below(uri)) == ["deep/more", "skill"]
    assert digest_path(bucket.files().fetch(uri)[0])[0] == digest_path(model)[0]
    bucket.proxy.seen.clear()
    bucket.files().put(uri, model)
    assert bucket.proxy.sent() == []
    bucket.files().put(bucket.uri("one-file"), model / "skill")
    assert bucket.files().fetch(bucket.uri("one-file"))[0].read_text() == "0.8"


def kept(bucket: Bucket, model: Path, source: str) -> tuple[str, list[str], list[bytes]]:
    """What the store in the same bucket kept: its URI, what was sent, and what lies there."""
    store = open_store(f"s3://{bucket.name}/kept", bucket.proxy.address, bucket.cache)
    digest, size = digest_path(model)
    bucket.proxy.seen.clear()
    ref = store.put(Artifact("model", "system.Model", str(model), digest, size), "sklearn", source)
    sent = [one.object for one in bucket.proxy.seen if one.method == "PUT" and one.size]
    path = f"kept/{ref.uri.partition('/kept/')[2]}"
    found = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=path).get("Contents", [])
    return (
        ref.uri,
        sent,
        [
            bucket.client.get_object(Bucket=bucket.name, Key=one["Key"])["Body"].read()
            for one in found
        ],
    )


def test_a_store_copies_from_its_own_bucket(bucket: Bucket) -> None:
    uri = bucket.write("train/1/model", b"weights")
    model = bucket.files().fetch(uri)[0]
    _, sent, found = kept(bucket, model, uri)
    assert [path.partition("/")[2].partition("/")[0] for path in sent] == ["manifests"]
    assert found == [b"weights"]


def test_a_copy_of_something_else_is_not_kept(bucket: Bucket) -> None:
    uri = bucket.write("train/1/model", b"weights")
    model = bucket.files().fetch(uri)[0]
    bucket.write("train/1/model", b"others!")
    _, sent, found = kept(bucket, model, uri)
    assert len(sent) == 2  # the model and its manifest
    assert found == [b"weights"]


def test_what_lies_in_another_bucket_or_nowhere_is_sent(bucket: Bucket, tmp_path: Path) -> None:
    model = tmp_path / "model"
    for number, source in enumerate((f"s3://{bucket.name}-2/x/model", bucket.uri("gone"))):
        model.write_text(f"weights {number}")
        _, sent, found = kept(bucket, model, source)
        assert len(sent) == 2
        assert found == [f"weights {number}".encode()]
