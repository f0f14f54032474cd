"""The model stores that the contract is tried on, and what a test does behind their backs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import obstore
from obstore.store import AzureStore

from ctflow.ports import ModelStore
from ctflow.stores.folder_store import FolderStore
from ctflow.stores.object_store import open_store
from tests.cloud_emulators import ACCOUNT
from tests.object_servers import s3_client


class StoreWorld(Protocol):
    """One store, seen from as many machines as a test asks for."""

    #: Words for ``killed_put.py`` that name the store.
    words: tuple[str, ...]

    def machine(self) -> ModelStore:
        """The store as a machine sees it that has never looked at it."""
        ...

    def contents(self) -> dict[str, bytes]:
        """What is kept, by paths from the store's place."""
        ...

    def overwrite(self, path: str, data: bytes) -> None:
        """Damage something that is kept."""
        ...

    def remove(self, path: str) -> None:
        """Remove something that is kept."""
        ...


class FolderWorld:
    """A folder that all machines see."""

    def __init__(self, base: Path) -> None:
        self.root = base / "store"
        self.words: tuple[str, ...] = ("folder", str(self.root))

    def machine(self) -> ModelStore:
        return FolderStore(self.root)

    def contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and ".new-" not in str(path)
        }

    def overwrite(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    def remove(self, path: str) -> None:
        place = self.root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()


class S3World:
    """A bucket, below a prefix; each machine has a cache of its own."""

    prefix = "team/models"

    def __init__(self, base: Path, address: str, bucket: str) -> None:
        self.base, self.address, self.bucket = base, address, bucket
        self.url = f"s3://{bucket}/{self.prefix}"
        self.client = s3_client(address)
        self.machines = 0
        self.words: tuple[str, ...] = ("s3", self.url, address, str(base / "killed-cache"))

    def machine(self) -> ModelStore:
        self.machines += 1
        return open_store(self.url, self.address, self.base / f"cache-{self.machines}")

    def contents(self) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        assert all(key.startswith(f"{self.prefix}/") for key in keys)
        return {
            key.removeprefix(f"{self.prefix}/"): self.client.get_object(
                Bucket=self.bucket, Key=key
            )["Body"].read()
            for key in keys
        }

    def overwrite(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{path}", Body=data)

    def remove(self, path: str) -> None:
        for key in self.contents():
            if key == path or key.startswith(f"{path}/"):
                self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")


class AzureWorld:
    """A container of Azurite; the library itself stands for Azure's own tools."""

    prefix = "team/models"

    def __init__(self, base: Path, address: str, bucket: str) -> None:
        self.base, self.address = base, address
        self.url = f"az://{bucket}/{self.prefix}"
        self.machines = 0
        self.words: tuple[str, ...] = ("az", self.url, address, str(base / "killed-cache"))
        self.behind = AzureStore(
            bucket,
            prefix=self.prefix,
            config={"endpoint": address, "account_name": ACCOUNT},
            client_options={"allow_http": True},
        )

    def machine(self) -> ModelStore:
        self.machines += 1
        return open_store(self.url, self.address, self.base / f"cache-{self.machines}")

    def contents(self) -> dict[str, bytes]:
        return {
            one["path"]: bytes(obstore.get(self.behind, one["path"]).bytes())
            for one in obstore.list(self.behind).collect()
        }

    def overwrite(self, path: str, data: bytes) -> None:
        obstore.put(self.behind, path, data)

    def remove(self, path: str) -> None:
        for key in self.contents():
            if key == path or key.startswith(f"{path}/"):
                obstore.delete(self.behind, key)
