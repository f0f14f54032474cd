"""What the model store keeps of a candidate, for later comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.evaluation.candidates import Candidate
from ctflow.evaluation.training_data import asked, keep_summary, outputs_of, summarised
from ctflow.gate.files import evidence
from ctflow.model import PredictionsKey, PredictionsRef, Release, Verdict
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
        stored = candidate.stored_predictions(output, evaluation_set)
        if stored is None:
            key = PredictionsKey(candidate.digest, output, evaluation_set, candidate.made(output))
            content = evidence.predictions_file(candidate.fetch(output))
            uri, digest = store.put_predictions(key, content)
            stored = PredictionsRef(uri, digest, evaluation_set, output, key.made)
        found.append(stored)
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
    stored = candidate.stored_summaries()
    if stored is not None:
        return stored
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
