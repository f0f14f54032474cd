"""Review: what is proposed, and a person's answer to it, where no forge asks for one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ctflow.config.project import EnvironmentConfig, Project
from ctflow.errors import GateHeld, OutsideError, StateError
from ctflow.lib.digests import short
from ctflow.model import Hold, Promotion, PromotionState, Release, iso
from ctflow.ports import Forge, Scm
from ctflow.release import files as files
from ctflow.release.admission import Candidate, admit, promotion_id, stale

_TRIES = 5
#: How much of a promotion's id must be given.
_ID_LEAST = 6


@dataclass(frozen=True)
class Proposal:
    """An open promotion: its branch's tip, the commit it builds on, and the releases of both."""

    promotion: Promotion
    commit: str
    base: str
    release: Release
    current: Release | None
    stale: str = ""

    @property
    def id(self) -> str:
        """What names exactly this: run, model, commit and every changed file."""
        return self.promotion.id

    @property
    def candidate(self) -> Candidate:
        """What is to be served, on what evidence."""
        return Candidate(files.identity_of(self.release), self.release.verdict)


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
    if commit is None or files.merged_by(scm, commit, tip, environment):
        return None
    proposed = files.at(scm, commit, environment)
    if proposed is None:
        return None
    if files.is_held(files.identity_of(proposed), files.holds_at(scm, tip, environment)):
        return None  # rejected; the branch is a leftover
    current = files.at(scm, tip, environment)
    candidate = Candidate(files.identity_of(proposed), proposed.verdict)
    start = scm.merge_base(tip, commit) or tip
    promotion = Promotion(
        project.project, environment, branch, "open", proposed.run, proposed.model.digest,
        start, commit, created=proposed.created,
        id=promotion_id(proposed, scm.changes(start, commit)),
    )  # fmt: skip
    return Proposal(promotion, commit, tip, proposed, current, stale(candidate, project, tip, scm))


def approve(
    project: Project,
    environment: str,
    id: str,
    *,
    scm: Scm,
    forge: Forge,
    by: str = "",
) -> Promotion:
    """Merge the open promotion of an environment into the default branch.

    All that proposing checked is checked again, against the default branch as it is now.

    Args:
        id: the promotion's id, or its first six characters or more, as it was reviewed.
        by: who approves; git's identity if empty, which then needs to be allowed to.

    Returns the promotion: ``merged``, or ``open`` where more people must approve it.

    Raises:
        StateError: nothing is proposed, or something else than what was reviewed; it conflicts,
            its evidence is stale, or the environment before does not serve it.
        GateHeld: its model is on hold, or who asks may not approve it.
        OutsideError: git failed; calling again goes on.
    """
    who = by or scm.identity()
    scm.fetch()
    for _ in range(_TRIES):
        if done := _finished(project, environment, "merged", scm, id):
            return done
        one = proposal(project, environment, scm)
        _check_id(one, id)
        if one.stale:
            raise StateError(
                f"the proposal for {environment} is stale: it {one.stale}",
                next=f"run `ctflow promote {one.release.run} --to {environment}` again",
            )
        decided = admit(one.candidate, project, one.base, scm).project
        names: tuple[str, ...] = (who,)
        if not by:
            names = _approvers(one, decided.environments[environment], who, scm)
            if len(names) < decided.environments[environment].approvals:
                if _keep_approval(one, names, scm):
                    return replace(one.promotion, changed=True)
                scm.fetch()
                continue
        merged = scm.merge_commit(one.base, one.commit, _merge_message(project, one, names))
        if scm.move(project.branch, merged, one.base):
            # The branch has done its work. If we are killed here it counts as merged all the same.
            scm.move(one.promotion.branch, None, one.commit)
            return _closed(one, "merged", merged)
        scm.fetch()
    raise OutsideError(f"{project.branch} kept moving under us", next="run the same command again")


def _check_id(one: Proposal, id: str) -> None:
    if len(id) < _ID_LEAST or not one.id.startswith(id.lower()):
        release, environment = one.release, one.promotion.environment
        raise StateError(
            f"{id!r} is not what is proposed for {environment} now",
            cause=f"{one.id} is: run {release.run}, model {short(release.model.digest)}",
            next=f"review it with `ctflow promotions show {environment}`",
        )


def _approvers(one: Proposal, rules: EnvironmentConfig, who: str, scm: Scm) -> tuple[str, ...]:
    """Who has approved, ``who`` among them. Raises GateHeld where ``who`` may not."""
    if not rules.self:
        commits = [*scm.log(one.commit, ".", limit=files.OWN_WITHIN)]
        made = next((entry for entry in commits if files.RUN_LINE in entry.body), None)
        trained = scm.log(one.release.commit, ".", limit=1) if scm.has(one.release.commit) else []
        own = [entry.author for entry in (made, *trained) if entry is not None]
        if _mail(who) in map(_mail, own):
            raise GateHeld(
                f"{who} proposed this for {one.promotion.environment}, or made its commit",
                next="another person must approve it (`self: false`)",
            )
    kept = files.read_approvals(scm.read(one.commit, _approvals(one)), one.id)
    return (*(name for name in kept if _mail(name) != _mail(who)), who)


def _keep_approval(one: Proposal, names: tuple[str, ...], scm: Scm) -> bool:
    data = files.write_approvals(names, one.id)
    text = f"Approve {one.id}\n\nApproved-by: {names[-1]}\n"
    made = scm.commit_files(one.commit, {_approvals(one): data}, text)
    return scm.move(one.promotion.branch, made, one.commit)


def _approvals(one: Proposal) -> str:
    return files.path(one.promotion.environment, files.APPROVALS)


def _mail(identity: str) -> str:
    return identity.rpartition("<")[2].rstrip(">").strip().lower()


def _merge_message(project: Project, one: Proposal, names: tuple[str, ...]) -> str:
    environment, digest = one.promotion.environment, one.release.model.digest
    return (
        f"Promote {project.project} {short(digest)} to {environment}\n\n"
        f"Ctflow-Environment: {environment}\n{files.RUN_LINE}{one.release.run}\n"
        f"Ctflow-Model: {digest}\n{files.ID_LINE}{one.id}\n"
        + "".join(f"Approved-by: {name}\n" for name in names)
    )


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
        forge.close(done.branch, files.reason_of(reason))
        return done
    for _ in range(_TRIES):
        one = proposal(project, environment, scm)
        hold = Hold(
            one.release.model.digest, files.reason_of(reason), who, iso(now),
            files.held_serving(one.release, one.current),
        )  # fmt: skip
        if add_hold(project, environment, hold, scm, one.base, "Reject"):
            scm.move(one.promotion.branch, None, one.commit)
            forge.close(one.promotion.branch, hold.reason)
            return _closed(one, "rejected", None)
        scm.fetch()
    raise OutsideError(f"{project.branch} kept moving under us", next="run it again")


def finish(project: Project, environment: str, scm: Scm) -> None:
    """Remove the branch of a promotion that is merged, if there is one. The caller fetches."""
    _finished(project, environment, "merged", scm)


def _finished(
    project: Project, environment: str, state: PromotionState, scm: Scm, id: str = ""
) -> Promotion | None:
    """Finish what a killed call left: the branch of a promotion that is merged, or rejected.

    With ``id`` also the promotion of that id, where it is the last that was merged.
    """
    branch = files.branch(project.project, environment)
    tip, commit = scm.tip(project.branch), scm.tip(branch)
    if tip is None:
        return None
    proposed = files.at(scm, commit, environment) if commit else None
    if commit is None or proposed is None:
        return _merged_before(project, environment, tip, scm, id) if id else None
    merged = files.merged_by(scm, commit, tip, environment)
    held = files.is_held(files.identity_of(proposed), files.holds_at(scm, tip, environment))
    if not (merged if state == "merged" else held and not merged):
        return None
    scm.move(branch, None, commit)
    return Promotion(
        project.project, environment, branch, state, proposed.run, proposed.model.digest,
        scm.merge_base(tip, commit) or tip, merged, created=proposed.created,
    )  # fmt: skip


def _merged_before(
    project: Project, environment: str, tip: str, scm: Scm, id: str
) -> Promotion | None:
    last = scm.log(tip, files.path(environment, files.RELEASE), limit=1)
    current = files.at(scm, tip, environment)
    if not last or current is None or len(id) < _ID_LEAST:
        return None
    lines = [line.strip() for line in last[0].body.splitlines()]
    found = next((line for line in lines if line.startswith(f"{files.ID_LINE}{id}")), None)
    if found is None:
        return None
    return Promotion(
        project.project, environment, files.branch(project.project, environment), "merged",
        current.run, current.model.digest, last[0].parents[0], last[0].sha,
        created=current.created, id=found.removeprefix(files.ID_LINE),
    )  # fmt: skip


def add_hold(
    project: Project, environment: str, hold: Hold, scm: Scm, base: str, verb: str
) -> bool:
    """Put a hold on the default branch at ``base``; False when the branch has moved."""
    kept = files.holds_at(scm, base, environment)
    changes = {files.path(environment, files.HOLDS): files.write_holds((*kept, hold))}
    text = (
        f"{verb} {project.project} {short(hold.digest)} for {environment}\n\n{hold.reason}\n\n"
        f"Ctflow-Environment: {environment}\n{files.hold_line(hold)}\n"
    )
    return scm.move(project.branch, scm.commit_files(base, changes, text), base)


def _closed(one: Proposal, state: str, commit: str | None) -> Promotion:
    if state == "rejected":
        return replace(one.promotion, state="rejected", changed=True)
    return replace(one.promotion, state="merged", commit=commit, changed=True)
