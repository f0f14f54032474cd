"""Looks: many challengers on one evaluation set, and what of the level each of them may spend.

Each comparison alone lets a model that is no better through with probability at most
``(1 - confidence) / 2``; a hundred of them on the same examples add up. With shares of it that
add up to one whole, all of them together keep to it (Bonferroni's inequality), also where later
models were chosen after the earlier ones' verdicts were seen, so long as none was fitted to the
set's answers. Sources: Renggli and others, Continuous Integration of Machine Learning Models with
ease.ml/ci (MLSys 2019); Blum and Hardt, The Ladder (ICML 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule


def at_look(rule: GateRule, place: int) -> GateRule:
    """The rule at the confidence of the ``place``-th model (from 1) on its evaluation set.

    ``looks: K`` gives each of K models the share 1/K of the level, ``looks: auto`` gives the k-th
    the share 1/(k(k + 1)), which add up to 1 however many there will be.
    """
    if rule.looks is None:
        return rule
    share = 1 / (place * (place + 1)) if rule.looks == "auto" else 1 / rule.looks
    return rule.model_copy(update={"confidence": 1 - (1 - rule.confidence) * share})


def used_up(rule: GateRule, place: int) -> str:
    """Why the set cannot judge another model, or ""."""
    if rule.looks is None or rule.looks == "auto" or place <= rule.looks:
        return ""
    return (
        f"attempt {place} on this evaluation set, and `looks: {rule.looks}` allows "
        f"{rule.looks}: evaluate on new examples"
    )


def look_note(rules: Sequence[GateRule], place: int) -> str:
    """What a verdict says of the model's place on an evaluation set; "" of the first.

    rules: those over the champion on that set, one or more. One that nothing guards is warned of.
    """
    text = f"attempt {place} on the evaluation set of {rules[0].predictions}"
    planned = [rule.looks for rule in rules if isinstance(rule.looks, int)]
    if planned:
        return f"{text}, of {min(planned)}"
    if place == 1:
        return ""
    if all(rule.looks or rule.confirm for rule in rules):
        return text
    return f"{text}: chance adds up over attempts; `confirm:` or `looks:` guards against it"
