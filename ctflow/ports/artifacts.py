"""What the tasks of a cluster's run read and wrote, and the files that they left in a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, Value


@dataclass(frozen=True)
class Declared:
    """A task of a run's package. ``outputs`` are its output artifacts: name -> KFP's type."""

    path: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class RunPlace:
    """A run, as far as one has to know it to find what its tasks wrote.

    Attributes:
        pipeline: the pipeline's name.
        root: the URI below which the run's artifacts are; empty: the server's own.
        declared: the tasks of its package; empty: the package is not known.
    """

    id: str
    pipeline: str = ""
    root: str = ""
    declared: tuple[Declared, ...] = ()


@dataclass(frozen=True)
class TaskRecord:
    """What is on record of one task that has run. Artifacts have no digests.

    Attributes:
        path: its name, the number of an iteration after its loop's: ``for-loop-1.0.train``.
        image: of its container; empty where that is not recorded.
    """

    path: str
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    input_artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    inputs: Mapping[str, Value] = field(default_factory=dict)
    outputs: Mapping[str, Value] = field(default_factory=dict)
    image: str = ""

    @property
    def task(self) -> str:
        """The task's path in the package."""
        return task_of(self.path)


def task_of(path: str) -> str:
    """The path of a task in its package, which has a loop's body once."""
    return ".".join(part for part in path.split(".") if not part.isdecimal())


class RunArtifacts(Protocol):
    """The record of what the tasks of runs read and wrote."""

    def of_run(self, place: RunPlace) -> Sequence[TaskRecord]:
        """What is on record of a run's tasks; nothing where the run is not known there.

        It says nothing of the run's state: a task that has not ended may be missing.

        Raises:
            ConfigError: what reads the record is not installed, or not named in the settings.
            OutsideError: the record cannot be reached, or is not what it should be.
        """
        ...


class ArtifactFiles(Protocol):
    """The content of artifacts, by their URIs."""

    def fetch(self, uri: str) -> tuple[Path, str, int]:
        """(a local place of the content, its digest, its size in bytes).

        What is there is complete; what was brought here before is not brought again.

        Raises:
            StateError: there is nothing at the URI.
            ConfigError: no URI of a bucket, or what reads buckets is not installed.
            OutsideError: the store fails or refuses.
        """
        ...

    def below(self, uri: str) -> Sequence[str]:
        """The paths of the objects below a URI, relative to it. Raises as ``fetch`` does."""
        ...

    def put(self, uri: str, content: Path) -> None:
        """Write a file, or a folder's files, to a URI. Raises as ``fetch`` does."""
        ...
