"""Mid-p McNemar: its value, its interval, and its level by enumeration."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from ctflow.config.gate_rules import GateRule
from ctflow.gate.intervals.midp import MOST, mid_p, mid_p_interval, right_wrong
from ctflow.gate.intervals.significance import mcnemar, tango
from tests.unit.test_gate import answers, decide, over

PAIRS = [(0, 0), (1, 0), (5, 0), (3, 9), (9, 3), (40, 22), (25, 25), (300, 240)]


@pytest.mark.parametrize(("better", "worse"), PAIRS)
def test_mid_p_is_the_exact_test_less_half_of_what_was_seen(better: int, worse: int) -> None:
    total, few = better + worse, min(better, worse)
    expected = 2 * stats.binom.cdf(few, total, 0.5) - stats.binom.pmf(few, total, 0.5)
    assert mid_p(better, worse) == pytest.approx(min(1.0, expected), rel=1e-9)
    table = [[100, better], [worse, 100]]
    exact = statsmodels_mcnemar(table, exact=True).pvalue
    assert mcnemar(better, worse) == pytest.approx(exact, rel=1e-9)
    if better != worse:
        assert mid_p(better, worse) == pytest.approx(
            exact - stats.binom.pmf(few, total, 0.5), rel=1e-9
        )


@cache
def least(differ: int, examples_twice: bool, level: float) -> int:
    """The fewest wins of that many differing examples that show a gain."""
    examples = differ if examples_twice else 2 * differ
    low, high = differ // 2, differ + 1
    while high - low > 1:
        middle = (low + high) // 2
        p, *_ = right_wrong(middle, differ - middle, examples, 1 - level)
        low, high = (low, middle) if p < level else (middle, high)
    return high


def level(examples: int, rate: float, alpha: float = 0.05) -> float:
    """How often two equal models that differ at that rate show a gain: no simulation, the sum."""
    total = 0.0
    first, last = stats.binom.interval(1 - 1e-12, examples, rate)
    for differ in range(max(int(first) - 1, 1), min(int(last) + 1, examples) + 1):
        crowded = 2 * differ > examples
        wins = stats.binom.sf(least(differ, crowded, alpha) - 1, differ, 0.5)
        total += stats.binom.pmf(differ, examples, rate) * wins
    return total


@pytest.mark.parametrize("examples", [5, 10, 16, 20, 35, 50, 100, 200, 400, 600])
def test_equal_models_show_a_gain_in_at_most_2_5_percent(examples: int) -> None:
    rates = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.435, 0.45, 0.5, 0.6, 0.8, 1.0)
    assert max(level(examples, rate) for rate in rates) <= 0.025


def test_without_the_exact_test_mid_p_would_exceed_it() -> None:
    """All of 16 examples differ: 3.8%, and 2.5002% of 5,000 with 43%."""
    wins = [k for k in range(9, 17) if mid_p(k, 16 - k) < 0.05]
    assert stats.binom.sf(min(wins) - 1, 16, 0.5) > 0.038
    assert level(16, 1.0) <= 0.025
    assert MOST == 1_000
    p, *_, method = right_wrong(530, 471, 10_000, 0.95)
    assert method.startswith("exact")
    assert p == mcnemar(530, 471)


def test_the_level_of_a_margin_is_about_as_said() -> None:
    """Models that truly lose the margin, on 50 examples: every outcome's chance, added."""
    n, worst = 50, 0.0
    outcomes = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    lows = {
        margin: np.array([right_wrong(b, c, n, 0.95)[1] >= -margin for b, c in outcomes])
        for margin in (0.02, 0.1)
    }
    table = np.array([(b, c, n - b - c) for b, c in outcomes])
    for margin, shown in lows.items():
        for rate in (0.1, 0.3, 0.5, 0.9):
            chances = stats.multinomial.pmf(
                table, n, [(rate - margin) / 2, (rate + margin) / 2, 1 - rate]
            )
            worst = max(worst, float(chances[shown].sum()))
    assert worst <= 0.026


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_interval_excludes_zero_exactly_when_mid_p_is_significant(confidence: float) -> None:
    for total in range(41):
        for better in range(total + 1):
            low, high = mid_p_interval(better, total - better, 100, confidence)
            assert (low > 0 or high < 0) == (mid_p(better, total - better) < 1 - confidence)
            assert low <= (2 * better - total) / 100 <= high


@pytest.mark.parametrize(("better", "worse"), [(3, 9), (12, 0), (0, 7), (40, 22), (24, 23)])
def test_the_interval_is_the_hull_of_tangos_and_mid_ps(better: int, worse: int) -> None:
    total, n = better + worse, 200

    def upper(k: int) -> float:
        if k == total:
            return 1.0
        return float(
            optimize.brentq(
                lambda p: stats.binom.cdf(k, total, p) - stats.binom.pmf(k, total, p) / 2 - 0.025,
                1e-9, 1 - 1e-9, xtol=1e-13,
            )
        )  # fmt: skip

    score = tango(better, worse, n, 0.95)
    low, high = mid_p_interval(better, worse, n, 0.95)
    assert low == pytest.approx(min(score[0], -(2 * upper(worse) - 1) * total / n), abs=1e-9)
    assert high == pytest.approx(max(score[1], (2 * upper(better) - 1) * total / n), abs=1e-9)


def test_five_wins_of_five_show_a_gain_unless_the_rule_asks_for_the_exact_test() -> None:
    models: dict[str, Any] = {"challenger": answers(range(0)), "champion": answers(range(5))}
    verdict = decide(over(), **models)
    assert verdict.decision == "promote"
    found = verdict.reasons[0].comparison
    assert found is not None
    assert found.p_value == pytest.approx(2**-5)
    assert "mid-p" in found.method
    held = decide(over(exact=True), **models)
    assert held.decision == "hold"
    assert held.reasons[0].comparison is not None
    assert held.reasons[0].comparison.p_value == pytest.approx(2**-4)
    assert "exact" in held.reasons[0].comparison.method


@pytest.mark.parametrize(
    "says",
    [
        {"metric": "f1_macro", "over": "champion"},
        {"metric": "accuracy", "over": "champion", "test": "bootstrap"},
        {"metric": "accuracy", "min": 0.5},
        {"metric": "accuracy", "over": "champion", "group": "who"},
    ],
)
def test_exact_where_nothing_is_counted_is_refused(says: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'exact'"):
        GateRule.model_validate({"predictions": "evaluate.predictions", "exact": True, **says})
