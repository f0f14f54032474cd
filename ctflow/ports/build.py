"""Building: steps, images, packages, Python environments, containers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import Image, RegistryImage
from ctflow.ports.events import Watch

#: What the predictor's image is called, beside the steps' images.
PREDICTOR = "predictor"


@dataclass(frozen=True)
class StepSource:
    """A step's source: its folder and the includes, as paths of the checkout."""

    name: str
    folder: Path
    include: tuple[Path, ...] = ()


class Builder(Protocol):
    """Turns steps into images, building only content that it has not seen."""

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        """Build what is missing; in the order given. Raises RunFailed or OutsideError."""
        ...


class Registry(Protocol):
    """An OCI registry, seen from the build stage."""

    def digest(self, reference: str) -> str | None:
        """The manifest digest of ``reference``, or None where the registry has no such image."""
        ...


class ImageList(Protocol):
    """The images that the registry has of the steps, and the bases that they are built on."""

    def in_registry(
        self, steps: Sequence[StepSource], used: Collection[str], watch: Watch
    ) -> list[RegistryImage]:
        """All images of these steps, of each step the newest first.

        Args:
            used: digests and tags that something names, besides the steps as they are now.

        Raises:
            OutsideError: the registry cannot be reached, or refuses.
        """
        ...

    def delete(self, image: RegistryImage) -> None:
        """Delete an image with all its tags. Raises OutsideError."""
        ...

    def lock(self, steps: Sequence[StepSource], file: Path) -> tuple[Mapping[str, str], bool]:
        """Write the digests of all bases to a file; (they, whether it changed).

        Raises:
            ConfigError: a base is not there, or a Dockerfile is wrong.
            OutsideError: the registry cannot be reached, or refuses.
        """
        ...


class Compiler(Protocol):
    """Compiles a pipeline definition to a KFP package, in a process of its own."""

    def fingerprint(self) -> str:
        """Names the compiler and its version; a package of another fingerprint is stale."""
        ...

    def compile(
        self,
        root: Path,
        pipeline: str,
        images: Mapping[str, str],
        output: Path,
        watch: Watch = ...,
    ) -> tuple[Path, ...]:
        """Write the package of ``pipeline`` (``file.py:function``), whole or not at all.

        Returns the project's files that the definition read, relative to ``root``, the pipeline's
        own first: what a cached package depends on. Raises ConfigError with the user's own
        line when the definition is wrong, OutsideError when no compiler can be had.
        """
        ...


@dataclass(frozen=True)
class Environment:
    """A Python environment of its own. ``variables`` are what a process in it needs to have set.

    ``variables["PATH"]`` is complete: the environment's ``bin`` before the caller's own path.
    """

    key: str
    path: Path
    python: Path
    variables: Mapping[str, str]


class Environments(Protocol):
    """Makes Python environments from requirements: once per content, for all projects."""

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        """The environment of these requirements (the text of a requirements.txt), made if missing.

        Args:
            python: a version such as ``3.13``; empty: that of this process. One that cannot be had
                is replaced by ours, and said.

        Safe when several processes ask for the same one at once, and after a kill while making it.
        Raises ConfigError when the requirements cannot be had together, OutsideError when the
        package index or the disk fails.
        """
        ...

    def find(self, requirements: str, python: str = "") -> Environment | None:
        """The environment if it is there and whole; never makes one."""
        ...


@dataclass(frozen=True)
class Workspace:
    """Where a step's process runs: its context as the image would hold it, and its environment.

    ``key`` is a digest of both, for the cache of task results; ``requirements`` is the text that
    the environment was made of.
    """

    step: str
    folder: Path
    environment: Environment
    key: str
    requirements: str = ""


class StepPlans(Protocol):
    """Says what building would do, without doing it."""

    def plan(self, steps: Sequence[StepSource]) -> tuple[Image, ...]:
        """The images that the steps' content has now; ``built``: they would have to be built."""
        ...


class ImageSource(Builder, StepPlans, Protocol):
    """What builds images, and says what it would build."""


class PredictorImages(Protocol):
    """The images of the project's predictor, one for each content that commits give it."""

    def image(self, commit: str, watch: Watch, *, dry_run: bool = False) -> str:
        """The reference of a commit's image, built and pushed if it is not there yet.

        Empty where the commit has no Dockerfile for it. ``model.is_local_image`` tells one that
        only names a content from one that can be pulled.

        Args:
            dry_run: build nothing; of an image that is not there, the digest is its content's.

        Raises:
            ConfigError: the Dockerfile is wrong, or leaves the predictor out.
            RunFailed: it does not build.
            OutsideError: the registry or the builder fails.
        """
        ...


class Workspaces(Protocol):
    """Finds what the local builder has built."""

    def open(self, reference: str) -> Workspace | None:
        """The workspace of an image reference, or None where this project has no such step."""
        ...


class ContainerEngine(Protocol):
    """Runs tasks in containers of their images, on this machine."""

    name: str

    def words(self, reference: str, cpu: float, memory: int, watch: Watch) -> tuple[str, ...]:
        """The words before a task's command that run it in a container of the image.

        The container's variables are the process's that begin with ``CTFLOW_CONTAINER_``; it may
        write to the process's working directory, and to what ``CTFLOW_MOUNTS`` names.
        Pulls the image if it is not here.

        Args:
            cpu: limit in CPUs (0: none).
            memory: limit in bytes (0: none).

        Raises OutsideError when the engine is missing or cannot get the image.
        """
        ...

    def guard(self, run: str) -> AbstractContextManager[None]:
        """While a run goes on: at its end, or the end of this process, no container is left."""
        ...
