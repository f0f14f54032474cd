"""The registry client against real registries: contents, logins, and what goes wrong."""

from __future__ import annotations

import base64
import hashlib
import http.server
import inspect
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import OutsideError
from ctflow.images.registry import Blob, OciRegistry
from ctflow.images.registry import blobs as uploads
from ctflow.images.registry.oci import OCI_MANIFEST
from ctflow.rest.patience import Patience
from tests.containers import (
    PASSWORD,
    USER,
    Containers,
    RegistryServer,
    SmallRegistry,
    TokenServer,
    htpasswd_registry,
    token_registry,
)

_QUICK = Patience(attempts=4, base=0.01)


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def login(folder: Path, **content: Any) -> dict[str, str]:
    """A docker config.json; the variables that point at it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return {"DOCKER_CONFIG": str(folder), "HOME": str(folder), "PATH": os.environ["PATH"]}


def auth(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def push(registry: OciRegistry, name: str, tag: str = "1", layer: bytes = b"layer") -> str:
    """A small image; its digest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "created": tag}).encode()
    for data in (config, layer):
        registry.push_blob(name, Blob.of_bytes(data, sha(data)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": sha(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": sha(layer), "size": len(layer)}],
    }  # fmt: skip
    return registry.push_manifest(f"{name}:{tag}", OCI_MANIFEST, json.dumps(manifest).encode())


@pytest.fixture
def plain(containers: Containers) -> OciRegistry:
    return OciRegistry({"HOME": "/nonexistent"}, patience=_QUICK)


def test_push_and_read(containers: Containers, plain: OciRegistry) -> None:
    name = f"{containers.address}/reg/one"
    assert plain.digest(f"{name}:1") is None
    assert plain.tags(name) == []
    digest = push(plain, name)
    push(plain, name, "2")
    assert plain.digest(f"{name}:1") == digest
    manifest = plain.manifest(f"{name}@{digest}")
    assert manifest is not None
    assert manifest.digest == digest
    assert not manifest.is_index
    assert plain.tags(name) == ["1", "2"]
    assert plain.blob(name, sha(b"layer")) == b"layer"
    plain.delete(f"{name}@{digest}")
    assert plain.digest(f"{name}:1") is None
    assert plain.digest(f"{name}:2") is not None


def test_blobs_are_mounted_not_sent(containers: Containers, plain: OciRegistry) -> None:
    push(plain, f"{containers.address}/reg/from", layer=b"shared")
    opened: list[int] = []

    def open_it() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(b"shared")

    blob = Blob(sha(b"shared"), 6, open_it)
    target = f"{containers.address}/reg/to"
    assert plain.push_blob(target, blob, mount="reg/from") is False
    assert plain.has_blob(target, blob.digest)
    assert opened == []
    assert plain.push_blob(target, blob) is False  # it is there
    other = Blob.of_bytes(b"not there", sha(b"not there"))
    assert plain.push_blob(target, other, mount="reg/from") is True  # then it is sent


def test_large_blobs_go_in_chunks(
    containers: Containers, plain: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNKED_FROM", 1000)
    monkeypatch.setattr(uploads, "CHUNK", 700)
    data = bytes(range(256)) * 20
    name = f"{containers.address}/reg/chunks"
    assert plain.push_blob(name, Blob.of_bytes(data, sha(data)))
    assert plain.blob(name, sha(data)) == data


# -- logins --------------------------------------------------------------------------------------


@pytest.fixture
def basic(containers: Containers, tmp_path: Path) -> Iterator[RegistryServer]:
    server = htpasswd_registry(tmp_path / "basic")
    yield server
    server.kill()


def test_basic(basic: RegistryServer, tmp_path: Path) -> None:
    name = f"{basic.address}/a/b"
    good = OciRegistry(login(tmp_path / "good", auths={basic.address: auth()}))
    assert good.digest(f"{name}:1") is None
    assert push(good, name) == good.digest(f"{name}:1")


def test_no_login(basic: RegistryServer, tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"requires a login.*docker login localhost:"):
        OciRegistry(login(tmp_path / "none")).digest(f"{basic.address}/a/b:1")


def test_wrong_login(basic: RegistryServer, tmp_path: Path) -> None:
    wrong = login(tmp_path / "wrong", auths={basic.address: auth(password="no-such")})
    with pytest.raises(OutsideError, match="refuses the login") as caught:
        OciRegistry(wrong).digest(f"{basic.address}/a/b:1")
    assert "no-such" not in caught.value.message()


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
def test_credential_helpers(basic: RegistryServer, tmp_path: Path, kind: str) -> None:
    """The helper's protocol: ``get`` and the host on standard input."""
    helper = tmp_path / "bin" / "docker-credential-tests"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper.write_text(
        f'#!/bin/sh\nread host\n[ "$1" = get ] && [ "$host" = {basic.address} ] || '
        f"{{ echo credentials not found in native keychain; exit 1; }}\necho '{answer}'\n"
    )
    helper.chmod(0o755)
    value: Any = {basic.address: "tests"} if kind == "credHelpers" else "tests"
    # With a store, auths has an empty entry for each login.
    environ = login(tmp_path / "config", **{kind: value, "auths": {basic.address: {}}})
    environ["PATH"] = f"{helper.parent}:{environ['PATH']}"
    assert OciRegistry(environ).digest(f"{basic.address}/a/b:1") is None
    helper.unlink()
    with pytest.raises(OutsideError, match="docker-credential-tests is not on the PATH"):
        OciRegistry(environ).digest(f"{basic.address}/a/b:1")


@pytest.fixture
def tokens(containers: Containers, tmp_path: Path) -> Iterator[tuple[TokenServer, RegistryServer]]:
    server = TokenServer(tmp_path / "tokens")
    registry = token_registry(tmp_path / "token-registry", server)
    yield server, registry
    registry.kill()
    server.close()


def test_a_mount_asks_for_a_token_of_both_repositories(
    tokens: tuple[TokenServer, RegistryServer], tmp_path: Path
) -> None:
    """As docker-registry wants it: pull on the source, and push on the target, in one token."""
    server, registry = tokens
    client = OciRegistry(login(tmp_path / "good", auths={registry.address: auth()}))
    layer = Blob.of_bytes(b"a layer", sha(b"a layer"))
    assert client.push_blob(f"{registry.address}/open/base", layer)
    server.asked.clear()
    # Not sent again: the registry has mounted it.
    assert not client.push_blob(f"{registry.address}/open/train", layer, "open/base")
    scopes = [one["scope"] for one in server.asked]
    assert "repository:open/train:pull,push repository:open/base:pull" in scopes
    # One that may not be read is no reason to fail: it is uploaded.
    assert client.push_blob(f"{registry.address}/open/other", layer, "closed/base")


def test_tokens(tokens: tuple[TokenServer, RegistryServer], tmp_path: Path) -> None:
    """One token for each scope, asked for with the login, used again until it ends."""
    server, registry = tokens
    client = OciRegistry(login(tmp_path / "good", auths={registry.address: auth()}))
    name = f"{registry.address}/open/one"
    assert client.digest(f"{name}:1") is None
    push(client, name)
    push(client, name, "2")
    assert [one["scope"] for one in server.asked] == [
        "repository:open/one:pull", "repository:open/one:pull,push"
    ]  # fmt: skip
    assert {one["service"] for one in server.asked} == {"tests"}


def test_identity_tokens(tokens: tuple[TokenServer, RegistryServer], tmp_path: Path) -> None:
    server, registry = tokens
    entry = {"identitytoken": server.refresh, **auth("<token>", "")}
    client = OciRegistry(login(tmp_path / "id", auths={registry.address: entry}))
    assert client.digest(f"{registry.address}/open/one:1") is None
    assert [one["method"] for one in server.asked] == ["POST"]
    assert server.asked[0]["grant_type"] == "refresh_token"


def test_reading_is_not_writing(tokens: tuple[TokenServer, RegistryServer], tmp_path: Path) -> None:
    """The login is good, and is said to be; what it lacks is named, with what to do."""
    _, registry = tokens
    client = OciRegistry(login(tmp_path / "good", auths={registry.address: auth()}))
    name = f"{registry.address}/read/one"
    assert client.digest(f"{name}:1") is None
    with pytest.raises(OutsideError) as caught:
        push(client, name)
    assert caught.value.message() == (
        f"registry {registry.address} accepts your login, but the login may not push to {name}; "
        f"ask for write access to it, log in as another user with `docker login "
        f"{registry.address}`, or correct images.registry"
    )
    with pytest.raises(
        OutsideError, match=r"accepts your login, but the login may not read .*/none/one;"
    ):
        client.digest(f"{registry.address}/none/one:1")


def test_a_wrong_login_for_tokens(
    tokens: tuple[TokenServer, RegistryServer], tmp_path: Path
) -> None:
    server, registry = tokens
    name = f"{registry.address}/open/one:1"
    wrong = login(tmp_path / "wrong", auths={registry.address: auth(password="no-such")})
    with pytest.raises(OutsideError, match=r"refuses the login for open/one"):
        OciRegistry(wrong).digest(name)
    with pytest.raises(OutsideError, match=r"requires a login for open/one"):
        OciRegistry(login(tmp_path / "none")).digest(name)
    good = login(tmp_path / "good", auths={registry.address: auth()})
    other = TokenServer(tmp_path / "other-keys")
    server.key, server.certificate = other.key, other.certificate
    other.close()
    with pytest.raises(OutsideError, match=r"does not accept the token of its own token server"):
        OciRegistry(good).digest(name)


@pytest.mark.parametrize("known", [True, False])
def test_a_token_server_that_forbids(tmp_path: Path, known: bool) -> None:
    """Some answer 403 instead of giving a token that allows less."""

    def answer(method: str, path: str, number: int) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/token"):
            return 403, {}, b""
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{faulty.address}/token"'}, b""

    faulty = Faulty(answer)
    logins = {"auths": {faulty.address: auth()}} if known else {}
    says = (
        r"accepts your login, but the login may not push"
        if known
        else r"push to .* without a login; run"
    )
    try:
        with pytest.raises(OutsideError, match=says):
            push(OciRegistry(login(tmp_path / "c", **logins)), f"{faulty.address}/a")
    finally:
        faulty.close()


# -- what goes wrong ------------------------------------------------------------------------------


def test_down(containers: Containers, tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "down")
    pauses: list[float] = []
    client = OciRegistry({"HOME": "/"}, patience=Patience(3, 0.01, pauses.append))
    with pytest.raises(OutsideError, match=r"cannot reach registry localhost:\d+ \(connection ref"):
        client.digest(f"{server.address}/a:1")
    assert len(pauses) == 2


def test_killed_in_the_middle(containers: Containers, tmp_path: Path) -> None:
    """The registry dies during an upload, and is back later: the upload goes on."""
    server = RegistryServer(tmp_path / "dies").start()
    data = os.urandom(uploads.CHUNKED_FROM + 5000)
    opened: list[int] = []

    def open_it() -> io.BytesIO:
        opened.append(1)
        if len(opened) == 2:  # the second chunk
            server.kill()
        return io.BytesIO(data)

    client = OciRegistry({"HOME": "/"}, patience=Patience(5, 0.0, lambda pause: _revive(server)))
    try:
        assert client.push_blob(f"{server.address}/a", Blob(sha(data), len(data), open_it))
        assert b"".join(client.stream(f"{server.address}/a", sha(data))) == data
        assert len(opened) >= 3
    finally:
        server.kill()


def _revive(server: RegistryServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("chunked", [False, True])
def test_no_space(
    containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    """A full disk: one line at once, nothing to be taken for the blob, and with room it goes on."""
    server = SmallRegistry(tmp_path / "small", 1 << 20)
    server.start()
    if chunked:
        monkeypatch.setattr(uploads, "CHUNKED_FROM", 300_000)
        monkeypatch.setattr(uploads, "CHUNK", 300_000)
    pauses: list[float] = []
    client = OciRegistry({"HOME": "/"}, patience=Patience(5, 0.01, pauses.append))
    name, data = f"{server.address}/a", os.urandom(2 << 20)
    try:
        with pytest.raises(OutsideError) as caught:
            client.push_blob(name, Blob.of_bytes(data, sha(data)))
        assert caught.value.message() == (
            f"registry {server.address} has no space left; make room there, and run it again"
        )
        assert pauses == []
        with pytest.raises(OutsideError, match="has no space left"):
            client.check_push(name)
        server.resize(8 << 20)
        assert not client.has_blob(name, sha(data))
        assert client.push_blob(name, Blob.of_bytes(data, sha(data)))
        assert b"".join(client.stream(name, sha(data))) == data
    finally:
        server.kill()


def test_a_look_whether_pushing_would_do_leaves_nothing(
    containers: Containers, plain: OciRegistry
) -> None:
    plain.check_push(f"{containers.address}/reg/look")
    place = containers.registry.folder / "data/docker/registry/v2/repositories/reg/look/_uploads"
    # docker-registry writes down the state of an upload once more as it lets go of it: 108 bytes.
    assert [path.name for path in place.rglob("*") if path.name in ("data", "startedat")] == []
    assert place.is_dir()


def test_a_broken_upload_is_given_up(plain: OciRegistry) -> None:
    """At the place that the registry named last."""

    def answer(method: str, path: str, number: int) -> tuple[int, dict[str, str], bytes]:
        if method in ("POST", "PATCH"):
            return 202, {"Location": f"/v2/a/blobs/uploads/1?at={number}"}, b""
        return (404, {}, b"") if method == "HEAD" else (507 if method == "PUT" else 204, {}, b"")

    faulty = Faulty(answer)
    try:
        with pytest.raises(OutsideError, match="no space left"):
            plain.push_blob(f"{faulty.address}/a", Blob.of_bytes(b"x", sha(b"x")))
        assert [one.partition("&")[0] for one in faulty.asked[1:]] == [
            "POST /v2/a/blobs/uploads/", "PUT /v2/a/blobs/uploads/1?at=2",
            "DELETE /v2/a/blobs/uploads/1?at=2",
        ]  # fmt: skip
    finally:
        faulty.close()


BIG = bytes(range(256)) * (uploads.CHUNKED_FROM // 256 + 1)


class Memory:
    """A registry in memory, with what some registries do otherwise than the others."""

    def __init__(self, *, chunk: int = 202, closing: int = 201, mount: int = 201,
                 location: str = "/v2/a/blobs/uploads/1?state=x") -> None:  # fmt: skip
        self.chunk, self.closing, self.mount, self.location = chunk, closing, mount, location
        self.bodies: list[int] = []

    def answer(self, method: str, path: str, number: int, body: bytes = b"") -> Any:
        if method == "HEAD":
            return 404, {}, b""
        if method == "POST":
            status = self.mount if "mount=" in path else 202
            return status, {"Location": self.location}, b""
        if method in ("PATCH", "PUT"):
            self.bodies.append(len(body))
            status = self.chunk if method == "PATCH" else 201 if body else self.closing
            return status, {"Location": self.location}, b""
        return 204, {}, b""


@pytest.mark.parametrize("chunk", [400, 404, 405, 411, 416, 501])
def test_a_registry_without_chunks_gets_large_blobs_in_one_piece(
    plain: OciRegistry, chunk: int
) -> None:
    memory = Memory(chunk=chunk)
    faulty = Faulty(memory.answer)
    try:
        for name in ("a", "b"):
            plain.push_blob(f"{faulty.address}/{name}", Blob.of_bytes(BIG, sha(BIG)))
    finally:
        faulty.close()
    # One chunk was tried; from then on the registry is known to take none.
    assert memory.bodies == [uploads.CHUNK, len(BIG), len(BIG)]


def test_a_registry_that_cannot_close_an_upload_of_chunks(plain: OciRegistry) -> None:
    memory = Memory(closing=500)
    faulty = Faulty(memory.answer)
    try:
        plain.push_blob(f"{faulty.address}/a", Blob.of_bytes(BIG, sha(BIG)))
    finally:
        faulty.close()
    chunks = [uploads.CHUNK, uploads.CHUNK, len(BIG) - 2 * uploads.CHUNK]
    assert memory.bodies == [*chunks, 0, len(BIG)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_mount_that_is_refused_is_an_upload(plain: OciRegistry, status: int) -> None:
    memory = Memory(mount=status)
    faulty = Faulty(memory.answer)
    try:
        place = f"{faulty.address}/a"
        plain.push_blob(place, Blob.of_bytes(b"x", sha(b"x")), "base")
    finally:
        faulty.close()
    assert memory.bodies == [1]


@pytest.mark.parametrize(
    ("location", "put"),
    [
        ("/v2/a/blobs/uploads/7?state=x", "/v2/a/blobs/uploads/7?state=x"),
        ("7?state=x", "/v2/a/blobs/uploads/7?state=x"),
        ("./7", "/v2/a/blobs/uploads/7"),
        ("../uploads/7", "/v2/a/blobs/uploads/7"),
        ("?state=x", "/v2/a/blobs/uploads/?state=x"),
    ],
)
def test_where_to_upload_to_is_relative_to_the_request(
    plain: OciRegistry, location: str, put: str
) -> None:
    faulty = Faulty(Memory(location=location).answer)
    try:
        plain.push_blob(f"{faulty.address}/a", Blob.of_bytes(b"x", sha(b"x")))
    finally:
        faulty.close()
    (asked,) = [one for one in faulty.asked if one.startswith("PUT ")]
    assert asked.removeprefix("PUT ").startswith(put)


class Faulty:
    """A server that answers as a test says; ``asked`` are the requests."""

    def __init__(self, answer: Callable[..., tuple[int, dict[str, str], bytes]]) -> None:
        self.asked: list[str] = []
        outer = self
        wants_body = len(inspect.signature(answer).parameters) == 4

        class Handler(http.server.BaseHTTPRequestHandler):
            def _any(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append(f"{self.command} {self.path}")
                given = (self.command, self.path, len(outer.asked))
                status, headers, body = answer(*given, *([sent] if wants_body else []))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says", "asked"),
    [
        (403, b'{"errors":[{"code":"DENIED","message":"no"}]}', "does not let you read", 1),
        (429, b"", "too many requests", 4),
        (500, b'{"errors":[{"code":"UNKNOWN","message":"bad day"}]}', "500 for .*bad day", 4),
        (500, b'{"errors":[{"detail":"no space left on device"}]}', "has no space left", 1),
        (500, b'{"errors":[{"detail":{"Op":"write","Err":28}}]}', "has no space left", 1),
        (503, b"<html>", "answered 503", 4),
        (400, b'{"errors":[{"message":"\\u001b[31mred"}]}', r"answered 400 for a?.*\[31mred", 1),
    ],
)
def test_refusals(status: int, body: bytes, says: str, asked: int) -> None:
    """Tried again where that helps, then one line without control characters."""
    faulty = Faulty(lambda method, path, number: (status, {"Retry-After": "0"}, body))
    try:
        with pytest.raises(OutsideError, match=says) as caught:
            OciRegistry({"HOME": "/"}, patience=_QUICK).manifest(f"{faulty.address}/a:1")
        assert len(faulty.asked) == asked
        assert caught.value.message().isprintable()
    finally:
        faulty.close()


def test_slow() -> None:
    """A registry that takes the request and says nothing."""
    over = threading.Event()

    def answer(method: str, path: str, number: int) -> tuple[int, dict[str, str], bytes]:
        over.wait(30)
        return 200, {}, b""

    faulty = Faulty(answer)
    client = OciRegistry({"HOME": "/"}, patience=Patience(2, 0.01))
    client.host(faulty.address).timeout = (1.0, 0.1)
    try:
        with pytest.raises(OutsideError, match="does not answer; check the network"):
            client.digest(f"{faulty.address}/a:1")
        assert len(faulty.asked) == 2
    finally:
        over.set()
        faulty.close()


def test_comes_back(plain: OciRegistry) -> None:
    """500 twice, then an answer."""
    body = b'{"mediaType": "application/vnd.oci.image.manifest.v1+json"}'
    faulty = Faulty(lambda m, path, number: (500, {}, b"") if number < 3 else (200, {}, body))
    try:
        manifest = plain.manifest(f"{faulty.address}/a:1")
        assert manifest is not None
        assert manifest.digest == sha(body)
    finally:
        faulty.close()


def test_a_damaged_answer_is_refused(plain: OciRegistry) -> None:
    faulty = Faulty(lambda method, path, number: (200, {}, b'{"a": 1}'))
    try:
        with pytest.raises(OutsideError, match="another manifest than"):
            plain.manifest(f"{faulty.address}/a@sha256:{'0' * 64}")
        with pytest.raises(OutsideError, match="is damaged"):
            plain.blob(f"{faulty.address}/a", f"sha256:{'0' * 64}")
    finally:
        faulty.close()


def test_the_login_stays_with_its_host(tmp_path: Path) -> None:
    """An upload's place on another host does not get the login."""
    seen: list[str] = []
    other = Faulty(lambda method, path, number: (201, {}, b""))

    def answer(method: str, path: str, number: int) -> tuple[int, dict[str, str], bytes]:
        seen.append(method)
        if method == "HEAD":
            return (
                (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
                if number == 1
                else (404, {}, b"")
            )
        return 202, {"Location": f"http://{other.address}/upload?x=1"}, b""

    first = Faulty(answer)
    headers: list[Any] = []
    handler: Any = other.server.RequestHandlerClass
    original = handler.parse_request

    def noted(self: Any) -> Any:
        known = original(self)
        headers.append(dict(self.headers))
        return known

    handler.parse_request = noted
    try:
        client = OciRegistry(login(tmp_path / "c", auths={first.address: auth()}))
        client.push_blob(f"{first.address}/a", Blob.of_bytes(b"x", sha(b"x")))
        assert other.asked == [f"PUT /upload?x=1&digest={sha(b'x').replace(':', '%3A')}"]
        assert len(headers) == 1
        assert "Authorization" not in headers[0]
    finally:
        first.close()
        other.close()
