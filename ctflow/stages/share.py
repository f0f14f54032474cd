"""Share: bring what the releases in git name from one model store to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.errors import OutsideError
from ctflow.lib.quick import dataclass
from ctflow.model import Artifact, Release
from ctflow.ports import ModelStore, Scm
from ctflow.release import files as files

if TYPE_CHECKING:
    from ctflow.config.project import Project


@dataclass(frozen=True)
class Shared:
    """One release's model: ``state`` is ``copied``, ``there`` or ``missing`` from both stores."""

    environment: str
    run: str
    digest: str
    state: str
    size: int = 0


def named(project: Project, scm: Scm) -> list[Release]:
    """The releases of the default branch, and those that are proposed. The caller fetches."""
    found: list[Release] = []
    tip = scm.tip(project.branch)
    for environment in project.environments:
        for rev in (tip, scm.tip(files.branch(project.project, environment))):
            release = files.at(scm, rev, environment) if rev else None
            if release is not None and release not in found:
                found.append(release)
    return found


def share(project: Project, scm: Scm, source: ModelStore, target: ModelStore) -> list[Shared]:
    """Copy models, and what the gate compares with; each is there whole or not.

    That is predictions, and summaries of training data.

    Raises:
        OutsideError: a model in the source is damaged, or the disk fails.
    """
    scm.fetch()
    done: list[Shared] = []
    for release in named(project, scm):
        model = release.model
        state, size = "there", model.size
        if not target.has(model.digest):
            if not source.has(model.digest):
                done.append(Shared(release.environment, release.run, model.digest, "missing"))
                continue
            place = source.fetch(model.digest)
            target.put(Artifact("model", "", str(place), model.digest, size), model.format)
            state = "copied"
        for ref in (*release.predictions, *release.summaries):
            key = ref.key(model.digest)
            try:
                kept = None if target.fetch_predictions(key) else source.fetch_predictions(key)
            except OutsideError:
                continue  # damaged: the gate says so, or makes them again, where they are needed
            if kept is not None:
                target.put_predictions(key, kept[0])
        done.append(Shared(release.environment, release.run, model.digest, state, size))
    return done
