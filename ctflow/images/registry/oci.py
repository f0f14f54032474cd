"""An OCI registry: manifests, blobs, tags.

Written over requests: of the libraries, ``oras`` (0.2) has no types, neither mounts blobs nor
resumes uploads, and takes jsonschema along; a registry's API is small.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ctflow.errors import ConfigError, OutsideError
from ctflow.images.registry.blobs import Blob, begin, give_up, upload
from ctflow.images.registry.credentials import Keychain
from ctflow.images.registry.http import Host
from ctflow.images.registry.reference import Reference, parse_reference
from ctflow.rest.patience import Patience

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_ACCEPT = {"Accept": ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))}
#: A manifest is small; the specification tells registries to take 4 MiB.
_LARGEST = 8 << 20


@dataclass(frozen=True)
class Manifest:
    """A manifest or index: its digest, media type, bytes and JSON."""

    digest: str
    media_type: str
    data: bytes
    body: Mapping[str, Any]

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests by platform."""
        return self.media_type in INDEXES


class OciRegistry:
    """Implements ``Registry``. Safe to use from several threads.

    Args:
        environ: where logins are looked for.
        insecure: hosts that are spoken to in plain HTTP, beside those of this machine.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        insecure: frozenset[str] = frozenset(),
        patience: Patience | None = None,
    ) -> None:
        self._keychain = Keychain(environ)
        self._insecure = insecure
        self._patience = patience or Patience()
        self._hosts: dict[str, Host] = {}
        self._lock = threading.Lock()

    def digest(self, reference: str) -> str | None:
        """As the port says. Raises OutsideError."""
        where = parse_reference(reference)
        answer = self._manifest("HEAD", where)
        if answer is None:
            return None
        found = answer.headers.get("Docker-Content-Digest", "")
        if found.startswith("sha256:"):
            return str(found)
        manifest = self.manifest(reference)  # an old registry: count it ourselves
        return manifest.digest if manifest else None

    def manifest(self, reference: str, attempts: int | None = None) -> Manifest | None:
        """A manifest or index, checked against its digest; None where there is none."""
        where = parse_reference(reference)
        answer = self._manifest("GET", where, attempts)
        if answer is None:
            return None
        data = answer.content
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if where.digest and digest != where.digest:
            raise OutsideError(
                f"registry {where.host} returned another manifest than {where}",
                next="tell the administrator of the registry",
            )
        try:
            body = json.loads(data)
            kind = str(body.get("mediaType") or answer.headers.get("Content-Type", ""))
        except (ValueError, AttributeError):
            raise OutsideError(
                f"the manifest of {where} is not JSON", next="push the image again"
            ) from None
        return Manifest(digest, kind.partition(";")[0], data, body)

    def platforms(self, reference: str) -> dict[str, str]:
        """``os/architecture[/variant]`` -> manifest digest, of an index; {} for a manifest."""
        manifest = self.manifest(reference)
        if manifest is None or not manifest.is_index:
            return {}
        found = {}
        for one in manifest.body.get("manifests", []):
            platform = one.get("platform") or {}
            words = [platform.get(key) for key in ("os", "architecture", "variant")]
            if words[0] != "unknown":  # BuildKit's attestations
                found["/".join(str(word) for word in words if word)] = str(one["digest"])
        return found

    def blob(self, reference: str, digest: str, largest: int = _LARGEST) -> bytes:
        """A small blob of a repository, such as an image's config; checked."""
        return b"".join(self.stream(reference, digest, largest))

    def stream(self, reference: str, digest: str, largest: int = 1 << 40) -> Iterator[bytes]:
        """A blob's bytes; OutsideError at the end if they are not those of its digest."""
        where = parse_reference(reference)
        answer = self.host(where.host).request(
            "GET", f"/v2/{where.repository}/blobs/{digest}", repository=where.repository,
            stream=True,
        )  # fmt: skip
        sha, size = hashlib.sha256(), 0
        for chunk in answer.iter_content(1 << 18):
            size += len(chunk)
            sha.update(chunk)
            if size > largest:
                raise OutsideError(f"blob {digest} of {where.name} is larger than {largest} bytes")
            yield chunk
        if f"sha256:{sha.hexdigest()}" != digest:
            raise OutsideError(
                f"blob {digest} of {where.name} is damaged", next="run the same command again"
            )

    def has_blob(self, reference: str, digest: str) -> bool:
        """Whether the repository has the blob."""
        where = parse_reference(reference)
        answer = self.host(where.host).request(
            "HEAD", f"/v2/{where.repository}/blobs/{digest}", repository=where.repository,
            push=True, accept=frozenset({404}),
        )  # fmt: skip
        return answer.status_code != 404

    def push_blob(self, reference: str, blob: Blob, mount: str | None = None) -> bool:
        """Put a blob into a repository; whether bytes had to be sent.

        Args:
            mount: a repository of the same registry that has it; the registry then copies it
                itself where it can.
        """
        where = parse_reference(reference)
        if self.has_blob(reference, blob.digest):
            return False
        return upload(self.host(where.host), where.repository, blob, mount)

    def check_push(self, reference: str) -> None:
        """Begin an upload to the repository, and give it up; nothing is left there.

        Raises:
            OutsideError: the registry does not take it: no login, no right, no space.
        """
        where = parse_reference(reference)
        host = self.host(where.host)
        place = begin(host, where.repository)
        if place is not None:
            give_up(host, where.repository, place)

    def push_manifest(
        self, reference: str, media_type: str, data: bytes, attempts: int | None = None
    ) -> str:
        """Put a manifest under the reference's tag or digest; its digest."""
        where = parse_reference(reference)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.host(where.host).request(
            "PUT", f"/v2/{where.repository}/manifests/{where.version}",
            repository=where.repository, push=True, headers={"Content-Type": media_type},
            body=lambda: data, attempts=attempts,
        )  # fmt: skip
        return digest

    def tags(self, repository: str) -> list[str]:
        """The tags of ``host/repository``, sorted; [] where there is no such repository."""
        where = parse_reference(repository)
        host = self.host(where.host)
        path: str | None = f"/v2/{where.repository}/tags/list?n=1000"
        found: list[str] = []
        while path is not None:
            answer = host.request("GET", path, repository=where.repository, accept=frozenset({404}))
            if answer.status_code == 404:
                break
            found += answer.json().get("tags") or []
            following = answer.links.get("next", {}).get("url")
            if following and urlsplit(following).netloc not in ("", urlsplit(host.base).netloc):
                break
            path = following
        return sorted(found)

    def delete(self, reference: str) -> None:
        """Remove the manifest of a reference with a digest, and with it all its tags."""
        where = parse_reference(reference)
        if where.digest is None:
            raise ConfigError(f"{reference} has no digest", next="name what to delete by digest")
        answer = self.host(where.host).request(
            "DELETE", f"/v2/{where.repository}/manifests/{quote(where.digest)}",
            repository=where.repository, push=True, accept=frozenset({404, 405}),
        )  # fmt: skip
        if answer.status_code == 405:
            raise OutsideError(
                f"registry {where.host} does not allow images to be deleted",
                next="turn deletion on there, or use the registry's own clean-up",
            )

    def clock(self, reference: str) -> float:
        """Seconds since 1970 by the registry's own clock, as in its last answer; to a second."""
        return time.time() + self.host(parse_reference(reference).host).skew

    def host(self, name: str) -> Host:
        """The client of one host, made once."""
        with self._lock:
            if name not in self._hosts:
                self._hosts[name] = Host(
                    name, self._keychain, name in self._insecure, self._patience
                )
            return self._hosts[name]

    def _manifest(self, method: str, where: Reference, attempts: int | None = None) -> Any:
        answer = self.host(where.host).request(
            method, f"/v2/{where.repository}/manifests/{where.version}",
            repository=where.repository, headers=_ACCEPT, accept=frozenset({404}),
            attempts=attempts,
        )  # fmt: skip
        return None if answer.status_code == 404 else answer
