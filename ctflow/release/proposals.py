"""What is proposed: the branches of open promotions, and what killed calls left of merged ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.lib.quick import dataclass
from ctflow.model import Promotion, PromotionState, Release
from ctflow.ports import Scm
from ctflow.release import files
from ctflow.release.admission import Proposed, promotion_id, stale

if TYPE_CHECKING:
    from ctflow.config.project import Project

#: How much of a promotion's id must be given.
ID_LEAST = 6


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
    def candidate(self) -> Proposed:
        """What is to be served, on what evidence."""
        return Proposed(files.identity_of(self.release), self.release.verdict)


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
    candidate = Proposed(files.identity_of(proposed), proposed.verdict)
    start = scm.merge_base(tip, commit) or tip
    promotion = Promotion(
        project.project, environment, branch, "open", proposed.run, proposed.model.digest,
        start, commit, created=proposed.created,
        id=promotion_id(proposed, scm.changes(start, commit)),
    )  # fmt: skip
    return Proposal(promotion, commit, tip, proposed, current, stale(candidate, project, tip, scm))


def finished(
    project: Project,
    environment: str,
    state: PromotionState,
    scm: Scm,
    id: str = "",
    before: Callable[[str], None] = lambda branch: None,
) -> Promotion | None:
    """Finish what a killed call left: the branch of a promotion that is merged, or rejected.

    With ``id`` also the promotion of that id, where it is the last that was merged.

    Args:
        before: called with the branch before it is removed.
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
    before(branch)
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
    if not last or current is None or len(id) < ID_LEAST:
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
