"""Review: what is proposed, and a person's answer to it, where no forge asks for one."""

from __future__ import annotations

from dataclasses import dataclass

from ctflow import release as files
from ctflow.config import Project
from ctflow.digests import short
from ctflow.errors import OutsideError, StateError
from ctflow.model import Hold, Promotion, PromotionState, Release, iso
from ctflow.ports import Forge, Scm

_TRIES = 5


@dataclass(frozen=True)
class Proposal:
    """An open promotion: its branch's tip, the commit it builds on, and the releases of both."""

    promotion: Promotion
    commit: str
    base: str
    release: Release
    current: Release | None
    stale: str = ""


def proposals(project: Project, scm: Scm) -> list[Proposal]:
    """The open promotions, in the environments' order. The caller fetches."""
    tip = scm.tip(project.branch)
    if tip is None:
        return []
    found = (_proposal(project, environment, scm, tip) for environment in project.environments)
    return [one for one in found if one is not None]


def proposal(project: Project, environment: str, scm: Scm) -> Proposal:
    """The open promotion of an environment.

    Raises:
        StateError: nothing is proposed for it.
    """
    for one in proposals(project, scm):
        if one.promotion.environment == environment:
            return one
    raise StateError(
        f"nothing is proposed for {environment}", next="propose a run with `ctflow promote RUN`"
    )


def _proposal(project: Project, environment: str, scm: Scm, tip: str) -> Proposal | None:
    branch = files.branch(project.project, environment)
    commit = scm.tip(branch)
    if commit is None or scm.is_ancestor(commit, tip):
        return None  # none, or merged already
    proposed = files.at(scm, commit, environment)
    if proposed is None:
        return None
    hold = files.is_held(proposed.model.digest, files.holds_at(scm, tip, environment))
    if hold:
        return None  # rejected; the branch is a leftover
    current = files.at(scm, tip, environment)
    serves = current.model.digest if current else None
    stale = ""
    if proposed.verdict.champion != serves:
        stale = (
            f"compares with {short(proposed.verdict.champion)}, and {environment} now has"
            f" {short(serves)}"
        )
    promotion = Promotion(
        project.project, environment, branch, "open", proposed.run, proposed.model.digest,
        scm.merge_base(tip, commit) or tip, commit, created=proposed.created,
    )  # fmt: skip
    return Proposal(promotion, commit, tip, proposed, current, stale)


def approve(
    project: Project, environment: str, *, scm: Scm, forge: Forge, by: str = ""
) -> Promotion:
    """Merge the open promotion of an environment into the default branch.

    Args:
        by: who approves; git's identity if empty.

    Raises:
        StateError: nothing is proposed, it conflicts, or its evidence compares with a model that
            the environment has no more.
        GateHeld: its model is on hold.
        OutsideError: git failed; calling again goes on.
    """
    who = by or scm.identity()
    scm.fetch()
    if done := _finished(project, environment, "merged", scm):
        return done
    for _ in range(_TRIES):
        one = proposal(project, environment, scm)
        if one.stale:
            raise StateError(
                f"the proposal for {environment} is stale: it {one.stale}",
                next=f"run `ctflow promote {one.release.run} --to {environment}` again",
            )
        text = (
            f"Promote {project.project} {short(one.release.model.digest)} to {environment}\n\n"
            f"Ctflow-Environment: {environment}\nCtflow-Run: {one.release.run}\n"
            f"Ctflow-Model: {one.release.model.digest}\nApproved-by: {who}\n"
        )
        merged = scm.merge_commit(one.base, one.commit, text)
        if scm.move(project.branch, merged, one.base):
            # The branch has done its work. If we are killed here it counts as merged all the same.
            scm.move(one.promotion.branch, None, one.commit)
            return _closed(one, "merged", merged)
        scm.fetch()
    raise OutsideError(f"{project.branch} kept moving under us", next="run the same command again")


def reject(
    project: Project, environment: str, reason: str, *, scm: Scm, forge: Forge, now: float
) -> Promotion:
    """Reject the open promotion: a hold on its model in git, and the branch is removed.

    Raises:
        StateError: nothing is proposed, or no reason is given.
        OutsideError: git failed; calling again goes on.
    """
    if not reason.strip():
        raise StateError("a rejection needs a reason", next="say --reason TEXT")
    who = scm.identity()
    scm.fetch()
    if done := _finished(project, environment, "rejected", scm):
        forge.close(done.branch, " ".join(reason.split()))
        return done
    for _ in range(_TRIES):
        one = proposal(project, environment, scm)
        hold = Hold(one.release.model.digest, " ".join(reason.split()), who, iso(now))
        if add_hold(project, environment, hold, scm, one.base, "Reject"):
            scm.move(one.promotion.branch, None, one.commit)
            forge.close(one.promotion.branch, hold.reason)
            return _closed(one, "rejected", None)
        scm.fetch()
    raise OutsideError(f"{project.branch} kept moving under us", next="run it again")


def _finished(
    project: Project, environment: str, state: PromotionState, scm: Scm
) -> Promotion | None:
    """Finish what a killed call left: the branch of a promotion that is merged, or rejected."""
    branch = files.branch(project.project, environment)
    tip, commit = scm.tip(project.branch), scm.tip(branch)
    proposed = files.at(scm, commit, environment) if commit else None
    if tip is None or commit is None or proposed is None:
        return None
    merged = scm.is_ancestor(commit, tip)
    held = files.is_held(proposed.model.digest, files.holds_at(scm, tip, environment))
    if not (merged if state == "merged" else held and not merged):
        return None
    scm.move(branch, None, commit)
    last = scm.log(tip, files.path(environment, files.RELEASE), limit=1) if merged else []
    return Promotion(
        project.project, environment, branch, state, proposed.run, proposed.model.digest,
        scm.merge_base(tip, commit) or tip, last[0].sha if last else None,
        created=proposed.created,
    )  # fmt: skip


def add_hold(
    project: Project, environment: str, hold: Hold, scm: Scm, base: str, verb: str
) -> bool:
    """Put a hold on the default branch at ``base``; False when the branch has moved."""
    kept = files.holds_at(scm, base, environment)
    changes = {files.path(environment, files.HOLDS): files.write_holds((*kept, hold))}
    text = (
        f"{verb} {project.project} {short(hold.digest)} for {environment}\n\n{hold.reason}\n\n"
        f"Ctflow-Environment: {environment}\nCtflow-Hold: {hold.digest}\n"
    )
    return scm.move(project.branch, scm.commit_files(base, changes, text), base)


def _closed(one: Proposal, state: str, commit: str | None) -> Promotion:
    from dataclasses import replace

    if state == "rejected":
        return replace(one.promotion, state="rejected", changed=True)
    return replace(one.promotion, state="merged", commit=commit, changed=True)
