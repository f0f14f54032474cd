"""The URL of a model store: what ``store.models`` and ``ctflow store`` take besides a folder."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ctflow.lib.quick import dataclass

#: The schemes of object stores, and what people call them.
OBJECT_STORES = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
#: A part of a prefix: nothing that a URL, a shell or KServe's downloader would read otherwise.
_PART = re.compile(r"[A-Za-z0-9_.=+~-]+")


@dataclass(frozen=True)
class StoreUrl:
    """``scheme://bucket/prefix``; ``prefix`` without slashes at its ends, empty for none."""

    scheme: str
    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def folder_of(place: str) -> str | None:
    """The folder that a store's place names, or None where it is a URL of another kind."""
    if place.startswith("file://"):
        return place.removeprefix("file://")
    return None if "://" in place else place


def parse_store_url(text: str) -> StoreUrl:
    """The store that a URL names.

    Raises:
        ValueError: with what is wrong. The URL is not repeated in it, for it may hold a password.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in OBJECT_STORES:
        known = ", ".join(f"{name}://" for name in OBJECT_STORES)
        raise ValueError(f"a model store is a folder or one of {known}; this is neither")
    host, _, prefix = rest.partition("/")
    if "@" in rest:
        raise ValueError(
            "the URL holds credentials; leave them to the environment and write"
            f" {scheme}://bucket/prefix"
        )
    if any(mark in rest for mark in "?#"):
        raise ValueError(f"the URL holds a query or a fragment; write {scheme}://bucket/prefix")
    if not _BUCKET.fullmatch(host):
        raise ValueError(f"the URL names no bucket; write {scheme}://bucket/prefix")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    for part in parts:
        if part in {".", ".."} or not _PART.fullmatch(part):
            raise ValueError(
                "the URL's prefix has a part that is not made of letters, digits and _.=+~-;"
                " choose another prefix"
            )
    return StoreUrl(scheme, host, "/".join(parts))


def check_place(place: str) -> str:
    """Return ``place`` if it names a folder or an object store; raises ValueError."""
    if folder_of(place) is None:
        parse_store_url(place)
    return place


def check_endpoint(text: str) -> str:
    """Return ``text`` if it is the address of an object store's server; raises ValueError."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("that is no URL; write https://host:port") from None
    if parts.username is not None or "@" in parts.netloc:
        raise ValueError("the URL holds credentials; leave them to the environment")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write https://host:port, or http://host:port for a server without TLS")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("the URL holds a query or a fragment; write https://host:port")
    return text.rstrip("/")
