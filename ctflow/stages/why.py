"""Why: which model an environment serves, from what, on what evidence, by whose word. From git."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.lib.quick import dataclass
from ctflow.model import Hold, Release
from ctflow.ports import Scm
from ctflow.release import files as files

if TYPE_CHECKING:
    from ctflow.config.project import Project


@dataclass(frozen=True)
class Why:
    """The answer. ``approved_by`` is empty where nobody's word is recorded."""

    environment: str
    release: Release
    commit: str
    at: float
    approved_by: str
    subject: str
    diff: str = ""
    holds: tuple[Hold, ...] = field(default=())


def why(project: Project, environment: str, scm: Scm) -> Why:
    """Answer from the default branch's history alone.

    Raises:
        StateError: the default branch has no release for the environment.
    """
    tip = scm.tip(project.branch)
    release = files.at(scm, tip, environment) if tip else None
    if tip is None or release is None:
        raise StateError(
            f"{environment} has no release on {project.branch}", next="promote a run to it first"
        )
    entry = scm.log(tip, files.path(environment, files.RELEASE), limit=1)[0]
    word = next(
        (
            line.partition(": ")[2]
            for line in entry.body.splitlines()
            if line.startswith("Approved-by: ")
        ),
        "",
    )
    # A rollback has no approval line: who committed it said so. So has a forge's merge button.
    approved = word or entry.author
    holds = files.holds_at(scm, tip, environment)
    return Why(environment, release, entry.sha, entry.at, approved, entry.subject, holds=holds)
