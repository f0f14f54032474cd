"""What a build engine is asked for, and what all of them need to know of an image.

An engine is a module of this package with a class that satisfies ``Engine``. Those that are
programs only say their command lines; ``commands`` runs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from ctflow.errors import StateError
from ctflow.images.builders.tarball import Pipe, write_tar
from ctflow.steps.context import DOCKERFILE, ContextFile


@dataclass(frozen=True)
class Target:
    """One image to be built. ``content`` is the digest of all that goes in, ``name`` has no tag."""

    step: str
    files: tuple[ContextFile, ...]
    content: str
    name: str
    base: str = ""

    @property
    def tag(self) -> str:
        """The content tag."""
        return content_tag(self.content)

    @property
    def reference(self) -> str:
        """Name and content tag."""
        return f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class Options:
    """How images are built.

    Attributes:
        args: build arguments, BASE among them (pinned by digest).
        secrets: id -> file that holds it.
        created: seconds since 1970 that the image says it was made at; None: now.
    """

    args: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache: str | None = None
    insecure: bool = False
    created: int | None = None


Line = Callable[[str], None]


class Engine(Protocol):
    """Builds images."""

    name: str

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """Build into the engine's own store; the image's id there (``sha256:...``), or ``""``.

        Args:
            work: an empty folder for this build's own files.
            line: gets each line of the engine's output.

        Raises:
            RunFailed: the Dockerfile fails. OutsideError: the engine does.
        """
        ...

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """Push what ``build`` has built to ``target.reference``."""
        ...

    def find(self, target: Target) -> str | None:
        """The id of an image of this content in the engine's own store."""
        ...


def content_tag(content: str) -> str:
    """``ctx-`` and the first 32 hexadecimal digits of a content digest."""
    return f"ctx-{content.removeprefix('sha256:')[:32]}"


def insecure_host(reference: str, options: Options) -> bool:
    """Whether the registry is spoken to without TLS."""
    from ctflow.rest.loopback import is_loopback

    return options.insecure or is_loopback(reference.partition("/")[0])


def step_cache(target: Target, options: Options) -> str:
    """Where BuildKit keeps this step's cache; ``""``: nowhere.

    BuildKit writes a cache as one manifest under one reference: steps that shared it would
    overwrite each other's. A repository gets a tag for each step, a tag the step's name behind it.
    """
    if not options.cache:
        return ""
    joint = "-" if ":" in options.cache.rpartition("/")[2] else ":"
    return f"{options.cache}{joint}{target.step}"


def sent_files(target: Target) -> tuple[ContextFile, ...]:
    """The context as docker's client sends it: with the rules, also where they name themselves.

    The engine takes out what they ignore; without them, a ``.dockerignore`` that ignores itself and
    the Dockerfile would let both into the image.
    """
    dockerfile = next((one for one in target.files if one.path == DOCKERFILE), None)
    if dockerfile is None:
        return target.files
    folder = Path(dockerfile.source).parent
    for name in (f"{DOCKERFILE}.dockerignore", ".dockerignore"):
        file = folder / name
        if any(one.path == name for one in target.files):
            break
        if file.is_file():
            return (*target.files, ContextFile(name, str(file), "file", "", file.stat().st_size))
    return target.files


def feed_context(target: Target, stream: IO[bytes]) -> None:
    """The context as a tar stream; a context that changes meanwhile is a StateError."""
    write_tar(
        Pipe(stream.write),  # type: ignore[arg-type]
        sent_files(target),
        folders=True,  # else buildah makes them, with the umask's modes
        changed=lambda one: _changed(target, one),
    )


def lay_out(target: Target, folder: Path) -> None:
    """Copy the context to a folder, for what takes no tar stream; modes as the stream has them.

    Raises:
        StateError: a file is not any more as long as it was.
    """
    _make_folder(folder)
    for one in sent_files(target):
        place = folder / one.path
        _make_folder(place.parent)
        if one.kind == "folder":
            _make_folder(place)
        elif one.kind == "link":
            place.symlink_to(one.target)
        else:
            shutil.copyfile(one.source, place)
            place.chmod(0o755 if one.kind == "exec" else 0o644)
            if place.stat().st_size != one.size:
                raise _changed(target, one)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask


def _changed(target: Target, one: ContextFile) -> StateError:
    return StateError(
        f"step {target.step}: {one.path!r} changed while it was read",
        next="run the same command again",
    )
