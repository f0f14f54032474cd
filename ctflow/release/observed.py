"""What a serving target runs, beside what git says that it should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.model import Deployment, Release
from ctflow.ports import Scm, Server
from ctflow.release import files

if TYPE_CHECKING:
    from ctflow.config.project import Project


def observed(project: Project, environment: str, *, scm: Scm, server: Server) -> Deployment:
    """What the serving target runs, beside what git wants there."""
    found = server.status(environment)
    tip = scm.tip(project.branch)
    release = files.at(scm, tip, environment) if tip else None
    digest = release.model.digest if release else None
    state = found.state
    if state == "ready" and (
        digest != found.model or _code_moved(found, release, environment, scm)
    ):
        state = "outdated"
    image = release.serving.image if release and release.serving else ""
    return replace(found, wanted=digest, image=image, state=state)


def _code_moved(found: Deployment, release: Release | None, environment: str, scm: Scm) -> bool:
    """Whether git wants other serving code for the same model than what was deployed."""
    commit = found.release_commit
    if release is None or release.serving is None or commit is None or not scm.has(commit):
        return False
    before = files.at(scm, commit, environment)
    return before is not None and files.identity_of(before) != files.identity_of(release)
