"""Looks: many challengers on one evaluation set, and what of the level each of them may spend.

Each comparison alone lets a model that is no better through with probability at most
``(1 - confidence) / 2``; a hundred of them on the same examples add up. With shares of it that
add up to one whole, all of them together keep to it (Bonferroni's inequality), also where later
models were chosen after the earlier ones' verdicts were seen, so long as none was fitted to the
set's answers. Sources: Renggli and others, Continuous Integration of Machine Learning Models with
ease.ml/ci (MLSys 2019); Blum and Hardt, The Ladder (ICML 2015).

With a reserved set it is the openings of that set which add up: only they can let a model through.
So the shares are of them, and the first set is asked at the full level each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule


#: From so many openings of a reserved set on, a verdict warns: of so many equal models that get so
#: far, one is confirmed in 14% of cases (``benchmarks/gate_looks.py``).
MANY_OPENINGS = 10


def is_reserved(rule: GateRule) -> bool:
    """Whether the rule is asked of its reserved set (see ``reserved_rules``)."""
    return rule.confirm is not None and rule.confirm == rule.predictions


def shared(rule: GateRule) -> int | Literal["auto"] | None:
    """Among how many models it shares its level on the set it is asked of; None: it does not."""
    return rule.looks if rule.confirm is None or is_reserved(rule) else None


def at_look(rule: GateRule, place: int) -> GateRule:
    """The rule at the confidence of the ``place``-th model (from 1) on its evaluation set.

    ``looks: K`` gives each of K models the share 1/K of the level, ``looks: auto`` gives the k-th
    the share 1/(k(k + 1)), which add up to 1 however many there will be.
    """
    looks = shared(rule)
    if looks is None:
        return rule
    share = 1 / (place * (place + 1)) if looks == "auto" else 1 / looks
    return rule.model_copy(update={"confidence": 1 - (1 - rule.confidence) * share})


def used_up(rule: GateRule, place: int) -> str:
    """Why the set cannot judge another model, or ""."""
    looks = shared(rule)
    if looks is None or looks == "auto" or place <= looks:
        return ""
    allowed = f"`looks: {looks}` allows {looks}"
    if is_reserved(rule):
        return f"opened for the {ordinal(place)} time, and {allowed}: reserve new examples"
    return f"attempt {place} on this evaluation set, and {allowed}: evaluate on new examples"


def look_note(rules: Sequence[GateRule], place: int) -> str:
    """What a verdict says of the model's place on an evaluation set; "" of the first.

    rules: those over the champion on that set, one or more. One that nothing guards is warned of.
    """
    opened = is_reserved(rules[0])
    if opened:
        text = f"{rules[0].predictions} was opened for the {ordinal(place)} time"
    else:
        text = f"attempt {place} on the evaluation set of {rules[0].predictions}"
    shares = [shared(rule) for rule in rules]
    planned = [looks for looks in shares if isinstance(looks, int)]
    if planned:
        return f"{text}, of {min(planned)}"
    if place == 1:
        return ""
    if opened and place >= MANY_OPENINGS and not all(shares):
        return (
            f"{text}: chance adds up over openings; reserve new examples, or say `looks:` beside "
            "`confirm:`"
        )
    if opened or all(rule.looks or rule.confirm for rule in rules):
        return text
    return f"{text}: chance adds up over attempts; `confirm:` or `looks:` guards against it"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"
