"""Evaluate: run -> verdict. Brings the champion and both models' predictions before the gate."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctflow import gate, release
from ctflow.config import Project
from ctflow.digests import short
from ctflow.errors import CtflowError, OutsideError, RunFailed, StateError
from ctflow.gate import evidence
from ctflow.gate_rules import GateRule
from ctflow.model import (
    Artifact,
    Decision,
    Override,
    PredictionsKey,
    Reason,
    Release,
    Run,
    ServingRef,
    Verdict,
    making_digest,
)
from ctflow.policy import policy, rules_digest
from ctflow.ports import Event, GoldenCheck, GoldenRequest, ModelStore, Runner, Scm, Watch
from ctflow.release import Identity


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
    golden: GoldenCheck,
    watch: Watch,
    override: Override | None = None,
    dry_run: bool = False,
) -> Verdict:
    """The gate's verdict on a run for an environment.

    The champion is what the default branch says the environment serves. Where it has no predictions
    on the challenger's examples, made by the same code with the same other inputs, its model is
    scored again; where that cannot be done the verdict is ``hold``. What the rules let through
    must also answer the golden requests. Rules that are not the default branch's make a trial.

    Args:
        dry_run: start neither a task nor a model server: what they would tell is left open.

    Raises:
        StateError: the run did not succeed, or its model or predictions are gone.
        ConfigError: a rule asks for what the pipeline does not give, or golden requests are wrong.
        OutsideError: the environment of the model server cannot be made.
    """
    check_run(run)
    model = model_of(run, project)
    decided = policy(project, scm)
    current = champion(environment, project.branch, scm)
    serves = release.identity(current.release, project, scm) if current else None
    serving = _serving_of(run, project, environment, scm)
    what = release.Identity(model.digest, project.model.format, serving.digest if serving else "")
    if current and serves and serves != what and serves.model == what.model and serving:
        verdict = _same_model(run, current.release, serves, what)
    else:
        verdict = _judge(
            run, model, current, project, store, None if dry_run else runner, watch, override
        )
    verdict = replace(
        verdict,
        environment=environment,
        override=override,
        rules=rules_digest(project),
        serving=what.serving,
        champion_serving=serves.serving if serves else "",
        trial=decided.trial,
    )
    if decided.note:
        watch(Event("note", "gate", decided.note))
    if decided.trial:
        verdict = replace(verdict, notes=(f"a trial: {decided.trial}", *verdict.notes))
    if _is_empty(Path(model.uri)):
        # A step that wrote nothing into its model was a success, and its metrics are its own word.
        empty = Reason("model", "reject", f"{project.model.artifact} does not hold a single byte")
        verdict = replace(verdict, decision="reject", reasons=(empty, *verdict.reasons))
    held = _hold(current, what, environment, project, scm)
    if held is not None:
        decision: Decision = "reject" if verdict.decision == "reject" else "hold"
        verdict = replace(verdict, decision=decision, reasons=(held, *verdict.reasons))
    verdict = _answer_golden(
        verdict, run, serving, model, project, scm, None if dry_run else golden, watch
    )
    # Against what the gate says already there is nothing to override.
    needless = verdict.decision == "promote" and not verdict.trial
    return replace(verdict, override=None) if needless else verdict


def _judge(
    run: Run,
    model: Artifact,
    current: Champion | None,
    project: Project,
    store: ModelStore,
    runner: Runner | None,
    watch: Watch,
    override: Override | None,
) -> Verdict:
    challengers = {
        where: evidence.read_predictions(Path(artifact_of(run, where).uri))
        for where in _named(project.gate)
    }
    verdict: Verdict = gate.judge(
        project=project.project,
        environment="",
        run=run.id,
        rules=project.gate,
        metrics=run.metrics,
        predictions=challengers,
        champion=_judged(current, run, model, project, challengers, store, runner, watch),
        challenger=model.digest,
        override=override,
    )
    sets = {where: found.evaluation_set for where, found in challengers.items()}
    return replace(verdict, evaluated=sets)


def _is_empty(model: Path) -> bool:
    files = (model,) if model.is_file() else (p for p in model.rglob("*") if p.is_file())
    return not any(file.stat().st_size for file in files)


def _same_model(run: Run, current: Release, serves: Identity, what: Identity) -> Verdict:
    """The model was judged when it came in; what is new is how it is served."""
    changed = "serving code" if serves.serving != what.serving else "model format"
    before = current.verdict
    return Verdict(
        project=run.project,
        environment=current.environment,
        run=run.id,
        decision="promote",
        reasons=(Reason("serving", "promote", f"same model, new {changed}"),),
        champion=current.model.digest,
        metrics=before.metrics,
        champion_metrics=before.metrics,
        evaluation_set=before.evaluation_set,
        examples=before.examples,
    )


def _serving_of(run: Run, project: Project, environment: str, scm: Scm) -> ServingRef | None:
    """The serving code of the run's commit; None where no commit holds it."""
    if run.commit is None or run.commit.dirty or not scm.has(run.commit.sha):
        return None
    return release.serving_at(scm, run.commit.sha, project, environment)[0]


def _answer_golden(
    verdict: Verdict,
    run: Run,
    serving: ServingRef | None,
    model: Artifact,
    project: Project,
    scm: Scm,
    golden: GoldenCheck | None,
    watch: Watch,
) -> Verdict:
    """The verdict with the golden requests' answers, where nothing else stops the model."""
    if not verdict.passes or run.commit is None:
        return verdict
    if serving is None or golden is None:
        why = "this is a dry run" if golden is None else "the run's code is in no commit"
        note = f"the golden requests were not tried: {why}"
        return replace(verdict, notes=(*verdict.notes, note))
    with tempfile.TemporaryDirectory(prefix="ctflow-golden-") as folder:
        code = Path(folder) / "code"
        scm.export(run.commit.sha, project.serving.folder, code)
        request = GoldenRequest(
            release.public_name(
                scm, scm.tip(project.branch), verdict.environment, project.project
            ),
            Path(model.uri), code, serving.predictor, serving.golden,
        )  # fmt: skip
        try:
            checks = golden(request, watch)
        except RunFailed as error:
            reason = Reason("golden", "reject", error.fact)
            return replace(verdict, decision="reject", reasons=(*verdict.reasons, reason))
    failed = [check for check in checks if not check.passed]
    text = f"golden requests {len(checks) - len(failed)}/{len(checks)}"
    if failed:
        text += f": {failed[0].name}: {failed[0].detail}"
    reason = Reason("golden", "reject" if failed else "promote", text)
    decision: Decision = "reject" if failed else verdict.decision
    return replace(verdict, decision=decision, reasons=(*verdict.reasons, reason))


def _hold(
    current: Champion | None,
    what: Identity,
    environment: str,
    project: Project,
    scm: Scm,
) -> Reason | None:
    """What a hold in git says to the verdict."""
    tip = current.commit if current else scm.tip(project.branch)
    holds = release.holds_at(scm, tip, environment) if tip else ()
    hold = release.is_held(what, holds)
    if hold is None:
        return None
    where = release.path(environment, release.HOLDS)
    text = f"model {short(what.model)} is on hold for {environment} ({hold.reason}), see {where}"
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
    model: Artifact,
    project: Project,
    challengers: Mapping[str, evidence.Predictions],
    store: ModelStore,
    runner: Runner | None,
    watch: Watch,
) -> gate.Champion | None:
    if current is None:
        return None
    digest = current.release.model.digest
    if digest == model.digest:
        return gate.Champion(digest, current.release.metrics, {})
    found: dict[str, evidence.Predictions] = {}
    missing: dict[str, str] = {}
    for where in {rule.predictions for rule in project.gate if rule.over and rule.predictions}:
        key = PredictionsKey(
            digest, where, challengers[where].evaluation_set, making_digest(run, where, model)
        )
        try:
            place = _kept(current.release, key, store, watch)
            if place is None and runner is None:
                missing[where] = "it would be scored again; this is a dry run"
                continue
            if place is None and runner is not None:
                place = _scored_again(run, key, project, store, runner, watch)
            if place is not None:
                found[where] = evidence.read_predictions(place)
        except CtflowError as error:
            missing[where] = error.message()
    return gate.Champion(digest, current.release.metrics, found, missing)


def _kept(champion: Release, key: PredictionsKey, store: ModelStore, watch: Watch) -> Path | None:
    """The champion's kept predictions, if they are what its release says that they are."""
    try:
        kept = store.fetch_predictions(key)
    except OutsideError as error:
        watch(Event("note", "gate", f"not believed: {error.fact}"))
        return None
    if kept is None:
        return None
    place, digest = kept
    said = {ref.key(key.model): ref.digest for ref in champion.predictions}.get(key, digest)
    if said != digest:
        watch(Event("note", "gate", f"not believed: {place} is not what the release names"))
        return None
    return place


def _scored_again(
    run: Run,
    key: PredictionsKey,
    project: Project,
    store: ModelStore,
    runner: Runner,
    watch: Watch,
) -> Path:
    text = "the evaluation is new to the champion (its examples, its code or its other inputs)"
    watch(Event("note", "gate", f"{text}: scoring the champion on it"))
    task, _, output = key.output.rpartition(".")
    content = store.fetch(key.model)
    done = runner.score_again(run, task, project.model.artifact, content, watch)
    artifacts = done.artifacts.get(output, ())
    if not artifacts:
        raise StateError(f"task {task} gave no {output} for the champion")
    place = Path(artifacts[0].uri)
    store.put_predictions(key, place)
    return place
