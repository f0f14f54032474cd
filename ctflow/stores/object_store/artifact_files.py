"""The files that a cluster's runs left in a bucket: the ``ArtifactFiles`` port.

Local copies lie in the user's cache folder, ``artifacts/``: ``sha256-<digest>/<name>`` holds a
content, whole or not there, and ``uris/<SHA-256 of the URI>.json`` says which content a URI had,
and what the store said of its objects then (sizes and ETags). Where it says the same still, nothing
is brought again. ``minio://`` is KFP's word for S3 on a server of one's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.lib.digests import digest_bytes, digest_file, digest_path, hexadecimal, listing
from ctflow.lib.files import write_file
from ctflow.lib.secrets import KNOWN
from ctflow.lib.text import one_line
from ctflow.model.store_url import StoreUrl, parse_store_url
from ctflow.stores.local_copies import LocalCopies
from ctflow.stores.local_disk import disk
from ctflow.stores.model_entries import entry_name, fresh_folder, publish, whole
from ctflow.stores.object_store.bucket import Bucket
from ctflow.stores.object_store.manifest import File, plain_name
from ctflow.stores.object_store.transfer import download, upload

_AGAIN = "run the same command again"
Stamps = dict[str, tuple[int, str]]


class BucketFiles:
    """Artifacts in buckets; their local copies below ``cache``, the user's cache folder.

    Args:
        open_bucket: opens the bucket of a URL without a prefix.
    """

    def __init__(self, open_bucket: Callable[[StoreUrl], Bucket], cache: Path) -> None:
        self._bucket = lru_cache(maxsize=None)(open_bucket)
        self._cache = cache / "artifacts"
        self._copies = LocalCopies(self._cache)

    def fetch(self, uri: str) -> tuple[Path, str, int]:
        """A local copy of what is at a URI, its digest and size. Raises as the port says."""
        bucket, path = self._at(uri)
        stamps = bucket.stamps(path)
        if not stamps:
            raise StateError(f"there is nothing at {one_line(uri, 300)}", next="was it removed?")
        index = self._cache / "uris" / f"{hexadecimal(digest_bytes(uri.encode()))}.json"
        with disk(self._cache):
            place = None
            if digest := _known(index, uri, stamps):
                self._copies.hold(digest)
                place = whole(self._cache / entry_name(digest), digest)
            if place is None:
                place, digest = self._bring(bucket, path, stamps)
                said = {"uri": uri, "stamps": stamps, "digest": digest}
                write_file(index, json.dumps(said))
        return place, digest, sum(size for size, _ in stamps.values())

    def below(self, uri: str) -> Sequence[str]:
        """The paths of the objects below a URI, relative to it."""
        bucket, path = self._at(uri)
        return [one.removeprefix(f"{path}/") for one in bucket.sizes(path)]

    def put(self, uri: str, content: Path) -> None:
        """Write a file, or a folder's files, to a URI."""
        bucket, path = self._at(uri)
        if content.is_dir():
            files = [(f"/{name.decode()}", digest, size) for name, digest, size in listing(content)]
        else:
            files = [("", *digest_file(content))]
        there = bucket.stamps(path)
        upload(
            bucket,
            (
                (f"{path}{name}", content / name[1:] if name else content, File("", digest, size))
                for name, digest, size in files
                if there.get(f"{path}{name}", (-1, ""))[0] != size
            ),
        )

    def _at(self, uri: str) -> tuple[Bucket, str]:
        scheme, _, rest = uri.partition("://")
        bucket, _, path = rest.partition("/")
        path = path.partition("?")[0].strip("/")
        try:
            url = parse_store_url(f"{'s3' if scheme == 'minio' else scheme}://{bucket}")
        except ValueError:
            url = None
        if url is None or not path or {".", ".."} & set(path.split("/")):
            raise ConfigError(
                f"{one_line(uri, 300)!r} is no place in a bucket",
                next="keep the runs' artifacts in minio://, s3:// or gs://",
            )
        return self._bucket(url), path

    def _bring(self, bucket: Bucket, path: str, stamps: Stamps) -> tuple[Path, str]:
        name = plain_name(PurePosixPath(path).name)
        with fresh_folder(self._cache) as fresh:
            target = fresh / name
            if path in stamps:
                files = [(path, target, stamps[path][0])]
            else:
                target.mkdir()
                files = [
                    (one, _inside(target, one.removeprefix(f"{path}/")), size)
                    for one, (size, _) in stamps.items()
                    if not one.endswith("/")
                ]
            download(bucket, files, _AGAIN)
            digest, _ = digest_path(target)
            # What was written while it was read is another content than any of the two.
            if bucket.stamps(path) != stamps:
                raise OutsideError(f"{bucket.uri(path)} changed while it was read", next=_AGAIN)
            self._copies.hold(digest)
            return publish(fresh, self._cache / entry_name(digest), digest), digest


def _known(index: Path, uri: str, stamps: Stamps) -> str:
    """The digest that a URI's content had, if the store says still the same of it."""
    try:
        said: Any = json.loads(index.read_bytes())
        there = {path: (size, stamp) for path, (size, stamp) in said["stamps"].items()}
        digest = str(said["digest"]) if said["uri"] == uri and there == stamps else ""
        return digest if digest and hexadecimal(digest) else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _inside(folder: Path, path: str) -> Path:
    """A file below a folder. Raises OutsideError for a name that leads elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or "/" in parts or ".." in parts or "\0" in path:
        raise OutsideError(f"an object's name leads out of its folder: {one_line(path, 100)!r}")
    return folder.joinpath(*parts)


def open_files(
    endpoint: str | None,
    cache: Path,
    environ: Mapping[str, str] = os.environ,
    key: str | None = None,
    secret: str | None = None,
    region: str | None = None,
) -> BucketFiles:
    """The artifacts of a cluster; no server is asked yet.

    Args:
        endpoint: the address of the S3 server as it is seen from here; None: the environment's.
        cache: the user's cache folder.
        key, secret: the variables that hold the access key and its secret; None: the environment
            says who asks in the provider's own way.
    """
    from ctflow.stores.object_store.opening import Access, open_bucket

    def opened(url: StoreUrl) -> Bucket:
        s3 = url.scheme == "s3"
        pair = (_said(environ, key), _said(environ, secret)) if s3 and key and secret else None
        access = Access("the artifact's URI", "kubeflow.artifacts.endpoint", pair, region or "")
        return open_bucket(url, endpoint if s3 else None, environ, access)

    return BucketFiles(opened, cache)


def _said(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigError(
            f"the environment variable {name} is not set",
            cause="kubeflow.artifacts names it",
            next="set it, or change kubeflow.artifacts",
        )
    KNOWN.add(value)
    return value
