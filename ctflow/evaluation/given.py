"""A run as one of its own tasks sees it: outputs of other tasks as files, and a few facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctflow.errors import StateError, UsageError
from ctflow.lib.digests import digest_path
from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, Commit, Image, Run, Task, Value
from ctflow.pipelinespec.parameters import METRICS, metrics_file, metrics_of
from ctflow.ports import Watch


@dataclass(frozen=True)
class GivenOutput:
    """An output of another task.

    Attributes:
        name: ``task.output``.
        type: KFP's, such as ``system.Model``.
        made: the digest of what made it, but for its inputs; empty where that is not known.
        path: where its content is here.
        uri: where the run keeps it.
    """

    name: str
    type: str
    made: str
    path: Path
    uri: str
    metadata: Mapping[str, Value]


class GivenOutputs:
    """Files that are here: the ``Outputs`` of a run whose record is elsewhere."""

    def get(self, run_id: str) -> Run:
        """Raises StateError: no run is on record here."""
        raise StateError(f"run {run_id} is not on record here")

    def fetch(self, artifact: Artifact) -> Path:
        """The file itself. Raises StateError where it is gone."""
        path = Path(artifact.uri)
        if not path.exists():
            raise StateError(f"the artifact {artifact.name} is gone ({path})")
        return path

    def identified(self, run: Run, outputs: Sequence[str], made: Sequence[str] = ()) -> Run:
        """The run itself: its outputs are read when they are given."""
        return run

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Raises StateError: a task cannot run another one again."""
        raise StateError("inside a pipeline no other model can be scored")


def run_given(
    run_id: str,
    project: str,
    pipeline: str,
    package: str,
    created: float,
    commit: Commit,
    parameters: Mapping[str, Value],
    images: Mapping[str, str],
    outputs: Sequence[GivenOutput],
) -> Run:
    """The run that these outputs are of, as far as it is told.

    Raises:
        UsageError: an output is given twice, or is not named ``task.output``.
        StateError: a link in an output leads out of it.
    """
    found: dict[str, dict[str, tuple[Artifact, ...]]] = {}
    made: dict[str, dict[str, str]] = {}
    for output in outputs:
        task, _, name = output.name.rpartition(".")
        if not task or not name:
            raise UsageError(f"{output.name!r} is not task.output")
        if name in found.setdefault(task, {}):
            raise UsageError(f"{output.name} is given twice")
        found[task][name] = (_artifact(name, output),)
        if output.made:
            made[task] = {"code": output.made}
    tasks = {
        name: Task(name, "succeeded", artifacts=artifacts, made_of=made.get(name, {}))
        for name, artifacts in found.items()
    }
    return Run(
        run_id,
        project,
        pipeline,
        package,
        "succeeded",
        created,
        commit=commit,
        parameters=dict(parameters),
        images=tuple(
            Image(step, reference, reference.rpartition("@")[2])
            for step, reference in sorted(images.items())
        ),
        tasks=tuple(tasks.values()),
        metrics=metrics_of(tasks),
    )


def _artifact(name: str, output: GivenOutput) -> Artifact:
    digest, size = "", 0
    metadata: dict[str, Any] = dict(output.metadata)
    if output.path.exists():
        digest, size = digest_path(output.path)
        if output.type == METRICS and not metadata:
            metadata = metrics_file(output.path, size)
    return Artifact(name, output.type, str(output.path), digest, size, metadata)
