"""A base image as the registry has it, for one platform: config, layers, what is inside."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, OutsideError
from ctflow.images.registry import Manifest, OciRegistry, Reference, parse_reference
from ctflow.lib.files import write_file

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_PYTHON = re.compile(r"(?P<prefix>usr/local|usr|opt/[^/]+)/bin/python3\.(?P<minor>\d+)$")
_DIST = re.compile(
    r".*/(?:site|dist)-packages/(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info/METADATA$"
)
#: A layer is written by tools, not by us: nobody needs more entries to see what it holds.
_MOST_ENTRIES = 2_000_000


@dataclass(frozen=True)
class Contents:
    """What installing into a base has to know.

    ``prefix`` and ``python`` are such as ``/usr/local`` and ``3.11``; ``installed`` maps
    distributions to versions; ``folders`` are paths without the first slash.
    """

    prefix: str
    python: str
    musl: bool
    installed: Mapping[str, str]
    folders: frozenset[str]
    links: Mapping[str, str]


@dataclass(frozen=True)
class BaseImage:
    """A base for one platform."""

    reference: Reference
    manifest: Manifest
    config: Mapping[str, Any]

    @property
    def platform(self) -> str:
        """``linux/amd64``."""
        return f"{self.config.get('os', 'linux')}/{self.config.get('architecture', 'amd64')}"

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The descriptors of its layers."""
        return list(self.manifest.body["layers"])


def own_platform() -> str:
    """This machine's, as images are called."""
    return f"linux/{_MACHINES.get(os.uname().machine, os.uname().machine)}"


def load_base(registry: OciRegistry, text: str, platform: str | None) -> BaseImage:
    """A base for a platform; None: this machine's, or the only one that it has.

    Raises:
        ConfigError: there is no such image, or not for this platform.
        OutsideError: the registry fails.
    """
    reference = parse_reference(text)
    manifest = registry.manifest(text)
    if manifest is None:
        raise ConfigError(f"the base image {text} does not exist", next="correct images.base")
    if manifest.is_index:
        wanted = platform or own_platform()
        listed = registry.platforms(text)
        match = next((digest for name, digest in listed.items()
                      if name == wanted or name.startswith(f"{wanted}/")), None)  # fmt: skip
        if match is None:
            raise _not_for(text, wanted, sorted(listed))
        reference = reference.at(match)
        manifest = registry.manifest(str(reference))
        if manifest is None:
            raise OutsideError(f"the registry lists {reference}, but does not have it")
    config = json.loads(registry.blob(str(reference), str(manifest.body["config"]["digest"])))
    base = BaseImage(reference, manifest, config)
    if platform is not None and base.platform != "/".join(platform.split("/")[:2]):
        raise _not_for(text, platform, [base.platform])
    return base


def _not_for(text: str, wanted: str, there: list[str]) -> ConfigError:
    return ConfigError(
        f"the base image {text} has no {wanted} image",
        next=f"set images.platforms; it has {', '.join(there) or 'none'}",
    )


def look_inside(registry: OciRegistry, base: BaseImage, cache: Path) -> Contents:
    """The contents of a base, read once by digest and kept in ``cache``.

    Raises:
        ConfigError: it has no Python.
    """
    file = cache / f"{base.manifest.digest.partition(':')[2]}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Contents(**{**kept, "folders": frozenset(kept["folders"])})
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there, or written by another version: look again
    found = _scan(registry, base)
    write_file(file, json.dumps({**asdict(found), "folders": sorted(found.folders)}))
    return found


def _scan(registry: OciRegistry, base: BaseImage) -> Contents:
    folders: set[str] = set()
    links: dict[str, str] = {}
    pythons: dict[str, str] = {}
    installed: dict[str, str] = {}
    musl = False
    for layer in base.layers:
        chunks = registry.stream(str(base.reference), str(layer["digest"]))
        for info in _entries(chunks, str(layer.get("mediaType", ""))):
            path = info.name.removeprefix("./").strip("/")
            if info.isdir():
                folders.add(path)
            elif info.issym() and path.count("/") < 2:
                links[path] = info.linkname
            if (match := _PYTHON.fullmatch(path)) is not None:
                pythons[f"/{match['prefix']}"] = f"3.{match['minor']}"
            elif (match := _DIST.fullmatch(path)) is not None:
                installed[normal(match["name"])] = match["version"]
            musl = musl or path.startswith("lib/ld-musl-")
    words = dict(w.partition("=")[::2] for w in base.config.get("config", {}).get("Env") or [])
    for place in (*str(words.get("PATH", "")).split(":"), "/usr/local/bin", "/usr/bin"):
        prefix = place.removesuffix("/bin")
        if prefix in pythons:
            kept = {path for path in folders if "/python3." not in path}
            return Contents(prefix, pythons[prefix], musl, installed, frozenset(kept), links)
    raise ConfigError(
        f"the base image {base.reference} has no Python on its PATH",
        next="use a base such as python:3.11-slim, or build with docker or podman",
    )


def normal(name: str) -> str:
    """A distribution's name, normalised as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _entries(chunks: Iterator[bytes], media_type: str) -> Iterator[tarfile.TarInfo]:
    if media_type.endswith("zstd"):
        raise ConfigError(
            "the base image has layers in zstd, which cannot be read here",
            next="build with docker, podman or buildctl",
        )
    stream = _Stream(chunks, gzip=not media_type.endswith(".tar"))
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream, 1 << 18), mode="r|") as tar:
            for number, info in enumerate(tar):
                if number > _MOST_ENTRIES:
                    raise OutsideError("a layer of the base image has too many entries")
                yield info
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise OutsideError(f"a layer of the base image cannot be read: {error}") from None


class _Stream(io.RawIOBase):
    """Chunks as a file, unpacked on the way."""

    def __init__(self, chunks: Iterator[bytes], *, gzip: bool) -> None:
        super().__init__()
        self._chunks = chunks
        self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzip else None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                return 0
            self._rest = self._inflate(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _inflate(self, chunk: bytes) -> bytes:
        if self._unpack is None:
            return chunk
        out = self._unpack.decompress(chunk)
        # pigz and others write several gzip members one after another.
        while self._unpack.eof and self._unpack.unused_data:
            rest = self._unpack.unused_data
            self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
            out += self._unpack.decompress(rest)
        return out
