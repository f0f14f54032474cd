"""Promote: verdict -> promotion. Proposes a run's model for an environment, exactly once.

A promotion is a branch with one commit on the default branch's tip. The commit depends only on the
run, the verdict and that tip, and the branch moves by compare-and-swap: whoever calls again, or at
the same time, ends in the same state.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctflow import release as files
from ctflow.config import Project
from ctflow.digests import short
from ctflow.errors import GateHeld, OutsideError, StateError
from ctflow.gate import evidence
from ctflow.model import Artifact, PredictionsRef, Promotion, Release, Run, Verdict
from ctflow.ports import Forge, ModelStore, Scm
from ctflow.report import Confusion, Evidence, promotion_report
from ctflow.report.markdown import to_markdown

_TRIES = 5


def promote(
    run: Run,
    verdict: Verdict,
    model: Artifact,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
    forge: Forge,
    predictions: Artifact | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Propose ``run``'s model for the verdict's environment.

    Args:
        model: the run's model, which the store will keep.
        predictions: its per-example predictions, kept with it for later comparisons.
        dry_run: say what would be proposed; nothing is written but the repository's fetch.

    Raises:
        GateHeld: the verdict is no, or the model is on hold for this environment.
        StateError: the run is of uncommitted changes, the evidence compares with a champion that
            serves no more, a newer run is proposed already, or somebody else's commits are there.
        OutsideError: git, the forge or the store failed; calling again goes on.
    """
    _check_verdict(run, verdict)
    commit = _commit_of(run)
    environment = verdict.environment
    branch = files.branch(project.project, environment)
    scm.fetch()
    for _ in range(_TRIES):
        base = scm.tip(project.branch)
        if base is None:
            raise StateError(
                f"there is no branch {project.branch}", next="push it, or set `branch`"
            )
        nothing = Promotion(
            project.project, environment, branch, "none", run.id, model.digest, base
        )
        current = files.at(scm, base, environment)
        if current and current.model.digest == model.digest:
            return nothing
        _check_base(scm, base, verdict, current, model, project)
        if dry_run:
            return replace(nothing, state="open", created=run.created)
        release = _release(run, verdict, model, predictions, project, commit, store)
        made = _commit(scm, base, release, current, project, store)
        old = scm.tip(branch)
        promotion = replace(nothing, state="open", commit=made, created=release.created)
        if old == made:
            return _published(promotion, release, scm, forge)
        _check_old(scm, old, base, environment, release)
        if scm.move(branch, made, old, force=True):
            return _published(replace(promotion, changed=True), release, scm, forge)
        scm.fetch()
    raise OutsideError(
        f"the branch {branch} kept moving under us", next="run the same command again"
    )


def _check_verdict(run: Run, verdict: Verdict) -> None:
    if verdict.run != run.id:
        raise StateError(f"the verdict is about run {verdict.run}, not {run.id}")
    if not verdict.passes:
        raise GateHeld(
            f"the gate says {verdict.decision} for {verdict.environment}",
            next=_way_out(run, verdict),
            details=tuple(one.text for one in verdict.reasons if one.decision != "promote"),
        )


def _way_out(run: Run, verdict: Verdict) -> str:
    if any(reason.rule == "hold" for reason in verdict.reasons):
        where = files.path(verdict.environment, files.HOLDS)
        return f"to allow the model, remove its entry from {where} and commit"
    return f"see `ctflow gate {run.id}`, or use --override --reason"


def _commit_of(run: Run) -> str:
    if run.commit is None:
        raise StateError(f"run {run.id} names no commit", next="run it again in a git repository")
    if run.commit.dirty:
        raise StateError(
            f"run {run.id} was made from uncommitted changes ({_few(run.commit.dirty)})",
            next="commit them and run again, so that the release can name what it was made from",
        )
    return run.commit.sha


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _check_base(
    scm: Scm,
    base: str,
    verdict: Verdict,
    current: Release | None,
    model: Artifact,
    project: Project,
) -> None:
    environment = verdict.environment
    serves = current.model.digest if current else None
    if verdict.champion != serves:
        raise StateError(
            f"{environment} now has model {short(serves)}, and the evidence compares with"
            f" {short(verdict.champion)}",
            next="run the gate again",
        )
    hold = files.is_held(model.digest, files.holds_at(scm, base, environment))
    if hold:
        raise files.held(environment, hold)
    before = project.environments[environment].after
    if before:
        there = files.at(scm, base, before)
        if there is None or there.model.digest != model.digest:
            raise StateError(
                f"{environment} comes after {before}, which has model"
                f" {short(there.model.digest if there else None)}, not {short(model.digest)}",
                next=f"promote it to {before} first",
            )


def _release(
    run: Run,
    verdict: Verdict,
    model: Artifact,
    predictions: Artifact | None,
    project: Project,
    commit: str,
    store: ModelStore,
) -> Release:
    kept = store.put(model, project.model.format)
    reference = None
    if predictions is not None and verdict.evaluation_set:
        uri, digest = store.put_predictions(
            model.digest, verdict.evaluation_set, Path(predictions.uri)
        )
        reference = PredictionsRef(uri, digest, verdict.evaluation_set)
    datasets = {
        f"{task.name}.{name}": artifact.digest
        for task in run.tasks
        for name, artifacts in sorted(task.artifacts.items())
        for artifact in artifacts
        if artifact.type == "system.Dataset"
    }
    return Release(
        project=project.project,
        environment=verdict.environment,
        model=kept,
        run=run.id,
        pipeline=run.pipeline,
        pipeline_version=commit[:12],
        package=run.package,
        commit=commit,
        # Of the run, not of now: the same call again must give the same commit.
        created=run.ended or run.created,
        verdict=verdict,
        parameters=run.parameters,
        metrics=run.metrics,
        images={image.step: image.reference for image in run.images},
        data=datasets,
        predictions=reference,
    )


def _commit(
    scm: Scm,
    base: str,
    release: Release,
    current: Release | None,
    project: Project,
    store: ModelStore,
) -> str:
    at = release.environment
    manifest = scm.read(base, files.path(at, files.MANIFEST))
    kustomization = scm.read(base, files.path(at, files.KUSTOMIZATION))
    changes = files.write(release, manifest, kustomization)
    after = changes[files.path(at, files.MANIFEST)]
    found = _evidence(release, current, project, store, manifest, after)
    changes[files.path(at, files.REPORT)] = to_markdown(promotion_report(found)).encode()
    return scm.commit_files(base, changes, message(release), at=release.created)


def described(
    release: Release,
    current: Release | None,
    base: str,
    commit: str,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
) -> Evidence:
    """What a proposal's report says, from the proposal's own commit and the one it builds on."""
    where = files.path(release.environment, files.MANIFEST)
    return _evidence(
        release, current, project, store, scm.read(base, where), scm.read(commit, where)
    )


def _evidence(
    release: Release,
    current: Release | None,
    project: Project,
    store: ModelStore,
    before: bytes | None,
    after: bytes | None,
) -> Evidence:
    return Evidence(
        release,
        current,
        project.environments[release.environment].rollout,
        _confusion(release.model.digest, release.verdict, store),
        _confusion(release.verdict.champion, release.verdict, store),
        (before or b"").decode("utf-8"),
        (after or b"").decode("utf-8"),
    )


def _confusion(model: str | None, verdict: Verdict, store: ModelStore) -> Confusion | None:
    """A model's confusion matrix on the verdict's evaluation set, if its predictions are kept."""
    if model is None or not verdict.evaluation_set:
        return None
    kept = store.fetch_predictions(model, verdict.evaluation_set)
    if kept is None:
        return None
    return Confusion(*evidence.confusion(evidence.read_predictions(kept)))


def title(release: Release) -> str:
    """One line that names the proposal."""
    return f"{release.environment}: serve {release.project} {short(release.model.digest)}"


def message(release: Release) -> str:
    """The proposal's commit message; the trailers are how other stages find it again."""
    forced = release.verdict.override is not None
    why = "let through by a person against the gate" if forced else "the gate says promote"
    return (
        f"{title(release)}\n\nFrom run {release.run} of commit {release.commit[:12]}; {why}."
        f" The evidence is in {files.path(release.environment, files.REPORT)}.\n\n"
        f"Ctflow-Environment: {release.environment}\n"
        f"Ctflow-Run: {release.run}\n"
        f"Ctflow-Model: {release.model.digest}\n"
    )


def _check_old(scm: Scm, old: str | None, base: str, environment: str, new: Release) -> None:
    """Refuse to write over a newer proposal, or over commits that people added."""
    if old is None or scm.is_ancestor(old, base):
        return
    entry = scm.log(old, ".", limit=1)[0]
    if "Ctflow-Run: " not in entry.body:
        raise StateError(
            f"the proposal for {environment} holds a commit by {entry.author} ({entry.subject})",
            next="approve or reject it first",
        )
    proposed = files.at(scm, old, environment)
    if proposed is not None and proposed.created > new.created:
        raise StateError(
            f"a newer run, {proposed.run}, is proposed for {environment} already",
            next=f"see `ctflow promotions show {environment}`",
        )


def _published(promotion: Promotion, release: Release, scm: Scm, forge: Forge) -> Promotion:
    body = scm.read(
        promotion.commit or promotion.base, files.path(promotion.environment, files.REPORT)
    )
    url = forge.publish(promotion.branch, title(release), (body or b"").decode("utf-8"))
    return replace(promotion, url=url)
