"""Every adapter of a port, so that one suite can run over them all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud_emulators import (
    AZURE_ENVIRON,
    azure_server,
    has_azurite,
    make_azure_container,
)
from tests.contracts.model_stores import AzureWorld, FolderWorld, S3World, StoreWorld
from tests.object_servers import S3_ENVIRON, s3_client, s3_server


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """A real S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def az_address() -> Iterator[str]:
    """Azurite."""
    with azure_server() as address:
        yield address


@pytest.fixture(params=["folder", "s3", *(["az"] if has_azurite() else [])])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StoreWorld:
    """An empty model store of each kind."""
    kind = request.param
    if kind == "folder":
        return FolderWorld(tmp_path)
    for name, value in (S3_ENVIRON if kind == "s3" else AZURE_ENVIRON).items():
        monkeypatch.setenv(name, value)
    # Whatever would leave this machine ends here: the library asks clouds' machines who they are.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address = request.getfixturevalue(f"{kind}_address")
    bucket = f"models-{uuid.uuid4().hex[:12]}"
    if kind == "s3":
        s3_client(address).create_bucket(Bucket=bucket)
        return S3World(tmp_path, address, bucket)
    make_azure_container(address, bucket)
    return AzureWorld(tmp_path, address, bucket)
