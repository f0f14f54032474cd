"""The registry client and the builder without an engine, against registries of different makers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.images.registry import Blob, OciRegistry
from ctflow.images.registry import blobs as uploads
from tests.containers import Containers, Crane, Distribution, RegistryServer
from tests.e2e.test_images_registry import push, sha
from tests.e2e.test_images_run import call

KINDS: dict[str, tuple[str, type[RegistryServer]]] = {
    "docker-registry": ("docker-registry", RegistryServer),
    "distribution": ("distribution", Distribution),
    "crane": ("crane", Crane),
}


@pytest.fixture(params=list(KINDS))
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryServer]:
    program, kind = KINDS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: run .ci/install-registries, its folder on PATH")
    server = kind(tmp_path / "registry").start()
    yield server
    server.kill()


@pytest.fixture
def client() -> OciRegistry:
    return OciRegistry({"HOME": "/nonexistent"})


def test_push_read_and_find(registry: RegistryServer, client: OciRegistry) -> None:
    name = f"{registry.address}/open/one"
    assert client.digest(f"{name}:1") is None
    digest = push(client, name)
    push(client, name, "2")
    assert client.digest(f"{name}:1") == digest
    manifest = client.manifest(f"{name}@{digest}")
    assert manifest is not None
    assert manifest.digest == digest
    assert sorted(client.tags(name)) == ["1", "2"]
    assert client.blob(name, sha(b"layer")) == b"layer"


def test_a_blob_of_another_repository(registry: RegistryServer, client: OciRegistry) -> None:
    push(client, f"{registry.address}/open/from", layer=b"shared")
    blob = Blob.of_bytes(b"shared", sha(b"shared"))
    target = f"{registry.address}/open/to"
    client.push_blob(target, blob, mount="open/from")
    assert client.blob(target, blob.digest) == b"shared"
    client.push_blob(target, Blob.of_bytes(b"x", sha(b"x")), mount="open/from")
    assert client.blob(target, sha(b"x")) == b"x"


def test_a_large_blob(
    registry: RegistryServer, client: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNKED_FROM", 100_000)
    monkeypatch.setattr(uploads, "CHUNK", 70_000)
    data = bytes(range(256)) * 2000
    name = f"{registry.address}/open/large"
    assert client.push_blob(name, Blob.of_bytes(data, sha(data)))
    assert client.blob(name, sha(data)) == data


def test_images_without_an_engine(
    containers: Containers, registry: RegistryServer, tmp_path: Path
) -> None:
    """Built on a base of the same registry, found again, and run from there."""
    base = f"{registry.address}/bases/python:3"
    containers.run(["podman", "pull", "-q", containers.base])
    containers.run(["podman", "tag", containers.base, base])
    containers.run(["podman", "push", "-q", "--tls-verify=false", base])
    root = tmp_path / "project"
    (root / "steps/one").mkdir(parents=True)
    (root / "steps/one/main.py").write_text("print('hello')\n")
    (root / "steps/one/requirements.txt").write_text("")
    (root / "steps/one/Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nWORKDIR /step\nCOPY main.py ./\n"
    )
    (root / "ctflow.yaml").write_text(
        f"project: small\nimages:\n  registry: {registry.address}/acme\n  base: {base}\n"
        "  builder: layers\n"
    )
    environ = {**containers.environ, "CTFLOW_CACHE": str(tmp_path / "cache")}
    first = json.loads(call(root, environ, "build", "--push", "--json"))
    again: dict[str, Any] = json.loads(call(root, environ, "build", "--push", "--json"))
    assert [one["built"] for one in first["images"]] == [True]
    assert [one["built"] for one in again["images"]] == [False]
    reference = first["images"][0]["reference"]
    assert again["images"][0]["reference"] == reference
    words = ["podman", "run", "--rm", "--tls-verify=false", reference, "python", "main.py"]
    assert containers.run(words).strip() == "hello"
