"""What the model store keeps of a candidate, for later comparisons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ctflow.errors import UsageError
from ctflow.evaluation.candidates import Candidate, ReleaseCandidate
from ctflow.evaluation.training_data import asked, keep_summary, outputs_of, summarised
from ctflow.gate.files import evidence
from ctflow.model import PredictionsKey, PredictionsRef, Release, Verdict, dump, from_json
from ctflow.ports import ModelStore

if TYPE_CHECKING:
    from ctflow.config.project import Project


def keep_predictions(
    candidate: Candidate, verdict: Verdict, current: Release | None, store: ModelStore
) -> tuple[PredictionsRef, ...]:
    """Keep the predictions of each output that was judged, under what they answer and were made of.

    Where only the serving code is new, nothing was judged: the model's own are kept already.
    """
    if not verdict.evaluated and current and current.model.digest == candidate.digest:
        return current.predictions
    found = []
    for output, evaluation_set in sorted(verdict.evaluated.items()):
        kept = candidate.kept(output, evaluation_set)
        if kept is None:
            key = PredictionsKey(candidate.digest, output, evaluation_set, candidate.made(output))
            content = evidence.predictions_file(candidate.fetch(output))
            uri, digest = store.put_predictions(key, content)
            kept = PredictionsRef(uri, digest, evaluation_set, output, key.made)
        found.append(kept)
    return tuple(found)


def keep_summaries(
    candidate: Candidate,
    verdict: Verdict,
    project: Project,
    current: Release | None,
    store: ModelStore,
) -> tuple[PredictionsRef, ...]:
    """Keep a summary of the training data at each output, by what the rules ask of it."""
    if not verdict.evaluated and current and current.model.digest == candidate.digest:
        return current.summaries
    kept = candidate.kept_summaries()
    if kept is not None:
        return kept
    return tuple(
        keep_summary(
            summarised(
                output,
                candidate.content(output),
                candidate.fetch(output),
                asked(project.gate, output),
            ),
            candidate.digest,
            store,
        )
        for output in outputs_of(project.gate)
    )


def kept_release(
    candidate: Candidate,
    verdict: Verdict,
    project: Project,
    commit: str,
    current: Release | None,
    store: ModelStore,
) -> Release:
    """The release of a candidate, but for what serves it; its model and predictions are kept now.

    Args:
        current: what the environment serves by git.

    Raises:
        UsageError: training data that a rule names cannot be read.
        StateError, OutsideError: as the store does.
    """
    run = candidate.run
    return Release(
        project=project.project,
        environment=verdict.environment,
        model=candidate.keep_model(store, project.model.format),
        run=run.id,
        pipeline=run.pipeline,
        pipeline_version=commit[:12],
        package=run.package,
        commit=commit,
        # Of the run, not of now: the same call again must give the same commit.
        created=run.ended or run.created,
        verdict=verdict,
        parameters=run.parameters,
        metrics=run.metrics,
        images={image.step: image.reference for image in run.images},
        data=dict(candidate.data),
        predictions=keep_predictions(candidate, verdict, current, store),
        summaries=keep_summaries(candidate, verdict, project, current, store),
    )


def keep_evidence(release: Release, store: ModelStore) -> bytes:
    """Keep all that a promotion needs of a run's model beside the model; the document."""
    document = dump(release).encode()
    store.put_evidence(release.run, release.environment, document)
    return document


def read_evidence(document: bytes, where: str) -> Release:
    """The release of a document that ``keep_evidence`` wrote. Raises UsageError for another."""
    try:
        data = json.loads(document)
    except ValueError:
        raise UsageError(f"{where} is not JSON", next="run the gate again") from None
    return from_json(Release, data, where)


def kept_evidence(
    project: Project, environment: str, run: str, store: ModelStore
) -> ReleaseCandidate | None:
    """The candidate that the gate kept for a run and an environment, or None.

    Raises:
        UsageError, OutsideError: what is there is no such document, or the store fails.
    """
    document = store.fetch_evidence(run, environment)
    if document is None:
        return None
    release = read_evidence(document, f"the evidence of run {run}")
    if (release.project, release.environment, release.run) != (project.project, environment, run):
        raise UsageError(f"the evidence of run {run} is another run's", next="run the gate again")
    found = ReleaseCandidate(release, store)
    found.check()
    return found
