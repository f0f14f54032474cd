"""Fairness: how far apart the metric of two slices may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from statsmodels.stats.proportion import confint_proportions_2indep

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError
from ctflow.gate import judge
from ctflow.gate.between import _Pair, _pairs
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.intervals.limits import wilson
from ctflow.model import Estimate, Reason

KEY = "evaluate.predictions"


def people(**rights: tuple[int, int]) -> Predictions:
    """Examples of each slice: (how many are right, of how many)."""
    rows = [(name, int(i < right)) for name, (right, total) in rights.items() for i in range(total)]
    columns = {
        "label": ["1"] * len(rows),
        "prediction": [str(right) for _, right in rows],
        "sex": [name for name, _ in rows],
    }
    return Predictions([f"e{i:05}" for i in range(len(rows))], columns, Path("p.csv"))


def rule(**says: Any) -> GateRule:
    return GateRule.model_validate(
        {"metric": "accuracy", "between": "sex", "max": 0.05, "predictions": KEY, **says}
    )


def decide(one: GateRule, p: Predictions, **metrics: float) -> Reason:
    verdict = judge(
        project="p", environment="staging", run="r-1", rules=[one], metrics=metrics,
        predictions={KEY: p}, champion=None,
    )  # fmt: skip
    (found,) = verdict.reasons
    return found


def test_a_bound_compares_the_figures() -> None:
    found = decide(rule(), people(f=(90, 100), m=(86, 100)))
    assert found.decision == "promote"
    assert found.rule == "accuracy between sex"
    assert found.text.startswith(
        "accuracy 0.900 (f) and 0.860 (m): 0.040 apart <= 0.05 (95% CI -0."
    )
    found = decide(rule(), people(m=(90, 100), f=(80, 100), x=(85, 100)))
    assert found.decision == "reject"
    assert "0.900 (m) and 0.800 (f): 0.100 apart > 0.05" in found.text


def test_with_a_confidence_the_whole_interval_must_be_within() -> None:
    sure = rule(confidence=0.95)
    assert decide(sure, people(f=(90, 100), m=(86, 100))).decision == "hold"
    found = decide(sure, people(f=(9000, 10000), m=(8800, 10000)))
    assert found.decision == "promote"
    assert "shown to be <= 0.05" in found.text
    found = decide(sure, people(f=(900, 1000), m=(700, 1000)))
    assert found.decision == "reject"
    assert "shown to be > 0.05" in found.text
    # Few examples could hide any difference, whichever of the two is above.
    assert decide(sure, people(f=(3, 3), m=(9000, 9000))).decision == "hold"


def test_among_many_pairs_one_is_far_apart_by_chance() -> None:
    two = {"a": (900, 1000), "b": (810, 1000)}
    sure = rule(confidence=0.95)
    assert decide(sure, people(**two)).decision == "reject"
    many = people(**two, **{f"c{i}": (855, 1000) for i in range(40)})
    found = decide(sure, many)
    assert found.decision == "hold"
    assert "which may be chance among 861 pairs" in found.text


def test_any_pair_may_be_the_one_that_is_shown() -> None:
    """Few examples look farthest apart, and do not hold at the stricter level; many do."""
    p = people(a=(10, 10), b=(3, 10), c=(9000, 10000), d=(7000, 10000))
    found = decide(rule(confidence=0.95, max=0.18), p)
    assert found.decision == "reject"
    assert "0.900 (c) and 0.700 (d): 0.200 apart" in found.text


def test_the_interval_of_two_shares_is_newcombes() -> None:
    for (x, n), (y, m) in (((90, 100), (86, 100)), ((9, 20), (150, 400)), ((30, 30), (20, 31))):
        found = {}
        for name, hits, total in (("f", x, n), ("m", y, m)):
            low, high = wilson(hits, total, 0.95)
            found[name] = Estimate("a", hits / total, low, high, 0.95, "", total)
        (pair,) = _pairs(found)
        expected = confint_proportions_2indep(x, n, y, m, method="newcomb", compare="diff")
        assert (pair.low, pair.high) == pytest.approx(expected)
        assert pair.most == max(pair.high, -pair.low)


def test_the_level_at_the_limit() -> None:
    """Two slices that are truly as far apart as is allowed: shown to be nearer in 2.5% at most."""
    rng = np.random.default_rng(3)
    sure = rule(confidence=0.95, max=0.10)
    passed = 0
    for _ in range(400):
        hits = rng.binomial(400, 0.9), rng.binomial(300, 0.8)
        passed += decide(sure, people(f=(hits[0], 400), m=(hits[1], 300))).decision == "promote"
    assert passed / 400 < 0.025 + 3 * 0.008


def test_small_slices_are_not_judged() -> None:
    p = people(f=(90, 100), m=(86, 100), x=(0, 4))
    assert decide(rule(min_examples=10), p).decision == "promote"
    found = decide(rule(min_examples=200), p)
    assert found.decision == "reject"
    assert found.text == "there are no two slices by sex of 200 examples"


def test_what_is_undefined_in_a_slice_is_rejected() -> None:
    found = decide(rule(metric="recall_1"), people(f=(9, 10), m=(8, 10)))
    assert found.decision == "reject"  # 0.1 apart
    p = people(f=(9, 10), m=(8, 10))
    labels = ["1"] * 10 + ["0"] * 10
    p = Predictions(p.ids, {**p.columns, "label": labels}, p.path)
    found = decide(rule(metric="recall_1"), p)
    assert found.decision == "reject"
    assert found.text == "recall_1 is undefined for sex=m"


def test_a_report_must_be_true() -> None:
    p = people(f=(90, 100), m=(86, 100))
    assert decide(rule(), p, accuracy=0.88).decision == "promote"
    assert decide(rule(), p, accuracy=0.99).decision == "reject"


def test_metrics_of_ones_own() -> None:
    p = people(f=(90, 100), m=(86, 100))
    own = rule(metric="profit", of={"cost": {"1": {"0": 10}}}, max=1)
    assert "profit 1.400 (m) and 1.000 (f): 0.400 apart <= 1.00" in decide(own, p).text


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no column 'age' to slice by"):
        decide(rule(between="age"), people(f=(9, 10), m=(8, 10)))


@pytest.mark.parametrize(
    "says",
    [{"over": "champion"}, {"by": "site"}, {"min": 0.01}, {"max": None}, {"group": "patient"},
     {"max": -1}, {"predictions": None}],
)  # fmt: skip
def test_rules_that_would_be_a_mistake(says: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"between|slices are at least|needs 'min'"):
        rule(**says)


def test_a_pair_is_as_far_apart_as_either_end() -> None:
    assert _Pair(("a", "b"), (0.9, 0.9), -0.3, 0.1).most == 0.3
