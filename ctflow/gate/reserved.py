"""The reserved set: it is opened only for what passes all rules, and has to bear them out.

What was chosen on one set because it looked best there looks, on another, as good as it is. So the
attempts on the first set do not add up on the reserved one, which sees only the few that passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctflow.gate.text import plain
from ctflow.model import Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Predictions


def reserved_rules(rules: Sequence[GateRule]) -> dict[str, list[GateRule]]:
    """The rules to be confirmed, by the output of the reserved predictions they are asked of.

    They keep their ``confirm``, by which ``looks.is_reserved`` knows them.
    """
    found: dict[str, list[GateRule]] = {}
    for rule in rules:
        if rule.confirm is not None:
            asked = rule.model_copy(update={"predictions": rule.confirm})
            found.setdefault(rule.confirm, []).append(asked)
    return found


def overlap(output: str, reserved: Predictions, others: dict[str, Predictions]) -> Reason | None:
    """A reject where the reserved set holds examples that were judged before."""
    ids = set(reserved.ids)
    for name, other in others.items():
        if shared := len(ids.intersection(other.ids)):
            text = f"{output} shares {shared:,} examples with {name}: a reserved set has its own"
            return Reason(f"confirm on {output}"[:100], "reject", plain(text))
    return None


def confirmed(output: str, reasons: Sequence[Reason]) -> list[Reason]:
    """Reasons from the reserved set, marked as such."""
    words = {"promote": "confirmed", "hold": "not confirmed", "reject": "refuted"}
    return [
        replace(
            one,
            rule=plain(f"{one.rule} on {output}"),
            text=plain(f"{words[one.decision]} on {output}: {one.text}"),
        )
        for one in reasons
    ]
