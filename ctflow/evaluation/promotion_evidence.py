"""What a proposal's report says: read from the releases and the kept predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.errors import OutsideError
from ctflow.gate.files import evidence
from ctflow.model import Release
from ctflow.ports import ModelStore, Scm
from ctflow.release import files
from ctflow.report import Confusion, Evidence

if TYPE_CHECKING:
    from ctflow.config.project import Project


def described(
    release: Release,
    current: Release | None,
    base: str,
    commit: str,
    project: Project,
    *,
    scm: Scm,
    store: ModelStore,
) -> Evidence:
    """What a proposal's report says, from the proposal's own commit and the one it builds on."""
    where = files.path(release.environment, files.MANIFEST)
    return evidence_of(
        release, current, project, store, scm.read(base, where), scm.read(commit, where)
    )


def evidence_of(
    release: Release,
    current: Release | None,
    project: Project,
    store: ModelStore,
    before: bytes | None,
    after: bytes | None,
) -> Evidence:
    return Evidence(
        release,
        current,
        project.environments[release.environment].rollout,
        _confusion(release.model.digest, release, store),
        _confusion(release.verdict.champion, release, store),
        (before or b"").decode("utf-8"),
        (after or b"").decode("utf-8"),
    )


def _confusion(model: str | None, release: Release, store: ModelStore) -> Confusion | None:
    """A model's confusion matrix on the verdict's evaluation set, if its predictions are kept."""
    judged = (
        ref for ref in release.predictions if ref.evaluation_set == release.verdict.evaluation_set
    )
    ref = next(judged, None)
    if model is None or ref is None:
        return None
    try:
        kept = store.fetch_predictions(ref.key(model))
    except OutsideError:
        return None  # damaged: a report without a matrix rather than a wrong one
    if kept is None:
        return None
    predictions = evidence.read_predictions(kept[0])
    if not evidence.has_classes(predictions):
        return None
    return Confusion(*evidence.confusion(predictions))
