"""Evaluate: run -> verdict. Brings the champion and both models' predictions before the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ctflow.config.functions import code_of
from ctflow.config.policy import other_code, policy, rules_digest
from ctflow.evaluation.candidates import Candidate
from ctflow.evaluation.judging import judged, with_functions
from ctflow.evaluation.preconditions import check_champion, check_environment
from ctflow.evaluation.scoring import Scorer
from ctflow.evaluation.served import Served, size_of
from ctflow.evaluation.training_data import TrainingData
from ctflow.lib.digests import short
from ctflow.lib.quick import dataclass
from ctflow.model import (
    OWN,
    Decision,
    Override,
    Reason,
    Release,
    Run,
    ServingRef,
    Verdict,
)
from ctflow.ports import (
    Event,
    GoldenCheck,
    Looks,
    ModelStore,
    OpenFunctions,
    Outputs,
    PredictorImages,
    Scm,
    Watch,
)
from ctflow.release import files as release
from ctflow.release.looks import looks_in_git
from ctflow.release.predictor_image import image_of
from ctflow.release.serving import change_of, described, serving_at, unpinned
from ctflow.tools import Tools

if TYPE_CHECKING:
    from ctflow.config.project import Project


@dataclass(frozen=True)
class Champion:
    """What an environment serves by git, and the commit that says so."""

    release: Release
    commit: str


def gate(
    tools: Tools,
    candidate: Candidate,
    environment: str,
    watch: Watch,
    override: Override | None = None,
    dry_run: bool = False,
    *,
    outputs: Outputs | None = None,
    golden: bool = True,
) -> Verdict:
    """The gate's verdict on a candidate for an environment; a dry run runs nothing for it.

    Args:
        outputs: where the candidate's files are; default: with the project's runner.
        golden: whether the model is started, and asked the golden requests.
    """
    check_environment(tools, environment)
    tools.scm.fetch()
    check_champion(tools, environment)
    return evaluate(
        candidate,
        environment,
        tools.project,
        scm=tools.scm,
        store=tools.store,
        looks=tools.looks,
        runner=outputs or tools.runner,
        golden=tools.target(environment).try_model if golden else None,
        predictors=tools.predictors,
        functions=tools.functions,
        watch=watch,
        override=override,
        dry_run=dry_run,
    )


def evaluate(
    candidate: Candidate,
    environment: str,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
    looks: Looks,
    runner: Outputs,
    golden: GoldenCheck | None,
    predictors: PredictorImages,
    functions: OpenFunctions,
    watch: Watch,
    override: Override | None = None,
    dry_run: bool = False,
) -> Verdict:
    """The gate's verdict on a candidate for an environment.

    The champion is what the default branch says the environment serves. Where it has no predictions
    on the challenger's examples, made by the same code with the same other inputs, its model is
    scored again; where that cannot be done the verdict is ``hold``. What the rules let through
    must also answer the golden requests, and in the time that rules allow. Rules that are not the
    default branch's make a trial.

    Args:
        looks: which models were judged here; this one is added before it is compared.
        predictors: give the predictor's image, which is part of what is judged.
        functions: asks the functions of the project that rules name.
        dry_run: start neither a task nor a model server: what they would tell is left open.

    Raises:
        StateError: the store lacks the model, or its model or predictions are gone.
        ConfigError: a rule asks for what the pipeline does not give, or golden requests are wrong.
        OutsideError: the environment of the model server cannot be made.
    """
    run = candidate.run
    candidate.check()
    candidate.fetch_model()  # that it is gone is known now, and not when it is to be kept
    decided = policy(project, scm)
    code = _code_of(run, project, scm) if decided.code is not None else None
    trial = decided.trial or other_code(decided, code)
    current = champion(environment, project.branch, scm)
    serves = release.identity(current.release, project, scm) if current else None
    image = partial(
        image_of, commit=run.commit.sha if run.commit else "", project=project,
        environment=environment, scm=scm, images=predictors, watch=watch, dry_run=dry_run,
    )  # fmt: skip
    serving = _serving_of(candidate, project, environment, scm, image)
    what = release.identity_with(candidate.digest, project.model.format, serving)
    held = _hold(current, what, environment, project, scm)
    is_empty = size_of(candidate.fetch_model()) == 0
    served = Served(
        candidate,
        project,
        environment,
        serving,
        current.release.model.size if current else 0,
        scm,
        None if dry_run else golden,
        watch,
        stopped=is_empty or held is not None,
        dry_run=dry_run,
    )
    if current and serves and serves != what and serves.model == what.model and serving:
        changed = "model format"
        if serves.serving != what.serving:
            changed = change_of(current.release.serving, serving)
        verdict = served.costs(_same_model(run, current.release, changed))
    else:
        data = TrainingData(
            candidate, project, store, current.release if current else None, runner, watch
        )
        proposed = scm.tip(release.branch(project.project, environment))
        committed = looks_in_git(scm, current.commit, proposed, environment) if current else {}
        with functions(run, watch) as asked:
            scorer = Scorer(candidate, store, watch, dry_run, asked)
            verdict = judged(
                scorer,
                project,
                environment,
                current.release if current else None,
                committed,
                looks,
                override,
                dry_run,
                lambda found: served.costs(data.judged(found)),
            )
        verdict = with_functions(verdict, asked.used)
    verdict = replace(
        verdict,
        environment=environment,
        override=override,
        rules=rules_digest(project, code),
        serving=what.serving,
        champion_serving=serves.serving if serves else "",
        trial=trial,
    )
    if decided.note:
        watch(Event("note", "gate", decided.note))
    if trial:
        verdict = replace(verdict, notes=(f"a trial: {trial}", *verdict.notes))
    if is_empty:
        # A step that wrote nothing into its model was a success, and its metrics are its own word.
        empty = Reason("model", "reject", f"{project.model.artifact} is empty")
        verdict = replace(verdict, decision="reject", reasons=(empty, *verdict.reasons))
    if held is not None:
        decision: Decision = "reject" if verdict.decision == "reject" else "hold"
        verdict = replace(verdict, decision=decision, reasons=(held, *verdict.reasons))
    if serving is not None and not verdict.serves_already:
        verdict = replace(verdict, notes=(*verdict.notes, *_runtime_notes(serving)))
    verdict = served.tried(verdict)
    # Against what the gate says already there is nothing to override.
    needless = verdict.decision == "promote" and not verdict.trial
    return replace(verdict, override=None) if needless else verdict


def _same_model(run: Run, current: Release, changed: str) -> Verdict:
    """The model was judged when it came in; what is new is how it is served."""
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


def _runtime_notes(serving: ServingRef) -> tuple[str, ...]:
    """What serves the model where that is no code of the project's."""
    if serving.runtime == OWN:
        return ()
    notes = [f"served by the {described(serving)}"]
    if loose := unpinned(serving):
        notes.append(
            f"{loose} names no single version: the model may be loaded by another one than wrote it"
        )
    if not serving.golden:
        notes.append("no golden requests: it is only checked that the model loads and is ready")
    return tuple(notes)


def _serving_of(
    candidate: Candidate,
    project: Project,
    environment: str,
    scm: Scm,
    image: Callable[[ServingRef], str],
) -> ServingRef | None:
    """What the run's commit says that serves; None where no commit holds it."""
    run = candidate.run
    if run.commit is None or run.commit.dirty or not scm.has(run.commit.sha):
        return None
    commit, needs = run.commit.sha, candidate.requirements
    model = candidate.fetch_model
    return serving_at(scm, commit, project, environment, run, model, image, needs)[0]


def _code_of(run: Run, project: Project, scm: Scm) -> dict[str, str]:
    """The files of the functions that rules name, as the run's commit has them."""
    if run.commit is None or not scm.has(run.commit.sha):
        return {}
    dirty = run.commit.dirty
    return {
        function: digest if function.rpartition(":")[0] not in dirty else "uncommitted"
        for function, digest in code_of(project.gate, scm, run.commit.sha).items()
    }


def _hold(
    current: Champion | None,
    what: release.Identity,
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
