"""Anchors: a margin is kept to the last model that showed a gain, not only to the champion.

Each champion may be a margin worse than the one before it, so a chain of them would fall without
end. So a rule with a ``margin`` is tested against an anchor too, which only moves to a model that
shows a gain over the champion and over the anchor of its time, or to one that a person let through.
Source: Everson-Stewart and Emerson, Bio-creep in non-inferiority clinical trials (Statistics in
Medicine 29, 2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctflow.model import Decision, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate.files.predictions import Predictions


@dataclass(frozen=True)
class Anchor:
    """The model that a rule's margin counts from, where it is not the champion.

    ``missing`` says why there are no ``predictions`` of it.
    """

    model: str
    predictions: Predictions | None = None
    missing: str = ""


def anchor_key(rule: GateRule) -> str:
    """What a rule's anchor is kept under: the same rule with another margin keeps its anchor."""
    by = f" by {rule.by}" if rule.by else ""
    return f"{rule.metric}{by} of {rule.predictions}"


def against_anchor(reasons: Iterable[Reason]) -> list[Reason]:
    """Reasons of a comparison with the anchor, marked as such."""
    return [
        replace(one, rule=one.rule.replace(" over champion", " over anchor", 1)) for one in reasons
    ]


def moved_anchors(
    rules: Sequence[GateRule],
    before: Mapping[str, str],
    champion: str | None,
    challenger: str,
    reasons: Sequence[Reason],
    decision: Decision,
) -> dict[str, str]:
    """The anchors once the challenger serves: the digests of models by ``anchor_key``.

    Args:
        before: the anchors that the champion's release names.
        champion: its model; None: there is none, and the challenger is every rule's anchor.
        reasons: the verdict's.
        decision: the verdict's; what does not pass the rules serves only where a person says so,
            and is then what later models are held to.
    """
    anchors = {}
    for rule in rules:
        if not rule.margin:
            continue
        key = anchor_key(rule)
        gained = champion is None or decision != "promote" or _shows_gain(rule, reasons)
        anchors[key] = challenger if gained else before.get(key, champion or challenger)
    return anchors


def _shows_gain(rule: GateRule, reasons: Sequence[Reason]) -> bool:
    by = f" by {rule.by}" if rule.by else ""
    names = {f"{rule.metric} over {over}{by}" for over in ("champion", "anchor")}
    mine = [one.comparison for one in reasons if one.rule in names and one.comparison]
    return bool(mine) and all(found.low > 0 for found in mine)
