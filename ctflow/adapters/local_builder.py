"""Builds steps without a container engine: an "image" is a snapshot of the step's context and a
Python environment of its requirements.txt.

Layout below ``<state>/steps``::

    <digest>/        the snapshot; steps run in it
    <digest>.json    written last: the requirements and the snapshot's stat signature
    <digest>.lock    shared by whoever runs in the snapshot, exclusive to make or mend it
    stat.json        file digests by (path, size, times, inode), so that nothing is read twice

A step may write into its working directory, as it may in a container. What it leaves there is
removed, and files that it changed are written again, by the next build that finds nobody in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctflow.adapters.git_folders import kept_files
from ctflow.adapters.snapshot import Changed, Signature, StatCache, leftovers, make, mend, signature
from ctflow.context import content_digest, context_files
from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.model import Image
from ctflow.ports import Environments, Event, StepSource, Watch, Workspace

REQUIREMENTS = "requirements.txt"
#: Snapshots are copied and environments made at the same time; uv itself uses all cores.
_WORKERS = 4
_ATTEMPTS = 3


class LocalBuilder:
    """Implements ``Builder`` and ``Workspaces``.

    Args:
        folder: ``state_places(state)["steps"]``.
        project: the project's name.
        registry: the configured registry, which then prefixes the references.
        base: the configured base image; part of the content digest.
        environments: makes the steps' Python environments.
    """

    def __init__(
        self,
        folder: Path,
        project: str,
        registry: str | None,
        base: str,
        environments: Environments,
    ) -> None:
        self._folder = folder
        self._prefix = registry.rstrip("/") if registry else f"ctflow.local/{project}"
        self._base = base
        self._environments = environments
        self._held: dict[str, int] = {}

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        """As the port says. Raises ConfigError, StateError, OutsideError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            leftovers(self._folder)
            cache = StatCache(self._folder / "stat.json")
            images = self._build_all(steps, cache, watch)
            cache.save()
        except OSError as error:
            raise OutsideError(
                f"cannot write the steps' snapshots: {error.strerror or error} "
                f"({error.filename or self._folder})",
                next="make room or give access there, and run the same command again",
            ) from None
        return images

    def open(self, reference: str) -> Workspace | None:
        """As the port says. Raises StateError where a step changed its own snapshot."""
        name, _, digest = reference.partition("@")
        prefix, _, step = name.rpartition("/")
        hexadecimal = digest.removeprefix("sha256:")
        if prefix != self._prefix or not _is_digest(hexadecimal):
            return None
        index = self._index(hexadecimal)
        if index is None:
            return None
        environment = self._environments.find(index["requirements"])
        if environment is None:
            return None
        self._hold(hexadecimal)
        folder = self._folder / hexadecimal
        if signature(folder, index["files"]) != index["files"]:
            raise StateError(
                f"step {step}: its snapshot was changed",
                cause="a step wrote over files in its own working directory",
                next="run `ctflow build`, which writes them again",
            )
        key = hashlib.sha256(f"{hexadecimal}\0{environment.key}".encode()).hexdigest()
        return Workspace(step, folder, environment, key, index["requirements"])

    def _build_all(
        self, steps: Sequence[StepSource], cache: StatCache, watch: Watch
    ) -> tuple[Image, ...]:
        digests = [self._digest(step, cache) for step in steps]
        there = [self._ready(digest) for digest in digests]
        missing = {
            digest: step
            for step, digest, ready in zip(steps, digests, there, strict=True)
            if not ready
        }
        if missing:
            with ThreadPoolExecutor(_WORKERS) as pool:
                made = dict(
                    zip(
                        missing,
                        pool.map(lambda step: self._make(step, cache, watch), missing.values()),
                        strict=True,
                    )
                )
        else:
            made = {}
        return tuple(
            self._image(step.name, made.get(digest, digest), built=not ready)
            for step, digest, ready in zip(steps, digests, there, strict=True)
        )

    def _image(self, step: str, hexadecimal: str, *, built: bool) -> Image:
        digest = f"sha256:{hexadecimal}"
        return Image(step, f"{self._prefix}/{step}@{digest}", digest, built)

    def _digest(self, step: StepSource, cache: StatCache) -> str:
        try:
            whole = content_digest(context_files(step, kept_files), self._base, cache.digest)
        except FileNotFoundError as error:
            raise StateError(
                f"step {step.name}: {error.filename} went away while it was read",
                next="run the same command again",
            ) from None
        return whole.removeprefix("sha256:")

    def _ready(self, digest: str) -> bool:
        index = self._index(digest)
        if index is None or self._environments.find(index["requirements"]) is None:
            return False
        folder = self._folder / digest
        files: Signature = index["files"]
        return signature(folder, files, extras=True) == files

    def _make(self, step: StepSource, cache: StatCache, watch: Watch) -> str:
        """Snapshot and environment of a step; the digest of what was really copied."""
        watch(Event("note", name=step.name, text=f"building step {step.name}"))
        for _ in range(_ATTEMPTS):
            digest = self._digest(step, cache)
            try:
                requirements = self._snapshot(step, digest, cache)
            except Changed:
                continue  # somebody saved a file between hashing and copying it
            try:
                self._environments.ensure(requirements, watch)
            except (ConfigError, OutsideError) as error:
                raise type(error)(
                    f"step {step.name}: {error.fact}",
                    cause=error.cause, next=error.next, details=error.details,
                ) from None  # fmt: skip
            return digest
        raise StateError(
            f"step {step.name}: its files change while they are read",
            next="run the same command again when they are at rest",
        )

    def _snapshot(self, step: StepSource, digest: str, cache: StatCache) -> str:
        """Make or mend the snapshot; the text of its requirements."""
        files = context_files(step, kept_files)
        if content_digest(files, self._base, cache.digest) != f"sha256:{digest}":
            raise Changed
        folder = self._folder / digest
        with self._exclusive(digest) as alone:
            index = self._index(digest)
            if index is not None and folder.is_dir():
                state = mend(folder, files, index["files"], cache, extras=alone)
            else:
                if folder.exists():
                    shutil.rmtree(folder)
                state = make(folder, files, cache)
            requirements = _requirements(folder, step.name)
            self._write_index(digest, {"requirements": requirements, "files": state})
        return requirements

    def _index(self, digest: str) -> dict[str, Any] | None:
        try:
            with open(f"{self._folder}/{digest}.json", encoding="utf-8") as file:  # noqa: PTH123
                data = json.load(file)
        except (OSError, ValueError):
            return None
        whole = isinstance(data, dict) and {"requirements", "files"} <= data.keys()
        return data if whole else None

    def _write_index(self, digest: str, index: dict[str, Any]) -> None:
        half = self._folder / f".new-{digest}-{os.getpid()}.json"
        with half.open("w", encoding="utf-8") as file:
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())
        half.rename(self._folder / f"{digest}.json")

    def _lock_file(self, digest: str) -> int:
        return os.open(
            self._folder / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )

    def _hold(self, digest: str) -> None:
        """Say, until this process ends, that steps run in the snapshot."""
        if digest not in self._held:
            descriptor = self._lock_file(digest)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._held[digest] = descriptor

    @contextmanager
    def _exclusive(self, digest: str) -> Iterator[bool]:
        """Keep other builders out; whether nobody runs in the snapshot either."""
        descriptor = self._lock_file(digest)
        builders = self._lock_file(f"{digest}.build")
        try:
            fcntl.flock(builders, fcntl.LOCK_EX)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
            except BlockingIOError:
                yield False
        finally:
            os.close(descriptor)
            os.close(builders)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _requirements(folder: Path, step: str) -> str:
    try:
        return (folder / REQUIREMENTS).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ConfigError(
            f"step {step}: {REQUIREMENTS} is not UTF-8 text", next="save it as UTF-8"
        ) from None
