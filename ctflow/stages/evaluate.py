"""Evaluate: run -> verdict. Brings the champion and both models' predictions before the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctflow import gate, release
from ctflow.config import GateRule, Project
from ctflow.digests import short
from ctflow.errors import CtflowError, RunFailed, StateError
from ctflow.gate import evidence
from ctflow.model import Artifact, Decision, Override, Reason, Release, Run, Verdict
from ctflow.ports import Event, ModelStore, Runner, Scm, Watch


@dataclass(frozen=True)
class Champion:
    """What an environment serves by git, and the commit that says so."""

    release: Release
    commit: str


def check_run(run: Run) -> None:
    """Raise StateError unless the run can be judged."""
    if run.state != "succeeded":
        raise StateError(
            f"run {run.id} is {run.state}, and only a succeeded run can be judged",
            next=f"see `ctflow runs show {run.id}`",
        )


def evaluate(
    run: Run,
    environment: str,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
    runner: Runner,
    watch: Watch,
    override: Override | None = None,
) -> Verdict:
    """The gate's verdict on a run for an environment.

    The champion is what the default branch says the environment serves. Where its kept predictions
    answer another evaluation set, its model is scored again on the challenger's.

    Raises:
        StateError: the run did not succeed, or its model or predictions are gone.
        ConfigError: a rule asks for what the pipeline does not give.
    """
    check_run(run)
    model = model_of(run, project)
    challengers = {
        where: evidence.read_predictions(Path(artifact_of(run, where).uri))
        for where in _named(project.gate)
    }
    current = champion(environment, project.branch, scm)
    verdict: Verdict = gate.judge(
        project=project.project,
        environment=environment,
        run=run.id,
        rules=project.gate,
        metrics=run.metrics,
        predictions=challengers,
        champion=_judged(current, run, project, challengers, store, runner, watch),
        challenger=model.digest,
        override=override,
    )
    held = _hold(current, model, environment, project, scm)
    if held is not None:
        decision: Decision = "reject" if verdict.decision == "reject" else "hold"
        verdict = replace(verdict, decision=decision, reasons=(held, *verdict.reasons))
    # Against what the gate says already there is nothing to override.
    return replace(verdict, override=None) if verdict.decision == "promote" else verdict


def _hold(
    current: Champion | None, model: Artifact, environment: str, project: Project, scm: Scm
) -> Reason | None:
    """What a hold on the model in git says to the verdict."""
    tip = current.commit if current else scm.tip(project.branch)
    holds = release.holds_at(scm, tip, environment) if tip else ()
    hold = release.is_held(model.digest, holds)
    if hold is None:
        return None
    where = release.path(environment, release.HOLDS)
    text = f"model {short(model.digest)} is on hold for {environment} ({hold.reason}), see {where}"
    return Reason("hold", "hold", text)


def champion(environment: str, branch: str, scm: Scm) -> Champion | None:
    """The release that the default branch holds for the environment, or None."""
    tip = scm.tip(branch)
    if tip is None:
        return None
    found = release.at(scm, tip, environment)
    return Champion(found, tip) if found else None


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


def _named(rules: Sequence[GateRule]) -> list[str]:
    return list(dict.fromkeys(rule.predictions for rule in rules if rule.predictions))


def _judged(
    current: Champion | None,
    run: Run,
    project: Project,
    challengers: Mapping[str, evidence.Predictions],
    store: ModelStore,
    runner: Runner,
    watch: Watch,
) -> gate.Champion | None:
    if current is None:
        return None
    digest = current.release.model.digest
    found: dict[str, evidence.Predictions] = {}
    compared = {rule.predictions for rule in project.gate if rule.over and rule.predictions}
    for where in compared:
        try:
            found[where] = _predictions_of(
                current.release, where, challengers[where], run, project, store, runner, watch
            )
        except CtflowError as error:
            # The gate fails closed on what is missing; the reason belongs beside its verdict.
            watch(Event("note", "gate", f"the champion cannot be scored: {error.message()}"))
    return gate.Champion(digest, current.release.metrics, found)


def _predictions_of(
    champion: Release,
    where: str,
    challenger: evidence.Predictions,
    run: Run,
    project: Project,
    store: ModelStore,
    runner: Runner,
    watch: Watch,
) -> evidence.Predictions:
    digest, wanted = champion.model.digest, challenger.evaluation_set
    kept = store.fetch_predictions(digest, wanted)
    if kept is None:
        watch(Event("note", "gate", "the evaluation set is new: scoring the champion on it"))
        task, _, output = where.rpartition(".")
        content = store.fetch(digest)
        done = runner.score_again(run, task, project.model.artifact, content, watch)
        artifacts = done.artifacts.get(output, ())
        if not artifacts:
            raise StateError(f"task {task} gave no {output} for the champion")
        store.put_predictions(digest, wanted, Path(artifacts[0].uri))
        kept = store.fetch_predictions(digest, wanted)
        if kept is None:
            raise StateError("the champion's predictions were not kept")
    return evidence.read_predictions(kept)
