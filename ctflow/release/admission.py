"""What must be true of a release when it is proposed, and again when it is merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ctflow.config.policy import Policy, check_environment, policy
from ctflow.errors import GateHeld, StateError
from ctflow.lib.digests import digest_bytes, short
from ctflow.lib.quick import dataclass
from ctflow.model import Release, Verdict
from ctflow.ports import Scm, TreeFile
from ctflow.release import files as files
from ctflow.release.files import Identity

if TYPE_CHECKING:
    from ctflow.config.project import Project

#: How many hexadecimal digits a promotion's id has.
ID_DIGITS = 10


@dataclass(frozen=True)
class Proposed:
    """What is to be served, and the evidence for it."""

    what: Identity
    verdict: Verdict

    @property
    def environment(self) -> str:
        """Where."""
        return self.verdict.environment


def admit(proposed: Proposed, project: Project, base: str, scm: Scm) -> Policy:
    """Check a proposed against a commit of the default branch; what that branch decides.

    Raises:
        GateHeld: the verdict is no, or a trial that nobody overrode; the model is on hold here or
            in the environment before.
        StateError: the evidence is about other serving code or another champion, or the
            environment before does not serve this.
        ConfigError: the default branch's ctflow.yaml is not valid.
    """
    environment, verdict = proposed.environment, proposed.verdict
    decided = policy(project, scm)
    check_environment(decided, environment)
    _check_rules(verdict, decided)
    if verdict.serving != proposed.what.serving:
        raise StateError(
            "the verdict is about other serving code than the run's", next="run the gate again"
        )
    if text := stale(proposed, project, base, scm):
        raise StateError(f"the evidence {text}", next="run the gate again")
    hold = files.is_held(proposed.what, files.holds_at(scm, base, environment))
    if hold:
        raise files.held(environment, hold)
    before = decided.project.environments[environment].after
    if before:
        _check_before(proposed, before, project, base, scm)
    return decided


def stale(proposed: Proposed, project: Project, base: str, scm: Scm) -> str:
    """In what the evidence does not fit the default branch any more; empty: it does."""
    environment, verdict = proposed.environment, proposed.verdict
    current = files.identity(files.at(scm, base, environment), project, scm)
    serves = current.model if current else None
    if verdict.champion != serves:
        return f"compares with {short(verdict.champion)}, and {environment} now has {short(serves)}"
    if current and verdict.champion_serving not in ("", current.serving):
        return f"is from before the serving code of {environment} changed"
    return ""


def _check_rules(verdict: Verdict, decided: Policy) -> None:
    if not verdict.passes:
        raise GateHeld(
            f"the gate says {verdict.decision} for {verdict.environment}",
            next=_way_out(verdict),
            details=tuple(one.text for one in verdict.reasons if one.decision != "promote"),
        )
    if verdict.rules != decided.rules and verdict.override is None:
        branch = decided.project.branch
        raise GateHeld(
            f"this verdict is a trial: {verdict.trial or f'its rules are not those of {branch}'}",
            next=f"merge the rules into {branch} first, or use --override --reason",
        )


def _way_out(verdict: Verdict) -> str:
    if any(reason.rule == "hold" for reason in verdict.reasons):
        where = files.path(verdict.environment, files.HOLDS)
        return f"to allow the model, remove its entry from {where} and commit"
    return f"see `ctflow gate {verdict.run}`, or use --override --reason"


def _check_before(proposed: Proposed, before: str, project: Project, base: str, scm: Scm) -> None:
    environment, what = proposed.environment, proposed.what
    there = files.identity(files.at(scm, base, before), project, scm)
    if there is None or there.model != what.model:
        raise StateError(
            f"{environment} comes after {before}, which has model"
            f" {short(there.model if there else None)}, not {short(what.model)}",
            next=f"promote it to {before} first",
        )
    if there.serving and what.serving and there.serving != what.serving:
        other = "another image of the predictor" if there.code == what.code else "other code"
        raise StateError(
            f"{environment} comes after {before}, which serves model {short(what.model)} with"
            f" {other}",
            next=f"promote the run that {before} serves",
        )
    hold = files.is_held(what, files.holds_at(scm, base, before))
    if hold:
        raise files.held(before, hold)


def promotion_id(release: Release, changes: Mapping[str, TreeFile | None]) -> str:
    """What names a proposal: run, model, commit and every changed file.

    The same proposal on a newer default branch keeps its id, unless a file of it came out
    different; a commit that somebody adds to the branch gives another one, an approval does not.
    """
    kept = files.path(release.environment, files.APPROVALS)
    rows = [
        f"{name}\0{file.mode if file else ''}\0{file.blob if file else ''}"
        for name, file in sorted(changes.items())
        if not f"/{name}".endswith(f"/{kept}")
    ]
    text = "\0\0".join((release.run, release.model.digest, release.commit, *rows))
    return digest_bytes(text.encode("utf-8", "surrogateescape")).partition(":")[2][:ID_DIGITS]
