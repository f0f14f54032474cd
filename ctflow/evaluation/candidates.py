"""Candidates: what gate and promotion know of a model, wherever it was trained.

A candidate is made from a run, or from a release: what staging serves can be proposed for
production where neither the run's record nor the machine that trained it is to be had. Files are
reached through the candidate, which brings them here; nobody else takes a URI for a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ctflow.config.project import Project
from ctflow.errors import RunFailed, StateError
from ctflow.gate.files import evidence
from ctflow.lib.digests import short
from ctflow.model import (
    Artifact,
    Commit,
    Image,
    ModelRef,
    PredictionsKey,
    PredictionsRef,
    Release,
    Run,
    Verdict,
    making_digest,
)
from ctflow.ports import ModelStore, Outputs, Watch


class Candidate(Protocol):
    """A model, and the evidence for it.

    Attributes:
        run: where it comes from; of a release's run, as much as the release tells.
        digest: the model's.
        data: the digests of the data sets of its run, by ``task.output``.
        requirements: what a standard runtime needs to serve it, where a release says so.
    """

    run: Run
    digest: str
    data: Mapping[str, str]
    requirements: tuple[str, ...]

    def check(self) -> None:
        """Raise StateError where there is nothing to judge."""
        ...

    def fetch_model(self) -> Path:
        """The model's content on this machine. Raises OutsideError."""
        ...

    def keep_model(self, store: ModelStore, format: str) -> ModelRef:
        """The model in the store, kept there now if it is not yet."""
        ...

    def fetch(self, output: str) -> Path:
        """What is at ``task.output``, on this machine.

        Raises:
            StateError: there is no such output, or it is gone.
            RunFailed: its task wrote nothing to it.
            OutsideError: it cannot be brought here.
        """
        ...

    def content(self, output: str) -> str:
        """The digest of what is at ``task.output``; empty where it is not known."""
        ...

    def made(self, output: str) -> str:
        """The digest of what the predictions at ``task.output`` were made of."""
        ...

    def kept(self, output: str, evaluation_set: str) -> PredictionsRef | None:
        """Its predictions, where the store has them already."""
        ...

    def kept_summaries(self) -> tuple[PredictionsRef, ...] | None:
        """The summaries of its training data, where the store has them already."""
        ...

    def score(self, output: str, model: Path, watch: Watch) -> Path:
        """The predictions at ``task.output`` of another model, made as this one's were.

        Raises:
            RunFailed: the task fails on it.
            StateError: that task cannot be run here.
        """
        ...


class RunCandidate:
    """The model of a run.

    Raises:
        StateError: the run did not succeed, or has no such output as the model.
        RunFailed: its task wrote nothing to it.
    """

    def __init__(self, run: Run, project: Project, runner: Outputs) -> None:
        self.run = run
        self._project = project
        self._runner = runner
        self.check()
        predictions = predictions_of(project)
        data = [rule.data for rule in project.gate if rule.data is not None]
        wanted = dict.fromkeys((project.model.artifact, *predictions, *data))
        self.run = run = runner.identified(run, list(wanted), predictions)
        self._model = artifact_of(run, project.model.artifact)
        self.digest = self._model.digest
        self.requirements: tuple[str, ...] = ()
        self.data: Mapping[str, str] = {
            f"{task.name}.{name}": artifact.digest
            for task in run.tasks
            for name, artifacts in sorted(task.artifacts.items())
            for artifact in artifacts
            if artifact.type == "system.Dataset" and artifact.digest
        }

    def check(self) -> None:
        """Raise StateError unless the run can be judged."""
        if self.run.state != "succeeded":
            raise StateError(
                f"run {self.run.id} is {self.run.state}, and only a succeeded run can be judged",
                next=f"see `ctflow runs show {self.run.id}`",
            )

    def fetch_model(self) -> Path:
        """The model's content on this machine."""
        return self._runner.fetch(self._model)

    def keep_model(self, store: ModelStore, format: str) -> ModelRef:
        """The model in the store, kept there now if it is not yet."""
        uri = self._model.uri
        here = replace(self._model, uri=str(self.fetch_model()))
        return store.put(here, format, uri if "://" in uri else "")

    def fetch(self, output: str) -> Path:
        """What is at ``task.output``, on this machine."""
        return self._runner.fetch(artifact_of(self.run, output))

    def content(self, output: str) -> str:
        """The digest of what is at ``task.output``."""
        return artifact_of(self.run, output).digest

    def made(self, output: str) -> str:
        """The digest of what the predictions at ``task.output`` were made of."""
        return making_digest(self.run, output, self._model)

    def kept(self, output: str, evaluation_set: str) -> PredictionsRef | None:
        """None: they are with the run."""
        return None

    def kept_summaries(self) -> tuple[PredictionsRef, ...] | None:
        """None: the data is with the run."""
        return None

    def score(self, output: str, model: Path, watch: Watch) -> Path:
        """Run the task that made them again, with another model."""
        task, _, name = output.rpartition(".")
        done = self._runner.score_again(self.run, task, self._project.model.artifact, model, watch)
        artifacts = done.artifacts.get(name, ())
        if not artifacts:
            raise StateError(f"task {task} gave no {name}")
        return evidence.predictions_file(self._runner.fetch(artifacts[0]))


class ReleaseCandidate:
    """The model of a release, with what the store keeps of it."""

    def __init__(self, release: Release, store: ModelStore) -> None:
        self._release = release
        self._store = store
        self.run = run_of(release)
        self.digest = release.model.digest
        self.requirements = release.serving.requirements if release.serving else ()
        self.data: Mapping[str, str] = release.data

    @property
    def verdict(self) -> Verdict:
        """The verdict that let it in."""
        return self._release.verdict

    def check(self) -> None:
        """Raise StateError where the store here lacks the model."""
        if not self._store.has(self.digest):
            raise StateError(
                f"the model store here lacks {self._release.environment}'s model"
                f" {short(self.digest)}",
                next="get it with `ctflow store pull STORE` (where it is: `ctflow store push"
                " STORE`), or name the team's store in store.models",
            )

    def fetch_model(self) -> Path:
        """The model's content on this machine."""
        return self._store.fetch(self.digest)

    def keep_model(self, store: ModelStore, format: str) -> ModelRef:
        """The model as the release names it: the store has it."""
        return self._release.model

    def fetch(self, output: str) -> Path:
        """The predictions at ``task.output`` that the store keeps."""
        for ref in self._release.predictions:
            if ref.output == output:
                found = self._store.fetch_predictions(ref.key(self.digest))
                if found is not None and found[1] == ref.digest:
                    return found[0]
        raise StateError(
            f"{output} of run {self.run.id} is not kept with {self._release.environment}'s release",
            next=f"promote the run where it is on record: `ctflow promote {self.run.id}`",
        )

    def content(self, output: str) -> str:
        """The digest of what is at ``task.output``, where the release says it."""
        return self.data.get(output, "")

    def made(self, output: str) -> str:
        """The digest of what the predictions at ``task.output`` were made of."""
        return next((one.made for one in self._release.predictions if one.output == output), "")

    def kept(self, output: str, evaluation_set: str) -> PredictionsRef | None:
        """The release's own reference to them."""
        key = PredictionsKey(self.digest, output, evaluation_set, self.made(output))
        refs = (one for one in self._release.predictions if one.key(self.digest) == key)
        return next(refs, None)

    def kept_summaries(self) -> tuple[PredictionsRef, ...] | None:
        """The release's own."""
        return self._release.summaries

    def score(self, output: str, model: Path, watch: Watch) -> Path:
        """Raises StateError: there is no run here to do it with."""
        raise StateError(
            f"run {self.run.id} is not on record here, and no other model can be scored as it was"
        )


def predictions_of(project: Project) -> list[str]:
    """The ``task.output`` of all predictions that rules name, the reserved ones too."""
    named = (one for rule in project.gate for one in (rule.predictions, rule.confirm))
    return list(dict.fromkeys(one for one in named if one is not None))


def run_of(release: Release) -> Run:
    """The run of a release, as much as the release tells of it: none of its tasks."""
    images = (
        Image(step, reference, reference.rpartition("@")[2])
        for step, reference in release.images.items()
    )
    return Run(
        release.run,
        release.project,
        release.pipeline,
        release.package,
        "succeeded",
        release.created,
        commit=Commit(release.commit),
        parameters=release.parameters,
        images=tuple(images),
        metrics=release.metrics,
    )


def artifact_of(run: Run, where: str) -> Artifact:
    """The artifact at ``task.output``.

    Raises:
        StateError: the run has no such output.
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
    if not artifact.digest and not Path(artifact.uri).exists():
        raise RunFailed(
            f"run {run.id} wrote nothing to {where}",
            cause="KFP calls a task a success that leaves an output artifact out",
            next="see `ctflow runs logs`",
        )
    return artifact
