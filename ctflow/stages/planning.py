"""Plan: what the evaluation sets can show over the champion, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctflow.config.serving_costs import COSTS
from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.evaluation.candidates import run_of
from ctflow.gate.data import named
from ctflow.gate.files.evidence import Predictions, read_predictions
from ctflow.gate.looks import at_look
from ctflow.gate.planning import POWER
from ctflow.gate.plans import Plan, no_plan, plan_rule
from ctflow.gate.reserved import reserved_rules
from ctflow.model import Comparison, Release, Verdict
from ctflow.ports import Functions, Looks, ModelStore, OpenFunctions, Scm, ignore
from ctflow.release import files as files
from ctflow.release.looks import looks_at, merged

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.config.project import Project


def plan(
    project: Project,
    environment: str,
    *,
    scm: Scm,
    store: ModelStore,
    looks: Looks,
    functions: OpenFunctions,
) -> Plan:
    """Plan from the champion's kept predictions, by the project's rules.

    A rule with ``confirm`` is planned on its reserved set too; one with ``looks`` at the confidence
    of the next model. Functions of the project are asked in the steps of the champion's run.

    Raises:
        ConfigError: no rule compares with the champion.
        StateError: the default branch has no release for the environment.
    """
    reserved = reserved_rules(project.gate)
    rules = [rule for rule in project.gate if rule.over is not None]
    if not rules:
        raise ConfigError(
            "no rule of the gate compares with the champion, so there is nothing to plan",
            next="add one with 'over: champion'",
        )
    tip = scm.tip(project.branch)
    current = files.at(scm, tip, environment) if tip else None
    if tip is None or current is None:
        raise StateError(
            f"{environment} has no champion on {project.branch} yet",
            next="promote a first model; then there is something to compare with",
        )
    judged = merged(looks_at(scm, tip, environment), looks.models(environment))
    rules += [rule for one in reserved.values() for rule in one]
    plans = []
    with functions(run_of(current), ignore) as asked:
        kept = dict(_kept(current, store, asked))
        for rule in rules:
            output = rule.predictions or ""
            found = kept.get(output, "its release does not name them")
            if isinstance(found, str):
                plans.append(no_plan(rule, f"of the champion's predictions {output}: {found}"))
                continue
            place = len(judged.get(found.evaluation_set, ())) + 1
            before = _compared(current.verdict, rule, output in reserved)
            plans.append(plan_rule(at_look(rule, place), found, before))
    costs = dict.fromkeys(rule.metric for rule in project.gate if rule.metric in COSTS)
    data = [named(rule) for rule in project.gate if rule.data is not None]
    said = f"measured when a model is judged, not planned: {', '.join([*costs, *data])}"
    notes = (said,) if costs or data else ()
    return Plan(environment, current.model.digest, current.run, POWER, tuple(plans), notes)


def _kept(
    current: Release, store: ModelStore, functions: Functions
) -> Iterator[tuple[str, Predictions | str]]:
    """The champion's predictions by output, or why they cannot be had."""
    mend = "copy them with `ctflow store pull STORE`, or run `ctflow ct` once, which scores it"
    for ref in current.predictions:
        try:
            found = store.fetch_predictions(ref.key(current.model.digest))
        except OutsideError as error:
            yield ref.output, error.message()
            continue
        if found is None:
            yield ref.output, f"they are not in the store here; {mend}"
        elif found[1] != ref.digest:
            yield ref.output, f"they are not those that the release names; {mend}"
        else:
            yield ref.output, read_predictions(found[0], functions.of(ref.output))


def _compared(verdict: Verdict, rule: GateRule, is_reserved: bool) -> tuple[Comparison, ...]:
    """What a verdict compared by such a rule: all examples, or each slice."""
    kind = f"{rule.metric} over champion" + (f" by {rule.by}" if rule.by is not None else "")
    if is_reserved:
        kind += f" on {rule.predictions}"
    found: dict[str, Comparison] = {}
    for reason in verdict.reasons:
        if reason.rule == kind and reason.comparison is not None:
            found.setdefault(reason.slice, reason.comparison)
    return tuple(found.values())
