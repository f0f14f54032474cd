"""The gate: is the challenger good enough, and really better, for this environment?

Each rule gives one reason or more; the verdict is the worst of them, and ``promote`` needs every
one. Whatever is missing or unsound is a ``reject``, never a pass:

- a bound: the run's metric, or each slice's computed from its predictions, within ``min``/``max``;
  with a ``confidence`` its whole interval must be, and is a ``hold`` where it straddles the bound;
- between slices: their metrics at most ``max`` apart;
- over the champion, on the same examples, with a two-sided interval at ``confidence``: a gain is
  shown when its lower end is above 0 (``min_gain: 0``), or at least ``min_gain``; with ``margin``
  when it is at least ``-margin``. ``reject`` where the upper end is below 0 (or ``-margin``), else
  ``hold``. By slice, every slice must pass, so no correction for their number is needed to
  promote; to reject for one slice there is Holm's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.anchors import Anchor, against_anchor, anchor_key
from ctflow.gate.between import apart
from ctflow.gate.bounds import bounded, bounded_slices
from ctflow.gate.checks import check_rule, finite, unchecked, undefined, unsound, weight_note
from ctflow.gate.gains import compared, compared_slices
from ctflow.gate.looks import at_look, look_note, used_up
from ctflow.gate.reasons import judged_slices, no_slices, reason
from ctflow.gate.text import plain, short
from ctflow.lib.digests import short as short_digest
from ctflow.model import SAME, Override, Reason, Verdict, worst

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Predictions

NO_CHAMPION = "no champion yet: absolute rules decide"


@dataclass(frozen=True)
class Champion:
    """What the environment serves now; ``predictions`` by ``task.output``, as the rules say.

    ``missing`` says of others why they cannot be had.
    """

    model: str
    metrics: Mapping[str, Any]
    predictions: Mapping[str, Predictions]
    missing: Mapping[str, str] = field(default_factory=dict)
    #: Where a rule's margin counts from another model than this, by ``anchor_key``.
    anchors: Mapping[str, Anchor] = field(default_factory=dict)


def judge(
    *,
    project: str,
    environment: str,
    run: str,
    rules: Sequence[GateRule],
    metrics: Mapping[str, Any],
    predictions: Mapping[str, Predictions],
    champion: Champion | None,
    override: Override | None = None,
    challenger: str | None = None,
    looks: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Verdict:
    """Apply the rules. ``challenger`` is the new model's digest; ``seed`` that of resampling.

    ``looks`` says by ``task.output`` which attempt this is on its evaluation set, from 1; without
    it, it is the first.

    The same arguments give the same verdict, whatever the order of the predictions' rows.

    Raises:
        UsageError: an override without a reason.
        ConfigError: a rule asks for what the predictions cannot give.
    """
    if override is not None and not override.reason.strip():
        raise UsageError("an override needs a reason", next="say why with --reason")
    case = _Case(tuple(rules), metrics, predictions, champion, looks or {}, seed)
    reasons, notes = case.reasons(challenger)
    evidence = case.main_evidence()
    return Verdict(
        project=project,
        environment=environment,
        run=run,
        decision=worst(reason.decision for reason in reasons),
        reasons=tuple(reasons),
        champion=champion.model if champion else None,
        metrics=finite(metrics),
        champion_metrics=finite(champion.metrics) if champion else {},
        evaluation_set=evidence.evaluation_set if evidence is not None else "",
        examples=len(evidence) if evidence is not None else 0,
        override=override,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Case:
    rules: tuple[GateRule, ...]
    metrics: Mapping[str, Any]
    predictions: Mapping[str, Predictions]
    champion: Champion | None
    looks: Mapping[str, int]
    seed: int

    def reasons(self, challenger: str | None) -> tuple[list[Reason], list[str]]:
        """All rules' reasons (at least one), and the notes."""
        notes: list[str] = []
        if not self.rules:
            return [Reason("gate", "reject", "the gate has no rules")], notes
        champion = self.champion
        if champion is not None and challenger is not None and challenger == champion.model:
            return [Reason(SAME, "hold", "this model already serves")], notes
        reasons = [reason for rule in self.rules for reason in self._rule(rule, notes)]
        notes.extend(self._look_notes())
        if champion is None:
            notes.append(NO_CHAMPION)
            if all(rule.over for rule in self.rules):
                text = "no champion yet and no absolute rule: nothing judged this model"
                reasons.append(Reason("gate", "reject", text))
        if not reasons:
            reasons.append(Reason("gate", "reject", "no rule judged anything"))
        return reasons, notes

    def main_evidence(self) -> Predictions | None:
        """The predictions whose evaluation set the verdict names: a rule's over the champion."""
        first = sorted(self.rules, key=lambda rule: rule.over is None)
        found = (self.predictions.get(r.predictions) for r in first if r.predictions)
        return next((predictions for predictions in found if predictions is not None), None)

    def _look_notes(self) -> list[str]:
        """A line for each evaluation set that compared, where there is something to say."""
        compared: dict[str, list[GateRule]] = {}
        for rule in self.rules if self.champion is not None else ():
            where = rule.predictions or ""
            if rule.over and where in self.looks:
                compared.setdefault(where, []).append(rule)
        notes = [look_note(rules, self.looks[where]) for where, rules in compared.items()]
        return [plain(note) for note in notes if note]

    def _rule(self, rule: GateRule, notes: list[str]) -> Iterator[Reason]:
        evidence = self._evidence(rule)
        if rule.predictions is not None and (evidence is None or len(evidence) == 0):
            yield reason(rule, "reject", f"the run has no predictions {rule.predictions}")
            return
        if evidence is not None:
            check_rule(rule, evidence)
            if rule.weight is not None:
                notes.append(weight_note(rule, evidence))
        wrong = unsound(rule, self.metrics, evidence)
        if wrong:
            yield reason(rule, "reject", wrong)
        elif rule.over is not None:
            if self.champion is not None and evidence is not None:
                yield from self._over(rule, evidence, self.champion, notes)
            elif evidence is not None and (why := undefined(rule, evidence)):
                yield reason(rule, "reject", why)
        elif rule.by is not None and evidence is not None:
            yield from _advised(rule, bounded_slices(rule, evidence, notes, self.seed), notes)
        elif rule.between is not None and evidence is not None:
            yield apart(rule, evidence, notes, self.seed)
        else:
            if why := unchecked(rule, evidence):
                notes.append(plain(why))
            # What the columns give is the metric; a report of it was compared with that.
            reported = None if rule.of or rule.weight else self.metrics.get(rule.metric)
            value = None if reported is None else float(reported)
            yield from _advised(rule, [bounded(rule, value, evidence, self.seed)], notes)

    def _evidence(self, rule: GateRule) -> Predictions | None:
        """The rule's predictions; where it names none, the only ones that any rule names."""
        if rule.predictions is not None:
            return self.predictions.get(rule.predictions)
        named = {other.predictions for other in self.rules if other.predictions}
        return self.predictions.get(next(iter(named))) if len(named) == 1 else None

    def _over(
        self, rule: GateRule, evidence: Predictions, champion: Champion, notes: list[str]
    ) -> Iterator[Reason]:
        from ctflow.gate.metrics.scores import measure_of

        if why := champion.missing.get(rule.predictions or ""):
            yield reason(rule, "hold", f"cannot be compared with the champion: {why}")
            return
        theirs = champion.predictions.get(rule.predictions or "")
        if theirs is None or len(theirs) == 0:
            text = f"the champion has no predictions {rule.predictions}: score it on this set"
            yield reason(rule, "reject", text)
            return
        if theirs.evaluation_set != evidence.evaluation_set:
            yield reason(
                rule,
                "reject",
                "the champion's predictions are for other examples or labels: score the champion "
                "again on this evaluation set",
            )
            return
        try:
            measure_of(rule, [evidence, theirs])
        except ConfigError as error:
            text = f"the champion's predictions do not give {short(rule.metric)}: {error}"
            yield reason(rule, "reject", text)
            return
        place = self.looks.get(rule.predictions or "", 1)
        if why := used_up(rule, place):
            yield reason(rule, "hold", why)
            return
        rule = at_look(rule, place)
        yield from _advised(rule, self._compared(rule, evidence, theirs, notes), notes)
        anchor = champion.anchors.get(anchor_key(rule)) if rule.margin else None
        if anchor is not None:
            yield from self._over_anchor(rule, evidence, anchor)
        if rule.by is not None:
            yield from no_slices(rule, evidence)

    def _over_anchor(
        self, rule: GateRule, evidence: Predictions, anchor: Anchor
    ) -> Iterator[Reason]:
        name = f"anchor {short_digest(anchor.model)}"
        if anchor.predictions is None:
            text = f"cannot be compared with the {name}: {anchor.missing}"
            found = [reason(rule, "hold", text)]
        elif anchor.predictions.evaluation_set != evidence.evaluation_set:
            found = [reason(rule, "hold", f"the {name} was scored on other examples")]
        else:
            found = list(self._compared(rule, evidence, anchor.predictions, [], name))
        yield from against_anchor(found)

    def _compared(
        self,
        rule: GateRule,
        ours: Predictions,
        theirs: Predictions,
        notes: list[str],
        over: str = "champion",
    ) -> Iterator[Reason]:
        from ctflow.gate.comparison import Paired

        paired = Paired(
            rule.metric,
            ours,
            theirs,
            test=rule.test,
            exact=rule.exact,
            lower_better=rule.falls,
            positive=rule.positive,
            of=rule.of,
            weight=rule.weight,
            group=rule.group,
            block=rule.block,
            seed=self.seed,
        )
        if rule.by is None:
            yield compared(rule, paired, None, len(ours), over=over)
            return
        slices = dict(judged_slices(rule, ours, notes))
        yield from compared_slices(rule, paired, slices, over)


def _advised(rule: GateRule, reasons: Iterable[Reason], notes: list[str]) -> Iterator[Reason]:
    """The reasons; what would settle those that hold goes into the notes."""
    from ctflow.gate.planning import advice

    found = list(reasons)
    yield from found
    if line := advice(rule, found):
        notes.append(line)
