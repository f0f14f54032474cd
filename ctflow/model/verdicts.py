"""What the gate leaves: a verdict, its reasons, and the figures in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import ClassVar, Literal

from ctflow.lib.quick import dataclass

Decision = Literal["promote", "hold", "reject"]


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same examples. ``gain`` is positive when better.

    ``groups`` is the number of groups of examples, where the rule has ``group``; ``differ`` that of
    the examples on which the two differ in what the metric sees.
    """

    metric: str
    challenger: float
    champion: float
    gain: float
    low: float
    high: float
    confidence: float
    method: str
    examples: int
    p_value: float | None = None
    groups: int | None = None
    differ: int | None = None


@dataclass(frozen=True)
class Estimate:
    """One model's metric, and the interval that says what it may be on all examples there are.

    ``groups`` as in ``Comparison``.
    """

    metric: str
    value: float
    low: float
    high: float
    confidence: float
    method: str
    examples: int
    groups: int | None = None


@dataclass(frozen=True)
class Reason:
    """One rule's answer. ``text`` is plain text for people, with the figures in it.

    A rule over the champion has a ``comparison``; a bound has an ``estimate``, where predictions
    give one.
    """

    rule: str
    decision: Decision
    text: str
    slice: str = ""
    comparison: Comparison | None = None
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Override:
    """A person let it through against the rules."""

    reason: str
    by: str


#: The rule of the only reason of a verdict on what serves already.
SAME = "champion"


@dataclass(frozen=True)
class Verdict:
    """What the gate leaves."""

    kind: ClassVar[str] = "verdict"
    project: str
    environment: str
    run: str
    decision: Decision
    reasons: tuple[Reason, ...]
    champion: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    evaluation_set: str = ""
    examples: int = 0
    #: The evaluation sets by the ``task.output`` of the predictions that answer them.
    evaluated: dict[str, str] = field(default_factory=dict)
    #: The models that each evaluation set has compared with a champion, this one the last.
    looks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: The models that the rules' margins will count from once this one serves, by rule.
    anchors: dict[str, str] = field(default_factory=dict)
    #: The functions of the project that were asked -> the digests of the steps' images they are of.
    functions: dict[str, str] = field(default_factory=dict)
    override: Override | None = None
    notes: tuple[str, ...] = ()
    #: The digest of the rules that judged (``ctflow.config.policy``), of the serving code whose
    #: golden requests were answered, and of the champion's serving code; empty: not known.
    rules: str = ""
    serving: str = ""
    champion_serving: str = ""
    #: In what these rules are not the default branch's; empty: they are.
    trial: str = ""

    @property
    def serves_already(self) -> bool:
        """Whether this very model serves there, as it would be served: nothing is to be done."""
        return [reason.rule for reason in self.reasons] == [SAME]

    @property
    def passes(self) -> bool:
        """Whether the challenger may be proposed."""
        return self.decision == "promote" or self.override is not None


_FROM_WORST: tuple[Decision, ...] = ("reject", "hold", "promote")


def worst(decisions: Iterable[Decision]) -> Decision:
    """The worst of one decision or more: that of the verdict they belong to."""
    return min(decisions, key=_FROM_WORST.index)


def deciding_first(verdict: Verdict) -> tuple[Reason, ...]:
    """The verdict's reasons, the worst first, else in the rules' order."""
    return tuple(sorted(verdict.reasons, key=lambda reason: _FROM_WORST.index(reason.decision)))
