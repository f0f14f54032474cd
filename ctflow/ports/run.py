"""Running packages, and the record of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, Commit, Package, Run, Task, Value
from ctflow.ports.events import Watch


@dataclass(frozen=True)
class RunRequest:
    """What to run. ``parameters`` override the package's defaults."""

    project: str
    package: Package
    parameters: Mapping[str, Value] = field(default_factory=dict)
    commit: Commit | None = None
    caching: bool = True


class Runs(Protocol):
    """The record of the runs."""

    def get(self, run_id: str) -> Run:
        """A recorded run, by its id, a unique prefix of it, or ``latest``. Raises StateError."""
        ...

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs first, without their tasks' details where those cost time."""
        ...

    def logs(self, run_id: str, task: str | None = None) -> Iterator[tuple[str, str]]:
        """(task name, line) of the kept logs, task after task."""
        ...


class Outputs(Protocol):
    """What the gate reads of runs: files, and one task run again."""

    def get(self, run_id: str) -> Run:
        """A recorded run, as ``Runs`` has it. Raises StateError."""
        ...

    def fetch(self, artifact: Artifact) -> Path:
        """A local path of a run's artifact.

        Raises StateError where it is gone, OutsideError where it cannot be brought here.
        """
        ...

    def identified(self, run: Run, outputs: Sequence[str], made: Sequence[str] = ()) -> Run:
        """The run with what is known only when it is looked for: what is recorded stays.

        Args:
            outputs: ``task.output`` whose artifacts are to have digests. One that the run does not
                have, or to which nothing was written, is left as it is.
            made: those of them whose tasks are to say what they were made of, with the digests of
                all that they read.

        Raises:
            StateError, ConfigError: nobody can say what the run's tasks wrote.
            OutsideError: they cannot be read.
        """
        ...

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Run one task of a finished run again with another input.

        Args:
            run: a succeeded run.
            task: the task to run again, such as ``evaluate``.
            artifact: ``producer.output`` whose place ``content`` takes, such as ``train.model``.
            content: the file or folder to read instead (the champion).

        Returns the finished task with its output artifacts; ``run`` itself stays as it is.
        Raises RunFailed when the task fails on it, StateError when it reads no such artifact.
        """
        ...


class Runner(Runs, Outputs, Protocol):
    """Runs packages and keeps the record of the runs."""

    def run(self, request: RunRequest, watch: Watch) -> Run:
        """Submit and wait. A failed step is a Run with state ``failed``, not an exception.

        Ctrl-C is the runner's business: one whose tasks run here stops them and raises Interrupted.
        """
        ...

    def submit(self, request: RunRequest, watch: Watch) -> str:
        """Put a run on record and let it start, once; its id, which says nothing but which it is.

        Raises ConfigError before the first task when the package, or a parameter, cannot be run.
        """
        ...

    def wait(self, run_id: str, watch: Watch) -> Run:
        """The run when it has ended, in whatever state. Raises StateError: no such run."""
        ...

    def terminate(self, run_id: str) -> Run:
        """Stop a run that goes on; the run when it has ended. Raises StateError: it has."""
        ...

    def resume(self, run_id: str, watch: Watch) -> Run:
        """Go on with an interrupted or failed run from what has finished."""
        ...
