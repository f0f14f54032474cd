"""Rollback: the release before this one again, and a hold on the model that is taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.errors import CtflowError, OutsideError, StateError
from ctflow.lib.digests import short
from ctflow.lib.quick import dataclass
from ctflow.model import Hold, Release, iso
from ctflow.ports import Forge, Scm, TreeFile
from ctflow.release import files as files
from ctflow.release.landing import Change, Pending, land
from ctflow.release.looks import LOOKS
from ctflow.tools import Tools

if TYPE_CHECKING:
    from ctflow.config.project import Project

_TRIES = 5


@dataclass(frozen=True)
class Rollback:
    """What was, or would be, done: ``taken`` is held now, ``restored`` is the release again.

    ``already``: an earlier call did it, by ``commit``, and git has not moved on since. ``skipped``
    says which commits' releases could not be read, and why. ``pending``: the URL of the pull
    request that does it once it is merged.
    """

    environment: str
    taken: Release
    restored: Release
    commit: str
    already: bool = False
    pending: str = ""
    skipped: tuple[str, ...] = ()


def roll_back(
    tools: Tools, environment: str, reason: str, to_run: str | None, dry_run: bool
) -> Rollback:
    """Change git, unless it is rolled back already and only the deployment is outstanding.

    The same call again, after a kill or by hand, so goes back no further: one that is to take back
    the restored release too comes after that one was deployed, or names another run.
    """
    tools.scm.fetch()
    tip = tools.scm.tip(tools.project.branch)
    before = standing(environment, tip, tools.scm) if tip else None
    if before and to_run in (None, before.restored.run):
        serves = tools.target(environment).status(environment).model
        if serves != before.restored.model.digest:
            return before
    return rollback(
        tools.project,
        environment,
        reason,
        scm=tools.scm,
        forge=tools.forge,
        now=time.time(),
        run=to_run,
        dry_run=dry_run,
    )


def rollback(
    project: Project,
    environment: str,
    reason: str,
    *,
    scm: Scm,
    forge: Forge,
    now: float,
    run: str | None = None,
    dry_run: bool = False,
) -> Rollback:
    """Restore an earlier release of an environment on the default branch, in one commit.

    The commit also holds the model that it takes back, and removes its open proposal's ground: a
    held model is never proposed, nor merged, until a person removes the hold in git.

    Args:
        run: go back to the release of this run; by default to the newest one before the present
            that is another model and not on hold.

    Raises:
        StateError: no release to go back to, or no reason.
        OutsideError: git failed; calling again goes on.
    """
    if not reason.strip():
        raise StateError("a rollback needs a reason", next="give one with --reason TEXT")
    who = scm.identity()
    scm.fetch()
    for _ in range(_TRIES):
        tip = scm.tip(project.branch)
        current = files.at(scm, tip, environment) if tip else None
        if tip is None or current is None:
            raise StateError(f"{environment} has no release, so there is nothing to roll back")
        holds = files.holds_at(scm, tip, environment)
        skipped: list[str] = []
        source, earlier = _earlier(scm, tip, environment, current, holds, run, skipped)
        hold = Hold(
            current.model.digest, files.reason_of(reason), who, iso(now),
            files.held_serving(current, earlier),
        )  # fmt: skip
        if dry_run:
            return Rollback(environment, current, earlier, tip, skipped=tuple(skipped))
        changes = _changes(scm, tip, source, environment)
        changes[files.path(environment, files.HOLDS)] = files.write_holds(
            (
                *(one for one in holds if (one.digest, one.serving) != (hold.digest, hold.serving)),
                hold,
            )
        )
        message = _message(project, environment, current, earlier, hold)
        made = scm.commit_files(tip, changes, message)
        branch = f"{files.branch(project.project, environment)}-rollback"
        title, _, body = message.partition("\n\n")
        landed = land(Change(made, tip, branch, title, body), project, scm, forge)
        done = Rollback(environment, current, earlier, made, skipped=tuple(skipped))
        if isinstance(landed, Pending):
            return replace(done, pending=landed.url)
        if landed is not None:
            _drop_proposal(project, environment, landed.commit, scm)
            return replace(done, commit=landed.commit)
        scm.fetch()
    raise OutsideError(
        f"{project.branch} changed each time ctflow tried to update it",
        next="run the same command again",
    )


def standing(environment: str, tip: str, scm: Scm) -> Rollback | None:
    """The rollback that put the present release there; None where a promotion did.

    None also where a person has removed its hold since: then it is not a rollback any more.

    Args:
        tip: a commit of the default branch.
    """
    where = files.path(environment, files.RELEASE)
    current = files.at(scm, tip, environment)
    last = next(iter(scm.log(tip, where, 1)), None)
    if current is None or last is None:
        return None
    held = files.read_hold_line(last.body)
    holds = files.holds_at(scm, tip, environment)
    if held is None or held not in {(one.digest, one.serving) for one in holds}:
        return None
    model, serving = held
    taken = (
        one
        for _, one in _history(scm, tip, environment, [])
        if one.model.digest == model and serving in ("", files.identity_of(one).serving)
    )
    first = next(taken, None)
    return Rollback(environment, first, current, last.sha, already=True) if first else None


def _history(
    scm: Scm, tip: str, environment: str, skipped: list[str]
) -> Iterator[tuple[str, Release]]:
    """The releases of the default branch, newest first; what cannot be read goes to ``skipped``."""
    where = files.path(environment, files.RELEASE)
    for entry in scm.log(tip, where):
        try:
            found = files.read(scm.read(entry.sha, where), where)
        except CtflowError as error:
            skipped.append(f"{entry.sha[:10]}: {error.fact}")
            continue
        if found is not None:
            yield entry.sha, found


def _earlier(
    scm: Scm,
    tip: str,
    environment: str,
    current: Release,
    holds: tuple[Hold, ...],
    run: str | None,
    skipped: list[str],
) -> tuple[str, Release]:
    now = files.identity_of(current)
    for sha, found in _history(scm, tip, environment, skipped):
        there = files.identity_of(found)
        if there == now or files.is_held(there, holds):
            continue
        if run is None or found.run == run:
            return sha, found
    which = f"of run {run} " if run else ""
    raise StateError(
        f"{environment} has no earlier release {which}to go back to",
        cause="the first one, or all others are on hold"
        + (f"; {len(skipped)} cannot be read: {skipped[0]}" if skipped else ""),
        next=f"see `git log {files.folder(environment)}` and {files.HOLDS} there",
    )


def _changes(
    scm: Scm, tip: str, source: str, environment: str
) -> dict[str, bytes | TreeFile | None]:
    """The environment's folder as ``source`` had it; holds and looks stay as they are now."""
    place = files.folder(environment)
    stay = {files.path(environment, name) for name in (files.HOLDS, LOOKS)}
    now, then = scm.files(tip, place), scm.files(source, place)
    changes: dict[str, bytes | TreeFile | None] = {path: None for path in now if path not in then}
    changes |= {path: file for path, file in then.items() if now.get(path) != file}
    return {path: file for path, file in changes.items() if path not in stay}


def _message(
    project: Project, environment: str, taken: Release, restored: Release, hold: Hold
) -> str:
    return (
        f"Roll {environment} back to {project.project} {short(restored.model.digest)}\n\n"
        f"Takes back {short(taken.model.digest)} of run {taken.run}: {hold.reason}\n\n"
        f"Ctflow-Environment: {environment}\nCtflow-Run: {restored.run}\n"
        f"Ctflow-Model: {restored.model.digest}\n{files.hold_line(hold)}\n"
    )


def _drop_proposal(project: Project, environment: str, tip: str, scm: Scm) -> None:
    """Remove an open proposal of what is on hold now; another one stays, and shows as stale."""
    branch = files.branch(project.project, environment)
    commit = scm.tip(branch)
    proposed = files.at(scm, commit, environment) if commit else None
    holds = files.holds_at(scm, tip, environment)
    if commit and proposed and files.is_held(files.identity_of(proposed), holds):
        scm.move(branch, None, commit)
