"""Judging a challenger: what the gate is given, and the look at each evaluation set on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ctflow import gate
from ctflow.config.serving_costs import COSTS
from ctflow.errors import CtflowError
from ctflow.evaluation.scoring import Scorer
from ctflow.gate.anchors import Anchor, anchor_key, moved_anchors
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.reserved import confirmed, overlap, reserved_rules
from ctflow.gate.text import plain
from ctflow.lib.digests import short
from ctflow.model import Override, Reason, Release, Verdict, worst
from ctflow.ports import Looks
from ctflow.release.looks import Models, with_model

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.config.project import Project


def judged(
    scorer: Scorer,
    project: Project,
    environment: str,
    current: Release | None,
    committed: Models,
    looks: Looks,
    override: Override | None,
    dry_run: bool,
    costs: Callable[[Verdict], Verdict],
) -> Verdict:
    """The rules' verdict on the challenger; reserved sets are opened for what passes them all.

    Args:
        current: the champion's release; None: there is none yet.
        committed: the models that git says were compared before, by evaluation set.
        looks: where this one is put on record before it is compared; not in a dry run.
        costs: adds the rules on training data and on what serving costs to the verdict.

    Raises:
        CtflowError: the challenger's predictions cannot be had.
        ConfigError: a rule asks for what the predictions do not give.
    """
    case = _Case(scorer, project, environment, current, looks, override, dry_run, dict(committed))
    reserved = reserved_rules(project.gate)
    for output in reserved:
        scorer.candidate.fetch(output)  # that it is missing is known now, and not when it counts
    # What serving costs, and the data, say nothing of the answers: those need rules of their own.
    answers = [rule for rule in project.gate if rule.metric not in COSTS and rule.data is None]
    verdict = case.verdict(answers, scorer.candidate.run.metrics)
    if project.gate and not answers:
        text = "no rule of the gate judges the model's answers: add one on a metric"
        verdict = replace(verdict, reasons=(Reason("gate", "reject", text),))
    verdict = costs(verdict)
    for output, rules in reserved.items():
        if verdict.decision == "promote":
            verdict = case.confirm(verdict, output, rules)
    anchors = moved_anchors(
        project.gate,
        current.verdict.anchors if current else {},
        current.model.digest if current else None,
        scorer.candidate.digest,
        verdict.reasons,
        verdict.decision,
    )
    sets = {output: found.evaluation_set for output, found in case.challengers.items()}
    return replace(verdict, evaluated=sets, looks=case.record, anchors=anchors)


@dataclass
class _Case:
    """One challenger before the gate. What it has read and put on record grows as it goes."""

    scorer: Scorer
    project: Project
    environment: str
    current: Release | None
    looks: Looks
    override: Override | None
    dry_run: bool
    record: dict[str, tuple[str, ...]]
    challengers: dict[str, Predictions] = field(default_factory=dict)

    def verdict(self, rules: Sequence[GateRule], metrics: Mapping[str, float]) -> Verdict:
        """The verdict of these rules, each on the predictions that it names."""
        for output in _outputs(rules):
            self.challengers[output] = self.scorer.of_challenger(output)
        compared = _outputs(rule for rule in rules if rule.over) if self._compares() else []
        places = {output: self._look(output) for output in compared}
        found: Verdict = gate.judge(
            project=self.project.project,
            environment="",
            run=self.scorer.candidate.run.id,
            rules=rules,
            metrics=metrics,
            predictions={output: self.challengers[output] for output in _outputs(rules)},
            champion=self._champion(rules),
            challenger=self.scorer.candidate.digest,
            looks=places,
            override=self.override,
        )
        return found

    def confirm(self, verdict: Verdict, output: str, rules: Sequence[GateRule]) -> Verdict:
        """The verdict, borne out or not by a reserved set."""
        if self.dry_run:
            note = f"{output} was not read: this is a dry run"
            return replace(verdict, notes=(*verdict.notes, note))
        before = dict(self.challengers)
        mine = self.scorer.of_challenger(output)
        self.challengers[output] = mine
        if shared := overlap(output, mine, before):
            return replace(verdict, decision="reject", reasons=(*verdict.reasons, shared))
        if not self._compares():
            return verdict
        again = self.verdict(rules, {})
        reasons = (*verdict.reasons, *confirmed(output, again.reasons))
        return replace(
            verdict,
            decision=worst(one.decision for one in reasons),
            reasons=reasons,
            notes=(*verdict.notes, *again.notes),
        )

    def _compares(self) -> bool:
        serves = self.current.model.digest if self.current else None
        return serves is not None and serves != self.scorer.candidate.digest

    def _look(self, output: str) -> int:
        """Put the model on record for the output's evaluation set; its place there."""
        model, on = self.scorer.candidate.digest, self.challengers[output].evaluation_set
        local = self.looks.models(self.environment)
        place, self.record = with_model(self.record, local, on, model)
        if not self.dry_run:
            self.looks.add(self.environment, on, model)
        return place

    def _champion(self, rules: Sequence[GateRule]) -> gate.Champion | None:
        """The champion with its predictions on the same examples, or why they are missing."""
        if self.current is None:
            return None
        digest, metrics = self.current.model.digest, self.current.metrics
        if not self._compares():
            return gate.Champion(digest, metrics, {})
        found: dict[str, Predictions] = {}
        missing: dict[str, str] = {}
        for output in _outputs(rule for rule in rules if rule.over):
            try:
                on = self.challengers[output].evaluation_set
                found[output] = self.scorer.of_other(digest, output, on, self.current)
            except CtflowError as error:
                missing[output] = error.message()
        return gate.Champion(digest, metrics, found, missing, self._anchors(rules, self.current))

    def _anchors(self, rules: Sequence[GateRule], current: Release) -> dict[str, Anchor]:
        """The models that margins count from, where they are neither champion nor challenger.

        A reserved set is not asked about them: its key is no rule's of ctflow.yaml.
        """
        found: dict[str, Anchor] = {}
        for rule in rules:
            key, output = anchor_key(rule), rule.predictions
            model = current.verdict.anchors.get(key)
            known = (current.model.digest, self.scorer.candidate.digest)
            if not rule.margin or output is None or model is None or model in known:
                continue
            try:
                on = self.challengers[output].evaluation_set
                name = f"the anchor {short(model)}"
                found[key] = Anchor(model, self.scorer.of_other(model, output, on, None, name))
            except (CtflowError, ValueError) as error:
                said = error.message() if isinstance(error, CtflowError) else str(error)
                found[key] = Anchor(model, missing=said)
        return found


def with_functions(verdict: Verdict, used: Mapping[str, str]) -> Verdict:
    """The verdict, which says of what code the functions were that it asked.

    Args:
        used: the functions -> the digests of the images that they are of.
    """
    notes = [
        plain(f"asked {name} as it is in the step's image {short(digest)}")
        for name, digest in used.items()
    ]
    return replace(verdict, functions=dict(used), notes=(*verdict.notes, *notes))


def _outputs(rules: Iterable[GateRule]) -> list[str]:
    return list(dict.fromkeys(rule.predictions for rule in rules if rule.predictions))
