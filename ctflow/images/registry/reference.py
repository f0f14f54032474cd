"""Image references, as the docker client reads them: ``host/repository:tag@digest``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ctflow.errors import ConfigError

DOCKER_HUB = "docker.io"
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9-]+)*(?::[0-9]+)?"
    r"|\[[0-9a-fA-F:]+\](?::[0-9]+)?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A parsed reference. ``tag`` is ``latest`` where neither tag nor digest was given."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def version(self) -> str:
        """What the registry's API is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def at(self, version: str) -> Reference:
        """The same repository at another tag or digest."""
        if version.startswith("sha256:"):
            return replace(self, tag=None, digest=version)
        return replace(self, tag=version, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Parse a reference; the first part is a host if it has a dot or a port, or is localhost.

    Raises:
        ConfigError: it is none.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _wrong(text, "after @ there must be sha256: and 64 hexadecimal digits")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, path = head, tail
    else:
        host, path = DOCKER_HUB, rest
    path, colon, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, "the tag has characters that are not allowed")
    if not _HOST.fullmatch(host) or not _REPOSITORY.fullmatch(path):
        raise _wrong(text, "names are lower-case letters and digits, with single . _ - between")
    return Reference(host, path, tag or (None if digest else "latest"), digest or None)


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"{text!r} is not an image reference", cause=why, next="correct it")
