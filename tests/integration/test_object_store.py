"""The model store in a bucket: what is sent again, what fails and how it says so, and how much."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, CtflowError, OutsideError, StateError
from ctflow.lib.digests import digest_file, digest_path, hexadecimal
from ctflow.model import Artifact
from ctflow.stores.object_store import ObjectStore, open_store
from ctflow.stores.object_store.bucket import PART, part_size
from tests.contracts.test_model_store import FILES, KEY, a_file, a_model, entry, some_predictions
from tests.object_servers import (
    S3_ENVIRON,
    Proxy,
    fails_first,
    proxy,
    s3_client,
    s3_server,
    xml,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@dataclass
class Place:
    """A bucket behind a proxy."""

    base: Path
    bucket: str
    front: Proxy
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/team"

    def store(self, cache: str = "cache", **environ: str) -> ObjectStore:
        return open_store(
            self.url, self.front.address, self.base / cache, {**os.environ, **environ}
        )


@pytest.fixture
def place(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in S3_ENVIRON.items():
        monkeypatch.setenv(name, value)
    client = s3_client(server)
    bucket = f"models-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    with proxy(server) as front:
        yield Place(tmp_path, bucket, front, client)


def line_of(caught: pytest.ExceptionInfo[CtflowError]) -> str:
    """The error's one line, which holds no secret and says what to do."""
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500, text
    assert caught.value.next
    assert S3_ENVIRON["AWS_SECRET_ACCESS_KEY"] not in text
    assert "Debug source" not in text
    return text


# -- what is sent ------------------------------------------------------------------------------


def test_the_manifest_is_written_last_and_only_where_there_is_none(
    place: Place, tmp_path: Path
) -> None:
    artifact = a_model(tmp_path)
    place.store().put(artifact, "sklearn")
    sent = place.front.sent()
    assert sent[-1] == f"team/manifests/{hexadecimal(artifact.digest)}.json"
    assert len(sent) == len(FILES) + 1
    place.store().put(artifact, "sklearn")
    assert place.front.sent() == sent


def test_after_a_failure_only_what_is_missing_is_sent(place: Place, tmp_path: Path) -> None:
    artifact = a_model(tmp_path, {f"{n:02}": bytes([n]) * 1000 for n in range(20)})
    place.front.fault = lambda asked: (
        (403, xml("AccessDenied")) if asked.object.endswith("/13") else None
    )
    with pytest.raises(OutsideError, match="does not allow to write"):
        place.store().put(artifact, "sklearn")
    assert not place.store().has(artifact.digest)
    done = {name for name in place.front.sent() if not name.endswith("/13")}
    assert len(done) < 20
    place.front.seen.clear()
    place.front.fault = lambda asked: None
    place.store().put(artifact, "sklearn")
    again = place.front.sent()
    assert not done & set(again)
    assert len(again) == 20 - len(done) + 1
    assert digest_path(place.store().fetch(artifact.digest))[0] == artifact.digest


def test_a_large_file_goes_in_parts_and_a_killed_push_goes_on(place: Place, tmp_path: Path) -> None:
    size = 64 << 20
    artifact = a_model(tmp_path, {"a-small": b"s", "b-large": os.urandom(size)})
    # The fifth part of the large file never gets through: the process is killed while it waits.
    parts = [0]

    def fault(asked: Any) -> None:
        if "partNumber" in asked.path:
            parts[0] += 1
            if parts[0] == 5:
                os.kill(process.pid, signal.SIGKILL)

    program = "import sys; sys.path.insert(0, 'tests/contracts'); import killed_put"
    place.front.fault = fault
    words = ["0", artifact.uri, artifact.digest, "s3", place.url, place.front.address,
             str(tmp_path / "killed")]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", program, *words], cwd=ROOT)
    assert process.wait(timeout=120) == -signal.SIGKILL
    store = place.store()
    assert not store.has(artifact.digest)
    listed = place.client.list_objects_v2(Bucket=place.bucket)["Contents"]
    assert [one["Key"].rpartition("/")[2] for one in listed] == ["a-small"]

    place.front.fault = lambda asked: None
    place.front.seen.clear()
    kept = store.put(artifact, "sklearn")
    assert not any(name.endswith("a-small") for name in place.front.sent())
    sizes = [one.size for one in place.front.seen if "partNumber" in one.path]
    assert sorted(sizes) == [PART] * (size // PART)
    assert digest_path(store.fetch(kept.digest))[0] == artifact.digest
    reads = [one for one in place.front.seen if one.method == "GET" and "b-large" in one.path]
    assert len(reads) == size // PART


MEMORY = """
import sys
from pathlib import Path
from ctflow.stores.object_store import open_store
from ctflow.model import Artifact
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10
url, address, cache, model, digest = sys.argv[1:]
store = open_store(url, address, Path(cache))
store.has(digest)
before = peak()
store.put(Artifact("model", "", model, digest), "sklearn")
store.fetch(digest)
print(peak() - before)
"""


def test_memory_is_bounded(server: str, place: Place, tmp_path: Path) -> None:
    """A model of 128 MB in two files takes what is on its way: some parts, not the files."""
    artifact = a_model(tmp_path, {"a": b"a" * (64 << 20), "b": b"b" * (64 << 20)})
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, place.url, server, str(tmp_path / "cache"), artifact.uri,
         artifact.digest],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 100


def test_parts_are_as_many_as_a_store_takes() -> None:
    assert part_size(64 << 20) == PART
    for size in (100 << 30, 5 << 40, (5 << 40) - 1):
        assert -(-size // part_size(size)) <= 10_000


def test_a_file_that_changes_while_it_is_sent_is_never_there(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (100, 20 << 20):
        artifact = a_file(tmp_path, b"w" * size)

        def spoil(asked: Any, artifact: Artifact = artifact, size: int = size) -> None:
            if "list-type" in asked.path:
                Path(artifact.uri).write_bytes(b"v" * size)

        place.front.fault = spoil
        with pytest.raises(StateError, match="changed while it was read"):
            place.store().put(artifact, "onnx")
        assert "Contents" not in place.client.list_objects_v2(Bucket=place.bucket)
        assert not place.client.list_multipart_uploads(Bucket=place.bucket).get("Uploads")


def test_names_that_a_store_does_not_take_are_refused(place: Place, tmp_path: Path) -> None:
    artifact = a_model(tmp_path, {"line\nbreak": b"1"})
    with pytest.raises(StateError, match=r"name an object store does not take: 'line\\nbreak'"):
        place.store().put(artifact, "sklearn")
    # The model's own name is no part of its content.
    odd = a_file(tmp_path, b"1", name="what #1?.bin")
    kept = place.store().put(odd, "onnx")
    assert kept.uri == f"{place.url}/{entry(odd.digest)}/model"


def test_what_is_fetched_once_needs_no_server_and_a_damaged_copy_is_fetched_again(
    place: Place, tmp_path: Path
) -> None:
    artifact = a_model(tmp_path)
    place.store().put(artifact, "sklearn")
    first = place.store("other").fetch(artifact.digest)
    place.front.seen.clear()
    assert place.store("other").fetch(artifact.digest) == first
    assert place.front.seen == []
    (first / "model.joblib").write_bytes(b"Weights")
    assert place.store("other").fetch(artifact.digest) == first
    assert (first / "model.joblib").read_bytes() == b"weights"
    assert {path.name for path in (tmp_path / "other" / "models").iterdir()} == {
        ".used", entry(artifact.digest),
    }  # fmt: skip


def test_a_fetch_that_fails_leaves_nothing_in_the_cache(place: Place, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    place.store().put(artifact, "sklearn")
    place.front.fault = lambda asked: (
        (403, xml("AccessDenied")) if asked.object.endswith("model.joblib") else None
    )
    with pytest.raises(OutsideError, match="does not allow to read"):
        place.store("other").fetch(artifact.digest)
    left = [one.name for one in (tmp_path / "other" / "models").iterdir()]
    assert left == [".used"]  # whose locks say that this process wanted it


# -- what a stranger wrote ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../../escape", "/etc/escape", "a/../../escape", "a//b", "", "."])
def test_a_manifest_cannot_name_files_outside(place: Place, tmp_path: Path, path: str) -> None:
    from ctflow.lib.digests import digest_bytes, digest_listing
    from ctflow.stores.object_store.manifest import File, Manifest

    one = digest_bytes(b"evil")
    digest, _ = digest_listing([(path.encode(), one, 4)])
    made = Manifest(digest, "model", True, (File(path, one, 4),))
    place.client.put_object(
        Bucket=place.bucket, Key=f"team/manifests/{hexadecimal(digest)}.json", Body=made.dump()
    )
    with pytest.raises(OutsideError, match="has no model"):
        place.store().fetch(digest)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff", b'{"kind": "model"}', b"[" * 100_000, b'{"files": 3}']
)
def test_what_is_no_manifest_counts_for_nothing_and_is_replaced(
    place: Place, tmp_path: Path, data: bytes
) -> None:
    artifact = a_model(tmp_path)
    key = f"team/manifests/{hexadecimal(artifact.digest)}.json"
    place.client.put_object(Bucket=place.bucket, Key=key, Body=data)
    assert not place.store().has(artifact.digest)
    place.store().put(artifact, "sklearn")
    assert digest_path(place.store().fetch(artifact.digest))[0] == artifact.digest


@pytest.mark.parametrize("data", [b"", b"sha256:../../x", b"\xff\xfe", b"sha256:" + b"0" * 64])
def test_a_damaged_pointer_to_predictions_is_said(
    place: Place, tmp_path: Path, data: bytes
) -> None:
    uri, _ = place.store().put_predictions(KEY, some_predictions(tmp_path / "p.csv"))
    folder = uri.removeprefix(f"s3://{place.bucket}/").rpartition("/")[0]
    place.client.put_object(Bucket=place.bucket, Key=f"{folder}/current", Body=data)
    with pytest.raises(OutsideError, match="damaged") as caught:
        place.store().fetch_predictions(KEY)
    line_of(caught)


# -- what fails --------------------------------------------------------------------------------


def test_a_server_that_is_busy_for_a_while_is_asked_again(place: Place, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    busy = (503, xml("SlowDown"))
    for pattern in ("PUT", "list-type", "GET .*manifests"):
        place.front.fault = fails_first(3, busy, pattern)
        place.store().put(artifact, "sklearn")
        place.client.delete_object(
            Bucket=place.bucket, Key=f"team/manifests/{hexadecimal(artifact.digest)}.json"
        )
    place.front.fault = lambda asked: None
    place.store().put(artifact, "sklearn")
    place.front.fault = fails_first(4, busy, "GET .*joblib")
    assert digest_path(place.store().fetch(artifact.digest))[0] == artifact.digest


@pytest.mark.parametrize("how", ["cut", "cut in the body"])
def test_a_connection_that_breaks_is_made_again(place: Place, tmp_path: Path, how: str) -> None:
    artifact = a_model(tmp_path, {"small": b"s" * 10_000, "large": b"l" * (20 << 20)})
    place.front.fault = fails_first(3, how, "PUT .*(small|large)" if how == "cut" else "list-type")
    place.store().put(artifact, "sklearn")
    place.front.fault = fails_first(3, how, "GET .*(small|large)")
    assert digest_path(place.store().fetch(artifact.digest))[0] == artifact.digest
    assert place.front.fault(place.front.seen[-1]) is None  # all three were used


FAULTS: list[tuple[str, Any, str]] = [
    ("no bucket", (404, xml("NoSuchBucket")), r"there is no bucket 'models-"),
    ("no rights", (403, xml("AccessDenied")), r"does not allow to (list|read) .*\(AccessDenied\)"),
    ("unknown key", (403, xml("InvalidAccessKeyId")), r"refuses the credentials .*AWS_ACCESS_KEY"),
    ("wrong secret", (403, xml("SignatureDoesNotMatch")), r"refuses the credentials"),
    ("old token", (400, xml("ExpiredToken")), r"refuses the credentials .*\(ExpiredToken\)"),
    ("region, with it named",
     (400, xml("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")),
     r"in another region than us-east-1; set AWS_REGION to eu-west-1"),
    ("region, unnamed", (301, xml("PermanentRedirect")), r"in another region.*set AWS_REGION"),
    ("broken server", (500, xml("InternalError")), r"answered 500 each time"),
    ("busy server", (503, xml("SlowDown")), r"answered 503 each time .* try again later"),
    ("odd answer", (418, "a\x1b[31mteapot" * 1000), r"\(status 418\)"),
    ("cut", "cut", r"the connection to http://127.0.0.1:\d+ broke"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "expected"), [one[1:] for one in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_each_fault_is_one_line(place: Place, tmp_path: Path, what: Any, expected: str) -> None:
    artifact = a_model(tmp_path)
    place.front.fault = lambda asked: what
    store = place.store(AWS_MAX_ATTEMPTS="2")
    calls = (
        store.check,
        lambda: store.has(artifact.digest),
        lambda: store.put(artifact, "sklearn"),
        lambda: store.fetch(artifact.digest),
        lambda: store.put_predictions(KEY, some_predictions(tmp_path / "p.csv")),
        lambda: store.fetch_predictions(KEY),
    )
    for call in calls:
        with pytest.raises(OutsideError) as caught:
            call()
        assert re.search(expected.replace("(list|read)", "(list|read|write)"), line_of(caught))
        assert caught.value.exit_code == 5


def test_a_bucket_that_is_not_there_is_said(place: Place, tmp_path: Path) -> None:
    store = open_store("s3://nobody-has-this/x", place.front.address, tmp_path / "cache")
    for call in (store.check, lambda: store.fetch(KEY.model)):
        with pytest.raises(OutsideError, match="there is no bucket 'nobody-has-this'") as caught:
            call()
        line_of(caught)


def test_a_server_that_is_not_there_is_said(place: Place, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = open_store(place.url, address, tmp_path, {**os.environ, "AWS_MAX_ATTEMPTS": "2"})
        with pytest.raises(OutsideError, match=f"{address} cannot be reached") as caught:
            store.check()
    line_of(caught)


def test_a_name_that_leads_nowhere_is_said(place: Place, tmp_path: Path) -> None:
    store = open_store(
        place.url, "http://minio.invalid:9000", tmp_path, {**os.environ, "AWS_MAX_ATTEMPTS": "1"}
    )
    with pytest.raises(OutsideError, match=r"no host of the name|cannot be reached") as caught:
        store.check()
    line_of(caught)


def test_a_server_without_tls_is_not_spoken_to_by_https(place: Place, tmp_path: Path) -> None:
    address = place.front.address.replace("http://", "https://")
    store = open_store(place.url, address, tmp_path, {**os.environ, "AWS_MAX_ATTEMPTS": "1"})
    with pytest.raises(OutsideError) as caught:
        store.check()
    line_of(caught)
    assert place.front.seen == []


def test_a_disk_that_refuses_is_said(place: Place, tmp_path: Path) -> None:
    artifact = a_model(tmp_path)
    place.store().put(artifact, "sklearn")
    (tmp_path / "full").write_text("a file where the cache folder should be")
    with pytest.raises(OutsideError, match="cannot write to the cache folder") as caught:
        place.store("full").fetch(artifact.digest)
    line_of(caught)


# -- who asks, and whom ------------------------------------------------------------------------


def test_a_profile_of_the_shared_files_says_who_asks(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctflow.lib.secrets import KNOWN
    from ctflow.model.store_url import parse_store_url
    from ctflow.stores.object_store.credentials import who_asks

    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = k1\naws_secret_access_key = shared-file-secret\n"
        "[other]\naws_access_key_id = k2\naws_secret_access_key = s2\naws_session_token = t2\n"
    )
    (tmp_path / "config").write_text(
        "[profile other]\nregion = eu-west-1\n[profile login]\nsso_session = us\n"
    )
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    url = parse_store_url("s3://models")
    assert who_asks(url, files) == {
        "access_key_id": "k1", "secret_access_key": "shared-file-secret"
    }  # fmt: skip
    assert KNOWN.mask("it is shared-file-secret") == "it is ***"
    assert who_asks(url, files | {"AWS_PROFILE": "other"}) == {
        "access_key_id": "k2", "secret_access_key": "s2", "session_token": "t2",
        "region": "eu-west-1",
    }  # fmt: skip
    # Variables come first, as in AWS's own tools.
    assert who_asks(url, files | {"AWS_ACCESS_KEY_ID": "k3", "AWS_REGION": "x"}) == {}
    with pytest.raises(OutsideError, match="export-credentials --profile login"):
        who_asks(url, files | {"AWS_PROFILE": "login"})
    with pytest.raises(OutsideError, match="'nobody' holds no access key"):
        who_asks(url, files | {"AWS_PROFILE": "nobody"})
    # And what is found is what the store is asked with.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = open_store(place.url, place.front.address, tmp_path, files)
    store.check()


@pytest.mark.parametrize("url", ["s3://models", "gs://models"])
def test_nobody_is_said_at_once(url: str, tmp_path: Path) -> None:
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "HOME": str(tmp_path)}
    with pytest.raises(OutsideError, match="there are no credentials for") as caught:
        open_store(url, None, tmp_path, nobody)
    line_of(caught)


def test_an_azure_account_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://models/x", None, tmp_path, {"AZURE_STORAGE_SAS_KEY": "sv=1&sig=secret"})


def test_the_environment_names_the_server_where_the_file_does_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        environ = {**os.environ, name: place.front.address}
        open_store(place.url, None, tmp_path, environ).check()
    assert len(place.front.seen) == 2
    for text in ("minio:9000", "http://key:secret@minio", "http://minio?x=secret"):
        with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL: ") as caught:
            open_store(place.url, None, tmp_path, {**os.environ, "AWS_ENDPOINT_URL": text})
        assert "secret" not in str(caught.value)


def test_without_the_extra_one_line_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"pip install 'ctflow\[object-store\]'") as caught:
        place.store()
    line_of(caught)


def test_kserves_downloader_finds_the_model_under_its_uri(place: Place, tmp_path: Path) -> None:
    """What KServe's storage initializer does with an s3 URI (v0.20, ``_download_s3``)."""
    for artifact in (a_model(tmp_path), a_file(tmp_path)):
        uri = place.store().put(artifact, "sklearn").uri
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        target = tmp_path / "mnt" / hexadecimal(artifact.digest)
        for one in place.client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
            exact = one["Key"] == prefix
            name = Path(prefix).name if exact else one["Key"].removeprefix(prefix).lstrip("/")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            place.client.download_file(bucket, one["Key"], str(target / name))
        found = target / "model.onnx" if (target / "model.onnx").exists() else target
        digest = digest_file(found)[0] if found.is_file() else digest_path(found)[0]
        assert digest == artifact.digest
