"""Approving a promotion: everything that proposing checked is checked again, then it is merged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.errors import GateHeld, OutsideError, StateError
from ctflow.lib.digests import short
from ctflow.model import Promotion
from ctflow.ports import Forge, Scm
from ctflow.release import files
from ctflow.release.admission import admit
from ctflow.release.landing import Change, Landed, Pending, land
from ctflow.release.messages import title
from ctflow.release.proposals import ID_LEAST, Proposal, finished, proposal

if TYPE_CHECKING:
    from ctflow.config.project import EnvironmentConfig, Project

_TRIES = 5


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

    Returns the promotion: ``merged``, or ``open`` where more people must approve it, or where the
    forge does not merge it yet.

    Raises:
        StateError: nothing is proposed, or something else than what was reviewed; it conflicts,
            its evidence is stale, or the environment before does not serve it.
        GateHeld: its model is on hold, or who asks may not approve it.
        OutsideError: git failed; calling again goes on.
    """
    who = by or scm.identity()
    scm.fetch()
    for _ in range(_TRIES):
        if done := finished(project, environment, "merged", scm, id):
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
        message = _merge_message(project, one, names)
        change = Change(
            one.commit, one.base, one.promotion.branch, *described_at(one, scm), message, True
        )
        landed = land(change, project, scm, forge)
        if isinstance(landed, Landed):
            # The branch has done its work. If we are killed here it counts as merged all the same.
            scm.move(one.promotion.branch, None, one.commit)
            return replace(one.promotion, state="merged", commit=landed.commit, changed=True)
        if isinstance(landed, Pending):
            return replace(one.promotion, url=landed.url)
        scm.fetch()
    raise OutsideError(
        f"{project.branch} changed each time ctflow tried to update it",
        next="run the same command again",
    )


def _check_id(one: Proposal, id: str) -> None:
    if len(id) < ID_LEAST or not one.id.startswith(id.lower()):
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


def described_at(one: Proposal, scm: Scm) -> tuple[str, str]:
    """(title, body) of a proposal's pull request, from its own commit."""
    report = scm.read(one.commit, files.path(one.promotion.environment, files.REPORT)) or b""
    return title(one.release), report.decode("utf-8")
