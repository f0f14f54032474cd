"""Builds steps without a container engine: an "image" is a snapshot of the step's context and a
Python environment of its requirements.txt.

Layout below ``<state>/steps``::

    <digest>/        the snapshot; steps run in it
    <digest>.json    written last: the requirements and the snapshot's stat signature
    <digest>.lock    shared by whoever needs the snapshot, exclusive to mend or remove it
    stat.json        file digests by (path, size, times, inode), so that nothing is read twice

A step may write into its working directory, as it may in a container. What it leaves there is
removed, and files that it changed are written again, by the next build that finds nobody in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.lib.files import write_file
from ctflow.lib.locks import lock
from ctflow.model import LOCAL_IMAGES, Image
from ctflow.ports import Environments, Event, StepSource, Watch, Workspace, ignore
from ctflow.scm.git_folders import files_of_a_clone
from ctflow.steps.context import content_digest, context_files
from ctflow.steps.snapshot import Changed, Signature, StatCache, leftovers, make, mend, signature
from ctflow.steps.step_cache import build_lock, index_of, mark_used, run_lock, tidy

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
        needed: tells the digests (64 digits) of the snapshots that recorded runs need.
        bound: bytes that the snapshots may take.
    """

    def __init__(
        self,
        folder: Path,
        project: str,
        registry: str | None,
        base: str,
        environments: Environments,
        needed: Callable[[], Collection[str]] = tuple,
        bound: int = 20 * 10**9,
    ) -> None:
        self._folder = folder
        self._prefix = registry.rstrip("/") if registry else f"{LOCAL_IMAGES}/{project}"
        self._base = base
        self._environments = environments
        self._needed = needed
        self._bound = bound
        #: The snapshots that this process builds or runs, by digest: the descriptors of the locks.
        self._held: dict[str, int] = {}
        self._opened: set[str] = set()
        weakref.finalize(self, _let_go, self._held)

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        """As the port says. Raises ConfigError, StateError, OutsideError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            leftovers(self._folder)
            cache = StatCache(self._folder / "stat.json")
            images = self._build_all(steps, cache, watch)
            cache.save()
            if any(image.built for image in images):
                tidy(self._folder, self._needed, self._bound)
        except OSError as error:
            raise OutsideError(
                f"cannot write the steps' snapshots: {error.strerror or error} "
                f"({error.filename or self._folder})",
                next="make room or give access there, and run the same command again",
            ) from None
        return images

    def plan(self, steps: Sequence[StepSource]) -> tuple[Image, ...]:
        """The images that ``build`` would give; of those that it would make, ``built`` is true."""
        cache = StatCache(self._folder / "stat.json")
        digests = [self._digest(step, cache) for step in steps]
        return tuple(
            self._image(step.name, digest, built=not self._ready(digest))
            for step, digest in zip(steps, digests, strict=True)
        )

    def open(self, reference: str) -> Workspace | None:
        """As the port says. Raises StateError where a step changed its own snapshot."""
        name, _, digest = reference.partition("@")
        prefix, _, step = name.rpartition("/")
        hexadecimal = digest.removeprefix("sha256:")
        if prefix != self._prefix or not _is_digest(hexadecimal):
            return None
        if not index_of(self._folder, hexadecimal).exists():
            return None
        self._hold(hexadecimal)
        index = self._index(hexadecimal)
        if index is None:
            self._drop(hexadecimal)
            return None
        self._opened.add(hexadecimal)
        # A run that is gone on with may find its environment pruned; it is only made again.
        environment = self._environments.ensure(index["requirements"], ignore)
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
            whole = content_digest(context_files(step, files_of_a_clone), self._base, cache.digest)
        except FileNotFoundError as error:
            raise StateError(
                f"step {step.name}: {error.filename} was removed while it was read",
                next="run the same command again",
            ) from None
        return whole.removeprefix("sha256:")

    def _ready(self, digest: str) -> bool:
        """Whether it is built and whole; if so, it is held from here on."""
        if not index_of(self._folder, digest).exists():
            return False
        self._hold(digest)
        index = self._index(digest)
        if index is not None and self._environments.find(index["requirements"]) is not None:
            files: Signature = index["files"]
            if signature(self._folder / digest, files, extras=True) == files:
                mark_used(self._folder, digest)
                return True
        self._drop(digest)
        return False

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
            self._hold(digest)
            if index_of(self._folder, digest).exists():
                return digest
            self._drop(digest)  # it was pruned in that moment
        raise StateError(
            f"step {step.name}: its files change while they are read",
            next="run the same command again when no process writes to them",
        )

    def _snapshot(self, step: StepSource, digest: str, cache: StatCache) -> str:
        """Make or mend the snapshot; the text of its requirements."""
        files = context_files(step, files_of_a_clone)
        if content_digest(files, self._base, cache.digest) != f"sha256:{digest}":
            raise Changed
        folder = self._folder / digest
        with self._exclusive(digest) as exclusive:
            index = self._index(digest)
            if index is not None and folder.is_dir():
                state = mend(folder, files, index["files"], cache, extras=exclusive)
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
        write_file(self._folder / f"{digest}.json", json.dumps(index), sync=True)

    def _hold(self, digest: str) -> None:
        """Say, until this process ends, that it needs the snapshot."""
        if digest not in self._held:
            descriptor = lock(run_lock(self._folder, digest), shared=True, wait=True)
            assert descriptor is not None  # noqa: S101 (it was waited for)
            self._held[digest] = descriptor

    def _drop(self, digest: str) -> None:
        """Unless something runs in it, need it no longer."""
        if digest in self._held and digest not in self._opened:
            os.close(self._held.pop(digest))

    @contextmanager
    def _exclusive(self, digest: str) -> Iterator[bool]:
        """Keep other builders out; whether nobody runs in the snapshot either."""
        self._drop(digest)
        builders = lock(build_lock(self._folder, digest), wait=True)
        runs = lock(run_lock(self._folder, digest))
        try:
            yield runs is not None
        finally:
            for descriptor in (runs, builders):
                if descriptor is not None:
                    os.close(descriptor)


def _let_go(held: dict[str, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)
    held.clear()


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
