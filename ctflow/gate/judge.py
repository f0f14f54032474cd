"""The gate: is the challenger good enough, and really better, for this environment?

Each rule gives one reason or more; the verdict is the worst of them, and ``promote`` needs every
one. Whatever is missing or unsound is a ``reject``, never a pass:

- a bound: the run's metric, or each slice's computed from its predictions, within ``min``/``max``;
- over the champion, on the same examples, with a two-sided interval at ``confidence``: a gain is
  shown when its lower end is above 0 (``min_gain: 0``), or at least ``min_gain``; with ``margin``
  when it is at least ``-margin``. ``reject`` where the upper end is below 0 (or ``-margin``), else
  ``hold``. By slice, every slice must pass, so no correction for their number is needed to
  promote; to reject for one slice there is Holm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.checks import check_rule, finite, unchecked, unsound
from ctflow.gate.text import MAX_NAME, against, apart, bound_text, plain, short, signed
from ctflow.metric_names import is_lower_better
from ctflow.model import SAME, Comparison, Decision, Override, Reason, Verdict

if TYPE_CHECKING:
    from ctflow.gate.comparison import Paired
    from ctflow.gate.predictions import Ints, Predictions
    from ctflow.gate_rules import GateRule

NO_CHAMPION = "no champion yet: absolute rules decide"
_WORST: dict[Decision, int] = {"promote": 0, "hold": 1, "reject": 2}


@dataclass(frozen=True)
class Champion:
    """What the environment serves now; ``predictions`` by ``task.output``, as the rules say.

    ``missing`` says of others why they cannot be had.
    """

    model: str
    metrics: Mapping[str, Any]
    predictions: Mapping[str, Predictions]
    missing: Mapping[str, str] = field(default_factory=dict)


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
    seed: int = 0,
) -> Verdict:
    """Apply the rules. ``challenger`` is the new model's digest; ``seed`` that of resampling.

    The same arguments give the same verdict, whatever the order of the predictions' rows.

    Raises:
        UsageError: an override without a reason.
        ConfigError: a rule asks for what the predictions cannot give.
    """
    if override is not None and not override.reason.strip():
        raise UsageError("an override needs a reason", next="say why with --reason")
    case = _Case(tuple(rules), metrics, predictions, champion, seed)
    reasons, notes = case.reasons(challenger)
    evidence = case.main_evidence()
    return Verdict(
        project=project,
        environment=environment,
        run=run,
        decision=max((reason.decision for reason in reasons), key=_WORST.__getitem__),
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

    def _rule(self, rule: GateRule, notes: list[str]) -> Iterator[Reason]:
        evidence = self._evidence(rule)
        if rule.predictions is not None and (evidence is None or len(evidence) == 0):
            yield _reason(rule, "reject", f"the run has no predictions {rule.predictions}")
            return
        if evidence is not None:
            check_rule(rule, evidence)
        wrong = unsound(rule, self.metrics, evidence)
        if wrong:
            yield _reason(rule, "reject", wrong)
        elif rule.over is not None:
            if self.champion is not None and evidence is not None:
                yield from self._over(rule, evidence, self.champion, notes)
        elif rule.by is not None and evidence is not None:
            yield from _bounded_slices(rule, evidence, notes)
        else:
            if why := unchecked(rule, evidence):
                notes.append(plain(why))
            yield _bounded(rule, float(self.metrics[rule.metric]), rule.min, rule.max)

    def _evidence(self, rule: GateRule) -> Predictions | None:
        """The rule's predictions; where it names none, the only ones that any rule names."""
        if rule.predictions is not None:
            return self.predictions.get(rule.predictions)
        named = {other.predictions for other in self.rules if other.predictions}
        return self.predictions.get(next(iter(named))) if len(named) == 1 else None

    def _over(
        self, rule: GateRule, evidence: Predictions, champion: Champion, notes: list[str]
    ) -> Iterator[Reason]:
        from ctflow.gate.comparison import Paired
        from ctflow.gate.scores import measure

        if why := champion.missing.get(rule.predictions or ""):
            yield _reason(rule, "hold", f"cannot be compared with the champion: {why}")
            return
        theirs = champion.predictions.get(rule.predictions or "")
        if theirs is None or len(theirs) == 0:
            text = f"the champion has no predictions {rule.predictions}: score it on this set"
            yield _reason(rule, "reject", text)
            return
        if theirs.evaluation_set != evidence.evaluation_set:
            yield _reason(
                rule,
                "reject",
                "the champion's predictions are for other examples or labels: score the champion "
                "again on this evaluation set",
            )
            return
        try:
            measure(rule.metric, [evidence, theirs], rule.positive)
        except ConfigError as error:
            text = f"the champion's predictions do not give {short(rule.metric)}: {error}"
            yield _reason(rule, "reject", text)
            return
        lower = None if rule.better is None else rule.better == "lower"
        paired = Paired(
            rule.metric,
            evidence,
            theirs,
            test=rule.test,
            lower_better=lower,
            positive=rule.positive,
            group=rule.group,
            seed=self.seed,
        )
        if rule.by is None:
            yield _compared(rule, paired, None, len(evidence))
            return
        yield from _compared_slices(rule, paired, dict(_judged_slices(rule, evidence, notes)))
        yield from _no_slices(rule, evidence)


def _judged_slices(
    rule: GateRule, evidence: Predictions, notes: list[str]
) -> Iterator[tuple[str, Ints]]:
    for value, rows in evidence.slices(rule.by or "").items():
        if len(rows) < rule.min_examples:
            few = f"{len(rows)} examples, fewer than {rule.min_examples}: not judged"
            notes.append(plain(f"{short(rule.metric)}, {rule.by}={short(value)}: {few}"))
        else:
            yield value, rows


def _no_slices(rule: GateRule, evidence: Predictions) -> Iterator[Reason]:
    sizes = {value: len(rows) for value, rows in evidence.slices(rule.by or "").items()}
    if all(size < rule.min_examples for size in sizes.values()):
        yield _reason(rule, "reject", f"no slice by {rule.by} has {rule.min_examples} examples")
    for value in rule.slices:
        if value not in sizes:
            yield _reason(rule, "reject", "no examples of this slice", value)


def _bounded_slices(rule: GateRule, evidence: Predictions, notes: list[str]) -> Iterator[Reason]:
    from ctflow.gate.scores import measure

    metric = measure(rule.metric, [evidence], rule.positive)
    for value, rows in _judged_slices(rule, evidence, notes):
        low, high = rule.min, rule.max
        if own := rule.slices.get(value):
            low = own.min if "min" in own.model_fields_set else low
            high = own.max if "max" in own.model_fields_set else high
        if low is None and high is None:
            notes.append(plain(f"{short(rule.metric)}, {rule.by}={short(value)}: no bounds"))
            continue
        found = float(metric.values(rows)[0])
        if math.isfinite(found):
            yield _bounded(rule, found, low, high, value)
        else:
            yield _reason(rule, "reject", f"{short(rule.metric)} is undefined here", value)
    yield from _no_slices(rule, evidence)


def _bounded(
    rule: GateRule, value: float, low: float | None, high: float | None, where: str | None = None
) -> Reason:
    parts: list[str] = []
    passes = True
    for bound, sign, broken, ok in (
        (low, ">=", "<", low is None or value >= low),
        (high, "<=", ">", high is None or value <= high),
    ):
        if bound is not None:
            passes &= ok
            parts.append(f"{against(value, bound)} {sign if ok else broken} {bound_text(bound)}")
    text = f"{short(rule.metric)} {' and '.join(parts)}"
    return _reason(rule, "promote" if passes else "reject", text, where)


def _compared(
    rule: GateRule, paired: Paired, rows: Ints | None, size: int, where: str | None = None
) -> Reason:
    limit = -rule.margin if rule.margin else rule.min_gain
    found = paired.compare(rule.confidence, rows, size, limit)
    name = short(rule.metric)
    if not (math.isfinite(found.challenger) and math.isfinite(found.champion)):
        return _reason(rule, "reject", f"{name} is undefined on these predictions", where)
    moved = _moved(rule, found)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return _reason(rule, "hold", f"{name} {moved}, not shown: {found.method}", where)
    decision, why = _decide(rule, found)
    limits = (0.0, rule.min_gain, -rule.margin)
    low, high = (against(end, *limits) for end in (found.low, found.high))
    of = " of the gain" if _falls(rule) else ""
    groups = f", {found.groups} groups" if found.groups is not None else ""
    text = f"{name} {moved} ({100 * rule.confidence:g}% CI{of} {low} to {high}{groups}){why}"
    return _reason(rule, decision, text, where, found)


def _falls(rule: GateRule) -> bool:
    return rule.better == "lower" or is_lower_better(rule.metric)


def _moved(rule: GateRule, found: Comparison) -> str:
    """The gain in words: a plus sign beside a figure that fell would be read as its opposite."""
    if not _falls(rule):
        return f"{signed(found.gain)} over champion"
    if found.gain == 0:
        return f"{against(found.challenger, 0.0)}, as the champion's"
    ours, theirs = apart(found.challenger, found.champion)
    way = "lower, so better," if found.gain > 0 else "higher, so worse,"
    return f"{ours}, {against(abs(found.gain), 0.0)} {way} than the champion's {theirs}"


def _compared_slices(rule: GateRule, paired: Paired, slices: Mapping[str, Ints]) -> list[Reason]:
    """Each slice's reason; one that is worse rejects only if it is so after Holm's correction.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the k-th worst of m slices is tested
    at the level over m - k + 1, until one is not shown to be worse.
    """
    found = {value: _compared(rule, paired, rows, 0, value) for value, rows in slices.items()}
    doubtful = {value for value, reason in found.items() if reason.decision == "reject"
                and reason.comparison is not None}  # fmt: skip
    left = len(found)
    while doubtful:
        level = rule.model_copy(update={"confidence": 1 - (1 - rule.confidence) / left})
        shown = {
            value
            for value in doubtful
            if _compared(level, paired, slices[value], 0, value).decision == "reject"
        }
        if not shown:
            break
        doubtful -= shown
        left -= len(shown)
    for value in doubtful:
        text = f"{found[value].text}, which may be chance among {len(found)} slices"
        found[value] = replace(found[value], decision="hold", text=plain(text))
    return list(found.values())


def _decide(rule: GateRule, found: Comparison) -> tuple[Decision, str]:
    """The decision, and what of it the interval does not say by itself."""
    limit = -rule.margin if rule.margin else rule.min_gain
    shown = found.low > 0 if limit == 0 else found.low >= limit
    worse = found.high < min(limit, 0.0)
    if rule.margin:
        says = ("within", "not shown within", "outside")
        inside, unsure, outside = (f", {word} the margin of {rule.margin:g}" for word in says)
    elif rule.min_gain:
        inside = f", at least {rule.min_gain:g}"
        unsure, outside = f", not shown to be at least {rule.min_gain:g}", ": worse"
    else:
        inside, unsure, outside = "", ": not shown better", ": worse"
    significant = found.p_value is None or limit != 0 or found.p_value < 1 - rule.confidence
    if shown and significant:
        return "promote", inside
    return ("reject", outside) if worse else ("hold", unsure)


def _reason(
    rule: GateRule,
    decision: Decision,
    text: str,
    where: str | None = None,
    comparison: Comparison | None = None,
) -> Reason:
    kind = f"{rule.metric} over champion" if rule.over else rule.metric
    if rule.by is not None:
        kind += f" by {rule.by}"
    if where is not None:
        text = f"{rule.by}={short(where) or '(empty)'}: {text}"
    value = (where or "")[:MAX_NAME]
    return Reason(plain(kind), decision, plain(text), value, comparison)
