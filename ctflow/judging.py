"""Judging a challenger: what the gate is given, and the look at each evaluation set on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ctflow import gate
from ctflow.digests import short
from ctflow.errors import CtflowError
from ctflow.gate import evidence
from ctflow.gate.anchors import Anchor, anchor_key, moved_anchors
from ctflow.looks import Models, with_model
from ctflow.model import Override, Release, Verdict
from ctflow.ports import Looks
from ctflow.scoring import Scorer


def judged(
    scorer: Scorer,
    environment: str,
    current: Release | None,
    committed: Models,
    looks: Looks,
    override: Override | None,
    dry_run: bool,
) -> Verdict:
    """The rules' verdict on the challenger.

    Args:
        current: the champion's release; None: there is none yet.
        committed: the models that git says were compared before, by evaluation set.
        looks: where this one is put on record before it is compared; not in a dry run.

    Raises:
        CtflowError: the challenger's predictions cannot be had.
        ConfigError: a rule asks for what the predictions do not give.
    """
    project = scorer.project
    outputs = dict.fromkeys(rule.predictions for rule in project.gate if rule.predictions)
    challengers = {output: scorer.of_challenger(output) for output in outputs}
    sets = {output: found.evaluation_set for output, found in challengers.items()}
    model = scorer.model.digest
    places: dict[str, int] = {}
    record: Models = {}
    if current is not None and current.model.digest != model:
        record, local = committed, looks.models(environment)
        for output in {rule.predictions or "": None for rule in project.gate if rule.over}:
            places[output], record = with_model(record, local, sets[output], model)
            if not dry_run:
                looks.add(environment, sets[output], model)
    verdict: Verdict = gate.judge(
        project=project.project,
        environment="",
        run=scorer.run.id,
        rules=project.gate,
        metrics=scorer.run.metrics,
        predictions=challengers,
        champion=_champion(scorer, current, challengers),
        challenger=model,
        looks=places,
        override=override,
    )
    anchors = moved_anchors(
        project.gate,
        current.verdict.anchors if current else {},
        current.model.digest if current else None,
        model,
        verdict.reasons,
        verdict.decision,
    )
    return replace(verdict, evaluated=sets, looks=dict(record), anchors=anchors)


def _champion(
    scorer: Scorer, current: Release | None, challengers: Mapping[str, evidence.Predictions]
) -> gate.Champion | None:
    """The champion with its predictions on the challenger's examples, or why they are missing."""
    if current is None:
        return None
    digest = current.model.digest
    if digest == scorer.model.digest:
        return gate.Champion(digest, current.metrics, {})
    found: dict[str, evidence.Predictions] = {}
    missing: dict[str, str] = {}
    for rule in scorer.project.gate:
        output = rule.predictions
        if not rule.over or output is None or output in found or output in missing:
            continue
        try:
            on = challengers[output].evaluation_set
            found[output] = scorer.of_other(digest, output, on, current)
        except CtflowError as error:
            missing[output] = error.message()
    anchors = _anchors(scorer, current, challengers)
    return gate.Champion(digest, current.metrics, found, missing, anchors)


def _anchors(
    scorer: Scorer, current: Release, challengers: Mapping[str, evidence.Predictions]
) -> dict[str, Anchor]:
    """The models that margins count from, where they are neither champion nor challenger."""
    found: dict[str, Anchor] = {}
    for rule in scorer.project.gate:
        key, output = anchor_key(rule), rule.predictions
        model = current.verdict.anchors.get(key)
        known = (current.model.digest, scorer.model.digest)
        if not rule.margin or output is None or model is None or model in known:
            continue
        try:
            on = challengers[output].evaluation_set
            name = f"the anchor {short(model)}"
            found[key] = Anchor(model, scorer.of_other(model, output, on, None, name))
        except (CtflowError, ValueError) as error:
            said = error.message() if isinstance(error, CtflowError) else str(error)
            found[key] = Anchor(model, missing=said)
    return found
