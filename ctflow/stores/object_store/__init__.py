"""The model store in a bucket: S3 and what speaks it, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ctflow.model.store_url import StoreUrl, parse_store_url
from ctflow.stores.object_store.bucket import Bucket
from ctflow.stores.object_store.copying import origin_of
from ctflow.stores.object_store.opening import open_bucket
from ctflow.stores.object_store.store import ObjectStore

__all__ = ["ObjectStore", "open_store"]


def open_store(
    url: str,
    endpoint: str | None,
    cache: Path,
    environ: Mapping[str, str] = os.environ,
    project: Path | None = None,
) -> ObjectStore:
    """The store at a URL; no server is asked yet.

    Args:
        endpoint: the server's address; None: that of the environment, else the provider's own.
        cache: the user's cache folder.
        project: the local state of the project that asks; None: none does.
        environ: what says who asks; the library reads the process's own besides.

    Raises:
        ConfigError: ``ctflow[object-store]`` is not installed.
        OutsideError: nothing says who asks.
    """
    parsed = parse_store_url(url)

    def root() -> Bucket:
        return open_bucket(StoreUrl(parsed.scheme, parsed.bucket), endpoint, environ)

    bucket = open_bucket(parsed, endpoint, environ)
    return ObjectStore(bucket, cache, project, lambda source: origin_of(source, parsed, root))
