"""Requirements as an image layer: resolved for the target platform by uv, packed reproducibly."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.images.builders.base_image import Contents, normal
from ctflow.images.builders.layer import Layer, pack
from ctflow.lib.locks import holding
from ctflow.steps.context import ContextFile
from ctflow.steps.uv_tool import find_uv, uv_environ, uv_error

#: Raised when what a layer is made of changes.
_LAYOUT = 1
_PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
#: What uv leaves at the top, for itself.
_OWN = frozenset({".lock", "CACHEDIR.TAG", ".gitignore", "pyvenv.cfg"})
_DIST = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
_RELATIVE = re.compile(
    r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.|file:)", re.MULTILINE
)


@dataclass(frozen=True)
class Wanted:
    """What is to be installed: the texts of the files, into which base, for which platform."""

    files: tuple[str, ...]
    contents: Contents
    platform: str

    def key(self) -> str:
        """Names the layer in the cache."""
        texts = [Path(file).read_text(encoding="utf-8-sig") for file in self.files]
        words = [str(_LAYOUT), self.contents.prefix, self.contents.python, self.platform,
                 str(self.contents.musl), *texts]  # fmt: skip
        if any(_RELATIVE.search(text) for text in texts):
            # It names other files, which may change while its own text does not.
            for file in self.files:
                beside = sorted(path for path in Path(file).parent.rglob("*") if path.is_file())
                words += [f"{path}:{path.stat().st_mtime_ns}" for path in beside]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()


def requirements_layer(wanted: Wanted, cache: Path, environ: Mapping[str, str]) -> Layer | None:
    """The layer, from the cache if it is there; None where nothing is required.

    Raises:
        ConfigError: they cannot be had together, or for the platform; or replace what the base has.
        OutsideError: the package index or the disk fails.
    """
    if not any(_lines(Path(file).read_text(encoding="utf-8-sig")) for file in wanted.files):
        return None
    key = wanted.key()
    cache.mkdir(parents=True, exist_ok=True)
    with holding(cache / f"{key}.lock"):
        if (kept := _kept(cache, key)) is not None:
            return kept
        with tempfile.TemporaryDirectory(prefix="install-", dir=cache) as scratch:
            place = Path(scratch) / "prefix"
            _install(wanted, place, environ)
            files = list(_installed(place, wanted.contents))
            layer = pack(files, cache / f"{key}.tar.gz", wanted.contents.folders)
        (cache / f"{key}.json").write_text(json.dumps({**asdict(layer), "file": ""}))
    return layer


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def _kept(cache: Path, key: str) -> Layer | None:
    file = cache / f"{key}.tar.gz"
    try:
        layer = Layer(**{**json.loads((cache / f"{key}.json").read_text()), "file": str(file)})
        return layer if file.stat().st_size == layer.size else None
    except (OSError, ValueError, TypeError):
        return None


def _install(wanted: Wanted, place: Path, environ: Mapping[str, str]) -> None:
    machine = _PLATFORMS.get("/".join(wanted.platform.split("/")[:2]))
    if machine is None:
        raise ConfigError(
            f"images for {wanted.platform} cannot be made without an engine",
            next=f"use one of {', '.join(_PLATFORMS)}, or docker or podman",
        )
    kind = "unknown-linux-musl" if wanted.contents.musl else "manylinux_2_28"
    argv = [find_uv(environ), "pip", "install", "--quiet", "--prefix", str(place), "--python",
            sys.executable, "--python-version", wanted.contents.python, "--python-platform",
            f"{machine}-{kind}", "--only-binary", ":all:", "--no-config", "--link-mode", "hardlink",
            *(word for file in wanted.files for word in ("-r", file))]  # fmt: skip
    variables = uv_environ(environ)
    done = subprocess.run(argv, env=variables, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode and b"hardlink" in done.stderr:
        shutil.rmtree(place, ignore_errors=True)
        argv[argv.index("hardlink")] = "copy"
        done = subprocess.run(argv, env=variables, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise uv_error(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


def _installed(place: Path, contents: Contents) -> Iterator[ContextFile]:
    """What uv has installed, at its paths in the image."""
    prefix = contents.prefix.strip("/")
    program = f"{contents.prefix}/bin/python{contents.python}"
    for folder, names, files in os.walk(place):
        names.sort()
        for name in sorted(files):
            source = Path(folder) / name
            relative = source.relative_to(place)
            if len(relative.parts) == 1 and name in _OWN:
                continue
            parts = list(relative.parts)
            if parts[0] in ("lib", "lib64") and len(parts) > 2 and parts[1].startswith("python"):
                parts[:2] = ["lib", f"python{contents.python}"]
            if parts[0] == "bin":
                _point_at(source, program)
            if name == "METADATA" and (match := _DIST.fullmatch(parts[-2])):
                _check_new(match["name"], match["version"], contents)
            status = source.stat()
            kind = "exec" if status.st_mode & 0o100 else "file"
            yield ContextFile("/".join((prefix, *parts)), str(source), kind, size=status.st_size)  # type: ignore[arg-type]


def _check_new(name: str, version: str, contents: Contents) -> None:
    there = contents.installed.get(normal(name))
    if there is not None and there != version:
        raise ConfigError(
            f"the base image has {normal(name)} {there}, and the step wants {version}",
            cause="without an engine, packages of the base image cannot be replaced",
            next=f"require {normal(name)}=={there}, or build with docker or podman",
        )


def _point_at(script: Path, program: str) -> None:
    """Give a script the image's Python; uv wrote this machine's into it."""
    data = script.read_bytes()
    if not data.startswith(b"#!"):
        return
    lines = data.split(b"\n")
    first = lines[0]
    if first == b"#!/bin/sh" and len(lines) > 2 and lines[1].startswith(b"'''exec'"):
        lines = lines[3:]  # uv's form for long paths
    elif b"python" in first:
        lines = lines[1:]
    else:
        return
    mode = script.stat().st_mode
    script.unlink()  # it may be linked to uv's cache
    script.write_bytes(b"\n".join([f"#!{program}".encode(), *lines]))
    script.chmod(mode)


def names(files: Sequence[str]) -> str:
    """Files as people read them."""
    return ", ".join(Path(file).name for file in files)
