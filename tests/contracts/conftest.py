"""Every adapter of a port, so that one suite can run over them all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.model_stores import FolderWorld, S3World, StoreWorld
from tests.object_servers import S3_ENVIRON, s3_client, s3_server


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """A real S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StoreWorld:
    """An empty model store of each kind."""
    if request.param == "folder":
        return FolderWorld(tmp_path)
    for name, value in S3_ENVIRON.items():
        monkeypatch.setenv(name, value)
    address = request.getfixturevalue("s3_address")
    bucket = f"models-{uuid.uuid4().hex[:12]}"
    s3_client(address).create_bucket(Bucket=bucket)
    return S3World(tmp_path, address, bucket)
