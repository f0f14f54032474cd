"""Review: a person's answer to what is proposed, where no forge asks for one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.errors import OutsideError, StateError
from ctflow.evaluation.preconditions import check_environment
from ctflow.evaluation.promotion_evidence import described
from ctflow.lib.digests import short
from ctflow.model import Hold, Promotion, iso
from ctflow.ports import Forge, Scm
from ctflow.release import files
from ctflow.release.approval import approve
from ctflow.release.landing import Change, Pending, land
from ctflow.release.proposals import Proposal, finished, proposal
from ctflow.report import Evidence
from ctflow.tools import Tools

if TYPE_CHECKING:
    from ctflow.config.project import Project

_TRIES = 5


def approve_in(tools: Tools, environment: str, id: str, by: str = "") -> Promotion:
    """Merge the promotion of that id into the default branch."""
    check_environment(tools, environment)
    return approve(tools.project, environment, id, scm=tools.scm, forge=tools.forge, by=by)


def evidence_in(tools: Tools, one: Proposal) -> Evidence:
    """What the report of a proposal says, of the proposal as it is now."""
    return described(
        one.release,
        one.current,
        one.base,
        one.commit,
        tools.project,
        scm=tools.scm,
        store=tools.store,
    )


def reject(
    project: Project, environment: str, reason: str, *, scm: Scm, forge: Forge, now: float
) -> Promotion:
    """Reject the open promotion: a hold on its model in git, and the branch is removed.

    Returns the promotion: ``rejected``, or still ``open`` with the URL of the pull request that
    puts its model on hold.

    Raises:
        StateError: nothing is proposed, or no reason is given.
        OutsideError: git or the forge failed; calling again goes on.
    """
    if not reason.strip():
        raise StateError("a rejection needs a reason", next="give one with --reason TEXT")
    who = scm.identity()
    scm.fetch()

    def close(branch: str) -> None:
        # Before the branch goes: a forge closes its pull request then, without a reason.
        forge.close(branch, files.reason_of(reason))

    if done := finished(project, environment, "rejected", scm, before=close):
        return done
    for _ in range(_TRIES):
        one = proposal(project, environment, scm)
        hold = Hold(
            one.release.model.digest, files.reason_of(reason), who, iso(now),
            files.held_serving(one.release, one.current),
        )  # fmt: skip
        landed = land(_hold_change(project, one, hold, scm), project, scm, forge)
        if isinstance(landed, Pending):
            return replace(one.promotion, url=landed.url, changed=True)
        if landed is not None:
            close(one.promotion.branch)
            scm.move(one.promotion.branch, None, one.commit)
            return replace(one.promotion, state="rejected", changed=True)
        scm.fetch()
    raise OutsideError(
        f"{project.branch} changed each time ctflow tried to update it",
        next="run the same command again",
    )


def finish(project: Project, environment: str, scm: Scm) -> None:
    """Remove the branch of a promotion that is merged, if there is one. The caller fetches."""
    finished(project, environment, "merged", scm)


def _hold_change(project: Project, one: Proposal, hold: Hold, scm: Scm) -> Change:
    """A commit on the default branch that puts a proposal's model on hold."""
    environment, base = one.promotion.environment, one.base
    kept = files.holds_at(scm, base, environment)
    changes = {files.path(environment, files.HOLDS): files.write_holds((*kept, hold))}
    title = f"Reject {project.project} {short(hold.digest)} for {environment}"
    text = (
        f"{title}\n\n{hold.reason}\n\nCtflow-Environment: {environment}\n{files.hold_line(hold)}\n"
    )
    made = scm.commit_files(base, changes, text)
    return Change(made, base, f"{one.promotion.branch}-hold", title, hold.reason)
