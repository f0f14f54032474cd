"""What the tasks of a cluster's run wrote: put into the ``Run``, brought here, and identified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, CtflowError, StateError
from ctflow.lib.digests import digest_path
from ctflow.lib.files import write_file
from ctflow.model import Artifact, Run, Task
from ctflow.pipelinespec.parameters import METRICS, metrics_file, metrics_of
from ctflow.pipelinespec.spec import Pipeline
from ctflow.ports import ArtifactFiles, Declared, RunArtifacts, RunPlace, TaskRecord
from ctflow.runners.kubeflow.making import making_of
from ctflow.runners.kubeflow.nodes import spots
from ctflow.runners.kubeflow.reading import ENDED
from ctflow.runners.kubeflow.scoring import place_of

#: How many runs of one list are asked for whose metrics are not known yet: four calls each.
_ASKED = 25
_LAYOUT = 1
Artifacts = Mapping[str, tuple[Artifact, ...]]


class RunOutputs:
    """Reads outputs.

    Args:
        records: what knows them; None: the settings name nothing that does.
        from_package: whether ``records`` needs a run's package to find anything.
        cache: a folder for the metrics of runs that have ended.
    """

    def __init__(
        self, records: RunArtifacts | None, files: ArtifactFiles, cache: Path,
        *, from_package: bool = False,
    ) -> None:  # fmt: skip
        self._records = records
        self._files = files
        self._cache = cache
        self._from_package = from_package

    def filled(self, run: Run, pipeline: Pipeline | None, root: str) -> Run:
        """The run with its tasks' artifacts, inputs and metrics.

        Args:
            pipeline: the package that it runs; None: not known.
            root: the URI below which its artifacts are; empty: the server's own.

        Raises:
            ConfigError: nothing is named that knows them, or what reads it is not installed.
            OutsideError: that cannot be reached, or fails.
        """
        if self._records is None:
            raise ConfigError(
                "nothing says what the run's tasks wrote",
                next="set kubeflow.metadata to the host:port of ML Metadata (service"
                " metadata-grpc-service), or kubeflow.artifacts to read the bucket without it",
            )
        place = RunPlace(run.id, pipeline.name if pipeline else "", root, _declared(pipeline))
        records = [self._with_metrics(one) for one in self._records.of_run(place)]
        metrics = _metrics(records)
        if records and run.state in ENDED:
            self._keep(run, metrics)
        by_task: dict[str, list[TaskRecord]] = {}
        for record in records:
            by_task.setdefault(record.task, []).append(record)
        tasks = tuple(_filled(task, by_task.get(task.name, ())) for task in run.tasks)
        return replace(run, tasks=tasks, metrics=metrics)

    def metrics(self) -> Callable[[Run], dict[str, float]]:
        """What gives runs' metrics for a list, without their tasks: a bounded number of calls.

        Those of runs that have ended are kept. Where the record is not there, or asked too often,
        a run has none.
        """
        left = 0 if self._records is None or self._from_package else _ASKED

        def of(run: Run) -> dict[str, float]:
            nonlocal left
            if run.state not in ENDED:
                return {}
            if (kept := self._kept(run)) is not None:
                return kept
            if left == 0:
                return {}
            left -= 1
            try:
                return self.filled(run, None, "").metrics
            except CtflowError:
                left = 0
                return {}

        return of

    def fetch(self, artifact: Artifact) -> Path:
        """A local copy of an artifact. Raises as ``Outputs`` says."""
        place, digest, _ = self._files.fetch(artifact.uri)
        if artifact.digest not in ("", digest):
            raise StateError(
                f"the artifact {artifact.name} was changed after it was judged ({artifact.uri})",
                next="run the pipeline again",
            )
        return place

    def identified(
        self, run: Run, pipeline: Pipeline | None, outputs: Sequence[str], made: Sequence[str]
    ) -> Run:
        """The run with digests, as ``Outputs`` says."""
        found: dict[str, Artifact] = {}
        makers = [task for name in made if (task := run.task(name.rpartition(".")[0]))]
        wanted = [one for name in outputs if (one := run.artifact(name)) is not None]
        wanted += [one for task in makers for some in task.input_artifacts.values() for one in some]
        for artifact in wanted:
            if artifact.uri and artifact.uri not in found:
                with suppress(StateError):  # nothing was written to it
                    _, digest, size = self._files.fetch(artifact.uri)
                    found[artifact.uri] = replace(artifact, digest=digest, size=size)

        def known(artifacts: Artifacts) -> dict[str, tuple[Artifact, ...]]:
            return {
                name: tuple(
                    replace(one, digest=found[one.uri].digest, size=found[one.uri].size)
                    if one.uri in found else one
                    for one in some
                )
                for name, some in artifacts.items()
            }  # fmt: skip

        tasks = [
            replace(
                task,
                artifacts=known(task.artifacts),
                input_artifacts=known(task.input_artifacts),
            )
            for task in run.tasks
        ]
        names = {task.name for task in makers}
        return replace(run, tasks=tuple(
            replace(task, made_of=making_of(run, task, pipeline)) if task.name in names else task
            for task in tasks
        ))  # fmt: skip

    def placed(self, run: Run, artifact: str, content: Path) -> str:
        """Put another content of an artifact where the cluster's tasks can read it; its URI.

        Raises:
            StateError: the run has no such artifact.
            OutsideError: the store fails or refuses.
        """
        place = f"{place_of(run, artifact, digest_path(content)[0])}/{content.name}"
        self._files.put(place, content)
        return place

    def _with_metrics(self, record: TaskRecord) -> TaskRecord:
        """With the scalars of metrics files: containers write those, and KFP does not read them."""
        artifacts = dict(record.artifacts)
        for name, some in record.artifacts.items():
            artifacts[name] = tuple(
                self._read_metrics(one)
                if one.type == METRICS and one.uri and not _scalars(one) else one
                for one in some
            )  # fmt: skip
        return replace(record, artifacts=artifacts)

    def _read_metrics(self, artifact: Artifact) -> Artifact:
        try:
            place, digest, size = self._files.fetch(artifact.uri)
        except StateError:
            return artifact  # a component that only logs metrics writes no file
        said = metrics_file(place, size)
        return replace(artifact, digest=digest, size=size, metadata=dict(artifact.metadata) | said)

    def _keep(self, run: Run, metrics: Mapping[str, float]) -> None:
        said = {"layout": _LAYOUT, "run": run.id, "ended": run.ended, "metrics": metrics}
        with suppress(OSError):
            write_file(self._file(run), json.dumps(said))

    def _kept(self, run: Run) -> dict[str, float] | None:
        try:
            said: Any = json.loads(self._file(run).read_bytes())
            # A run that was retried has ended anew.
            if (said["layout"], said["run"], said["ended"]) != (_LAYOUT, run.id, run.ended):
                return None
            return {str(name): float(value) for name, value in said["metrics"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _file(self, run: Run) -> Path:
        plain = "".join(one for one in run.id if one.isalnum() or one == "-")
        return self._cache / f"{plain or 'run'}.json"


def root_of(data: Mapping[str, Any]) -> str:
    """The pipeline root that a run was started with; empty: the server's own."""
    config = data.get("runtime_config")
    return str(config.get("pipeline_root") or "") if isinstance(config, dict) else ""


def _declared(pipeline: Pipeline | None) -> tuple[Declared, ...]:
    return tuple(
        Declared(
            spot.path, {name: kind.type for name, kind in spot.component.output_artifacts.items()}
        )
        for spot in (spots(pipeline) if pipeline else ())
        if spot.component.dag is None
    )


def _filled(task: Task, records: Sequence[TaskRecord]) -> Task:
    """A task with what is on record of it; of a loop's body, of all its rounds."""
    if not records or task.group:
        return task
    last = records[-1]
    return replace(
        task,
        artifacts=_all(one.artifacts for one in records),
        input_artifacts=_all(one.input_artifacts for one in records),
        inputs=dict(last.inputs) if len(records) == 1 else {},
        outputs=dict(last.outputs) if len(records) == 1 else {},
    )


def _all(several: Iterable[Artifacts]) -> dict[str, tuple[Artifact, ...]]:
    found: dict[str, tuple[Artifact, ...]] = {}
    for artifacts in several:
        for name, some in artifacts.items():
            found[name] = (*found.get(name, ()), *some)
    return found


def _metrics(records: Sequence[TaskRecord]) -> dict[str, float]:
    """The run's metrics; a loop's rounds count as tasks of their own."""
    return metrics_of({
        one.path: Task(one.path, "succeeded", artifacts=dict(one.artifacts)) for one in records
    })  # fmt: skip


def _scalars(artifact: Artifact) -> bool:
    return any(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in artifact.metadata.values()
    )
