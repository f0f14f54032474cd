"""Per-example predictions of the challenger, and of other models on the challenger's examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import OutsideError, RunFailed, StateError
from ctflow.gate.files import evidence
from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, PredictionsKey, Release, Run, making_digest
from ctflow.ports import Event, Functions, ModelStore, Runner, Watch

if TYPE_CHECKING:
    from ctflow.config.project import Project


def model_of(run: Run, project: Project) -> Artifact:
    """The run's model; StateError when the run has no such output."""
    return artifact_of(run, project.model.artifact)


def artifact_of(run: Run, where: str) -> Artifact:
    """The artifact at ``task.output``, which must still be on the disk.

    Raises:
        StateError: the run has no such output, or it is gone.
        RunFailed: its task wrote nothing to it.
    """
    artifact = run.artifact(where)
    if artifact is None:
        task, _, output = where.rpartition(".")
        found = run.task(task)
        if found is None:
            names = ", ".join(one.name for one in run.tasks)
            raise StateError(
                f"run {run.id} has no task {task!r} for {where!r}", next=f"its tasks: {names}"
            )
        raise StateError(
            f"task {task} of run {run.id} ({found.state}) has no output {output!r}",
            next=f"its outputs: {', '.join(found.artifacts) or 'none'}; correct ctflow.yaml",
        )
    if not Path(artifact.uri).exists():
        if not artifact.digest:
            raise RunFailed(
                f"run {run.id} wrote nothing to {where}",
                cause="KFP calls a task a success that leaves an output artifact out",
                next="see `ctflow runs logs`",
            )
        raise StateError(
            f"{where} of run {run.id} is gone ({artifact.uri})", next="run the pipeline again"
        )
    return artifact


@dataclass(frozen=True)
class Scorer:
    """Brings predictions that the gate compares.

    Attributes:
        run: the challenger's run.
        model: its model.
        runner: runs the evaluation task again for another model; None in a dry run.
        functions: the functions of the project that rules ask about predictions; None: there are
            none to ask.
    """

    run: Run
    model: Artifact
    project: Project
    store: ModelStore
    runner: Runner | None
    watch: Watch
    functions: Functions | None = None

    def of_challenger(self, output: str) -> evidence.Predictions:
        """The challenger's own, of ``task.output``.

        Raises:
            StateError, RunFailed: the run has no such output.
            UsageError: it is no predictions file.
        """
        return self._read(Path(artifact_of(self.run, output).uri), output)

    def of_other(
        self,
        model: str,
        output: str,
        evaluation_set: str,
        current: Release | None,
        name: str = "the champion",
    ) -> evidence.Predictions:
        """Another model's, on the same examples, made by the same code with the same other inputs.

        Those that the store keeps, else its model is scored again.

        Args:
            model: the other model's digest.
            current: the release of that model that says what was kept; None: none does.
            name: what people call it.

        Raises:
            CtflowError: they cannot be had.
        """
        key = PredictionsKey(
            model, output, evaluation_set, making_digest(self.run, output, self.model)
        )
        place = self._kept(key, current)
        if place is None:
            place = self._scored_again(key, name)
        return self._read(place, output)

    def _read(self, place: Path, output: str) -> evidence.Predictions:
        calls = self.functions.of(output) if self.functions is not None else None
        return evidence.read_predictions(place, calls)

    def _kept(self, key: PredictionsKey, current: Release | None) -> Path | None:
        """What the store keeps, if it is what the release says that it is."""
        try:
            kept = self.store.fetch_predictions(key)
        except OutsideError as error:
            self.watch(Event("note", "gate", f"not believed: {error.fact}"))
            return None
        if kept is None:
            return None
        place, digest = kept
        refs = current.predictions if current else ()
        said = {ref.key(key.model): ref.digest for ref in refs}.get(key, digest)
        if said != digest:
            self.watch(
                Event("note", "gate", f"not believed: {place} is not what the release names")
            )
            return None
        return place

    def _scored_again(self, key: PredictionsKey, name: str) -> Path:
        if self.runner is None:
            raise StateError("it would be scored again; this is a dry run")
        text = f"the evaluation is new to {name} (its examples, its code or its other inputs)"
        self.watch(Event("note", "gate", f"{text}: scoring {name} on it"))
        task, _, output = key.output.rpartition(".")
        content = self.store.fetch(key.model)
        done = self.runner.score_again(
            self.run, task, self.project.model.artifact, content, self.watch
        )
        artifacts = done.artifacts.get(output, ())
        if not artifacts:
            raise StateError(f"task {task} gave no {output} for {name}")
        place = evidence.predictions_file(Path(artifacts[0].uri))
        self.store.put_predictions(key, place)
        return place
