"""Promote: verdict -> promotion. Proposes a run's model for an environment, exactly once.

A promotion is a branch with one commit on the default branch's tip. The commit depends only on the
run, the verdict and that tip, and the branch moves by compare-and-swap: whoever calls again, or at
the same time, ends in the same state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ctflow.config.policy import policy
from ctflow.errors import OutsideError, StateError
from ctflow.evaluation.candidates import Candidate, ReleaseCandidate, RunCandidate
from ctflow.evaluation.kept_evidence import kept_evidence, kept_release
from ctflow.evaluation.preconditions import check_environment
from ctflow.evaluation.promotion_evidence import evidence_of
from ctflow.model import (
    Promotion,
    Release,
    Run,
    Verdict,
)
from ctflow.ports import Forge, LogEntry, ModelStore, PredictorImages, Scm, TreeFile, ignore
from ctflow.release import files as files
from ctflow.release.admission import Proposed, admit, promotion_id
from ctflow.release.approval import approve
from ctflow.release.looks import LOOKS, Models, looks_in_git, with_newest, write_looks
from ctflow.release.manifest import odd_protocol
from ctflow.release.messages import message, title
from ctflow.release.predictor_image import image_of
from ctflow.release.serving import serving_at
from ctflow.report import promotion_report
from ctflow.report.markdown import to_markdown
from ctflow.tools import Tools

if TYPE_CHECKING:
    from ctflow.config.project import Project

_TRIES = 5


def promote_candidate(
    tools: Tools, candidate: Candidate, verdict: Verdict, dry_run: bool = False
) -> Promotion:
    """Propose a candidate's model; where the environment merges by itself, merge it too."""
    check_environment(tools, verdict.environment)
    promotion = promote(
        candidate,
        verdict,
        tools.project,
        scm=tools.scm,
        store=tools.store,
        forge=tools.forge,
        predictors=tools.predictors,
        dry_run=dry_run,
    )
    decided = policy(tools.project, tools.scm).project.environments
    automatic = decided[verdict.environment].merge == "auto" and verdict.override is None
    if automatic and promotion.state == "open" and not dry_run:
        return approve(
            tools.project,
            verdict.environment,
            promotion.id,
            scm=tools.scm,
            forge=tools.forge,
            by="ctflow (merge: auto)",
        )
    return promotion


def candidate_for(tools: Tools, run: str | None, environment: str) -> Candidate:
    """The candidate of a run; without one, what the environment before this one serves.

    For an environment that comes after none it is the latest run. What the environment before
    serves needs no record of its run, nor that run's files: its release and the model store do.

    Raises:
        StateError: there is no such run or release, or the store here lacks its model.
    """
    before = tools.project.environments[environment].after
    there = None
    if before is not None and run != "latest":
        tools.scm.fetch()
        tip = tools.scm.tip(tools.project.branch)
        there = files.at(tools.scm, tip, before) if tip else None
        if there is None and run is None:
            raise StateError(
                f"{environment} comes after {before}, which has no release",
                next=f"promote a run to {before} first",
            )
    name = run or (there.run if there else "latest")
    found: Candidate | None = None
    try:
        recorded = tools.runner.get(name)
        if tools.project.runner != "local":
            # What the gate kept inside the pipeline is nearer than the run's own files.
            found = kept_evidence(tools.project, environment, recorded.id, tools.store)
        if found is None:
            found = RunCandidate(recorded, tools.project, tools.runner)
            found.fetch_model()
        return found
    except (StateError, OutsideError):
        found = kept_evidence(tools.project, environment, name, tools.store)
        if found is not None:
            return found
        if there is None or there.run != name:
            raise
    kept = ReleaseCandidate(there, tools.store)
    kept.check()
    return kept


def promote(
    candidate: Candidate,
    verdict: Verdict,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
    forge: Forge,
    predictors: PredictorImages,
    dry_run: bool = False,
) -> Promotion:
    """Propose a candidate's model for the verdict's environment.

    The store keeps the model, and its predictions at all outputs that were judged.

    Args:
        predictors: give the predictor's image.
        dry_run: say what would be proposed; nothing is written but the repository's fetch.

    Raises:
        GateHeld: the verdict is no, or the model is on hold for this environment.
        UsageError: training data that a rule names cannot be read.
        StateError: the run is of uncommitted changes or of a commit that nobody else has, the
            evidence compares with a champion that serves no more, a newer run is proposed already,
            or somebody else's commits are there.
        OutsideError: git, the forge or the store failed; calling again goes on.
    """
    run = candidate.run
    _check_verdict(run, verdict)
    environment = verdict.environment
    branch = files.branch(project.project, environment)
    scm.fetch()
    commit = commit_of(run, scm)
    image = partial(
        image_of, commit=commit, project=project, environment=environment, scm=scm,
        images=predictors, watch=ignore, dry_run=dry_run,
    )  # fmt: skip
    serving, code = serving_at(
        scm, commit, project, environment, run, candidate.fetch_model, image, candidate.requirements
    )
    what = files.identity_with(candidate.digest, project.model.format, serving)
    for _ in range(_TRIES):
        base = scm.tip(project.branch)
        if base is None:
            raise StateError(
                f"there is no branch {project.branch}", next="push it, or set `branch`"
            )
        nothing = Promotion(
            project.project, environment, branch, "none", run.id, candidate.digest, base
        )
        current = files.at(scm, base, environment)
        if files.identity(current, project, scm) == what:
            return nothing
        decided = admit(Proposed(what, verdict), project, base, scm).project
        if dry_run:
            return replace(nothing, state="open", created=run.created)
        release = replace(
            kept_release(candidate, verdict, project, commit, current, store), serving=serving
        )
        release = files.without_secrets(release)
        old = scm.tip(branch)
        # What others have put on record since the verdict, here or in the proposal to be replaced.
        looks = looks_in_git(scm, base, old, environment)
        made = _commit(scm, base, release, code, current, decided, store, looks)
        promotion = replace(
            nothing,
            state="open",
            commit=made,
            created=release.created,
            id=promotion_id(release, scm.changes(base, made)),
        )
        if old == made:
            return _published(promotion, release, project, scm, forge)
        _check_old(scm, old, base, release)
        if scm.move(branch, made, old, force=True):
            return _published(replace(promotion, changed=True), release, project, scm, forge)
        scm.fetch()
    raise OutsideError(
        f"the branch {branch} changed each time ctflow tried to update it",
        next="run the same command again",
    )


def _check_verdict(run: Run, verdict: Verdict) -> None:
    if verdict.run != run.id:
        raise StateError(f"the verdict is about run {verdict.run}, not {run.id}")


def commit_of(run: Run, scm: Scm) -> str:
    """The commit that a run was made from, which others can have too.

    Raises:
        StateError: it names none, had uncommitted changes, or is on no branch of the remote.
    """
    if run.commit is None:
        raise StateError(f"run {run.id} names no commit", next="run it again in a git repository")
    if run.commit.dirty:
        raise StateError(
            f"run {run.id} was made from uncommitted changes ({_few(run.commit.dirty)})",
            next="commit them and run again, so that the release can name what it was made from",
        )
    sha = run.commit.sha
    if not scm.is_published(sha):
        raise StateError(
            f"commit {sha[:10]} of run {run.id} is on no branch of the remote",
            next="push its branch, or run again from a commit that is there",
        )
    return sha


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _commit(
    scm: Scm,
    base: str,
    release: Release,
    code: Mapping[str, TreeFile],
    current: Release | None,
    project: Project,
    store: ModelStore,
    looks: Models,
) -> str:
    at = release.environment
    manifest = scm.read(base, files.path(at, files.MANIFEST))
    kustomization = scm.read(base, files.path(at, files.KUSTOMIZATION))
    changes: dict[str, bytes | TreeFile | None] = dict.fromkeys(
        scm.files(base, files.path(at, files.SERVING))
    )
    changes |= code
    if scm.read(base, files.path(at, files.APPROVALS)) is not None:
        changes[files.path(at, files.APPROVALS)] = None  # of the release before
    if release.verdict.looks:
        changes[files.path(at, LOOKS)] = write_looks(with_newest(looks, release.verdict.looks))
    written = files.write(release, manifest, kustomization)
    changes |= written
    after = written[files.path(at, files.MANIFEST)]
    found = evidence_of(release, current, project, store, manifest, after)
    notes = (files.unlisted(kustomization, at), odd_protocol(release, after.decode()))
    found = replace(found, note="; ".join(filter(None, notes)))
    changes[files.path(at, files.REPORT)] = to_markdown(promotion_report(found)).encode()
    return scm.commit_files(base, changes, message(release), at=release.created)


def _check_old(scm: Scm, old: str | None, base: str, new: Release) -> None:
    """Refuse to write over a newer proposal, or over what people added to it."""
    environment = new.environment
    if old is None or files.merged_by(scm, old, base, environment):
        return
    entry = added_by_people(scm, old, base, environment)
    if entry is not None:
        raise StateError(
            f"the proposal for {environment} holds a commit by {entry.author} ({entry.subject})",
            next="approve or reject it first",
        )
    proposed = files.at(scm, old, environment)
    if proposed is not None and proposed.created > new.created:
        raise StateError(
            f"a newer run, {proposed.run}, is already proposed for {environment}",
            next=f"see `ctflow promotions show {environment}`",
        )


def added_by_people(scm: Scm, tip: str, base: str, environment: str) -> LogEntry | None:
    """The newest commit of a proposal's branch, if people changed files there.

    A merge of the default branch into it ("Update branch" of a forge) changes nothing of it.
    """
    entries = scm.log(tip, ".", limit=files.OWN_WITHIN)
    own = next((entry for entry in entries if files.RUN_LINE in entry.body), None)
    if own is not None and own.sha == tip:
        return None
    if own is not None and own.parents:
        start = scm.merge_base(base, tip) or base
        found = scm.changes(start, tip)
        approvals = f"/{files.path(environment, files.APPROVALS)}"
        found = {name: file for name, file in found.items() if not f"/{name}".endswith(approvals)}
        if found == scm.changes(own.parents[0], own.sha):
            return None
    return entries[0] if entries else None


def _published(
    promotion: Promotion, release: Release, project: Project, scm: Scm, forge: Forge
) -> Promotion:
    commit = promotion.commit or promotion.base
    body = (scm.read(commit, files.path(promotion.environment, files.REPORT)) or b"").decode()
    request = forge.ensure(promotion.branch, project.branch, title(release), body)
    return replace(promotion, url=request.url if request else None)
