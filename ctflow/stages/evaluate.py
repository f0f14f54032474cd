"""Evaluate: run -> verdict. Brings the champion and both models' predictions before the gate."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ctflow import release
from ctflow.config import Project
from ctflow.digests import short
from ctflow.errors import RunFailed, StateError
from ctflow.judging import judged
from ctflow.looks import looks_at
from ctflow.model import (
    Artifact,
    Decision,
    Override,
    Reason,
    Release,
    Run,
    ServingRef,
    Verdict,
)
from ctflow.policy import policy, rules_digest
from ctflow.ports import (
    Event,
    GoldenCheck,
    GoldenRequest,
    Looks,
    ModelStore,
    Runner,
    Scm,
    Watch,
)
from ctflow.release import Identity
from ctflow.scoring import Scorer, model_of


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
    looks: Looks,
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
        looks: which models were judged here; this one is added before it is compared.
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
        scorer = Scorer(run, model, project, store, None if dry_run else runner, watch)
        committed = looks_at(scm, current.commit, environment) if current else {}
        verdict = judged(
            scorer,
            environment,
            current.release if current else None,
            committed,
            looks,
            override,
            dry_run,
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
        anchors=before.anchors,
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
