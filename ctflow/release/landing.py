"""Landing a change on the default branch: pushed, or as a pull request that people merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.errors import OutsideError
from ctflow.lib.quick import dataclass
from ctflow.ports import Forge, Scm

if TYPE_CHECKING:
    from ctflow.config.project import Project


@dataclass(frozen=True)
class Change:
    """A commit that is to be part of the default branch.

    Attributes:
        commit: what is to land.
        base: the default branch's tip that it was checked against.
        branch: the head branch of its pull request, where it needs one.
        title, body: what its pull request says.
        message: of the merge commit; empty: the commit is built on ``base`` itself and lands as it
            is.
        approved: somebody who may has said that it is to be merged.
    """

    commit: str
    base: str
    branch: str
    title: str
    body: str
    message: str = ""
    approved: bool = False


@dataclass(frozen=True)
class Landed:
    """The default branch holds it, by this commit."""

    commit: str


@dataclass(frozen=True)
class Pending:
    """People merge it there, or the forge waits for something."""

    url: str


def land(change: Change, project: Project, scm: Scm, forge: Forge) -> Landed | Pending | None:
    """Land a change, in the way that the project says (``forge.changes``).

    Returns None where a branch was not any more what it was: fetch, check again and call again.
    The same call after a kill ends in the same state.

    Raises:
        OutsideError: git or the forge failed, or the remote refuses.
        StateError: it conflicts with the default branch.
    """
    if project.forge.changes == "push":
        made = change.commit
        if change.message:
            made = scm.merge_commit(change.base, change.commit, change.message)
        return Landed(made) if scm.move(project.branch, made, change.base) else None
    tip = scm.tip(change.branch)
    if tip != change.commit and not scm.move(change.branch, change.commit, tip, force=True):
        return None
    request = forge.ensure(change.branch, project.branch, change.title, change.body)
    if request is None:
        raise OutsideError(
            "there is no forge to open a pull request on", next="set forge.changes to push"
        )
    if request.head != change.commit:
        return None
    if change.approved:
        merged = forge.merge(request, change.message or change.title)
        if merged is not None:
            scm.fetch()
            return Landed(merged)
    return Pending(request.url)
