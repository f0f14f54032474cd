"""McNemar, its interval and the bootstrap, against scipy and against their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from ctflow.gate.intervals.significance import (
    bootstrap_cells,
    bootstrap_rows,
    least_informative,
    mcnemar,
    percentile_interval,
    resamples,
    right_wrong_interval,
    tango,
    unseen,
)


@pytest.mark.parametrize(
    ("better", "worse"),
    [(0, 0), (1, 0), (5, 0), (6, 0), (3, 9), (40, 22), (700, 640), (9000, 8600)],
)
def test_mcnemar_is_the_two_sided_binomial_test(better: int, worse: int) -> None:
    total = better + worse
    expected = stats.binomtest(better, total, 0.5).pvalue if total else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-8)
    assert mcnemar(worse, better) == mcnemar(better, worse)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_the_interval_excludes_zero_exactly_when_the_test_is_significant(confidence: float) -> None:
    for total in range(41):
        for better in range(total + 1):
            low, high = right_wrong_interval(better, total - better, 100, confidence)
            significant = mcnemar(better, total - better) < 1 - confidence
            assert (low > 0 or high < 0) == significant


@pytest.mark.parametrize(("better", "worse"), [(3, 9), (12, 0), (40, 22)])
def test_the_interval_holds_the_exact_one_and_the_score_one(better: int, worse: int) -> None:
    total, examples = better + worse, 200
    low, high = right_wrong_interval(better, worse, examples, 0.95)
    exact = stats.binomtest(better, total).proportion_ci(0.95, method="exact")
    assert low <= (2 * exact.low - 1) * total / examples + 1e-12
    assert high >= (2 * exact.high - 1) * total / examples - 1e-12
    assert low <= (better - worse) / examples <= high


@pytest.mark.parametrize(("better", "worse", "examples"), [(1, 0, 44), (5, 4, 60), (30, 20, 400)])
def test_the_score_interval_is_where_the_score_test_turns(
    better: int, worse: int, examples: int
) -> None:
    """At its ends, the score statistic under the fitted null (by search, not formula) is z."""

    def score(limit: float) -> float:
        def unlikely(rate: float) -> float:
            shares = np.array([rate + limit, rate, 1 - 2 * rate - limit])
            counts = np.array([better, worse, examples - better - worse])
            return -float((counts * np.log(np.maximum(shares, 1e-300))).sum())

        bounds = (max(0.0, -limit), (1 - limit) / 2)
        rate = optimize.minimize_scalar(
            unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}
        ).x
        variance = (2 * rate + limit - limit**2) / examples
        return float(((better - worse) / examples - limit) / np.sqrt(variance))

    low, high = tango(better, worse, examples, 0.95)
    assert score(low) == pytest.approx(1.959964, abs=1e-3)
    assert score(high) == pytest.approx(-1.959964, abs=1e-3)


def test_no_difference_has_the_score_bound_of_a_zero_rate() -> None:
    low, high = right_wrong_interval(0, 0, 100, 0.95)
    assert high == pytest.approx(1.959964**2 / (100 + 1.959964**2), rel=1e-5)
    assert low == pytest.approx(-high, rel=1e-9)
    assert unseen(0, 100, 0.95) == pytest.approx(high, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_swapping_the_models_mirrors_the_interval(better: int, worse: int, same: int) -> None:
    examples = better + worse + same
    if examples == 0:
        return
    low, high = right_wrong_interval(better, worse, examples, 0.95)
    mirrored = right_wrong_interval(worse, better, examples, 0.95)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_the_exact_interval_covers_the_true_gain() -> None:
    rng = np.random.default_rng(5)
    drawn = rng.multinomial(150, [0.08, 0.04, 0.88], size=1500)
    covered = 0
    for better, worse, _ in drawn.tolist():
        low, high = right_wrong_interval(better, worse, 150, 0.9)
        covered += low <= 0.04 <= high
    assert covered / 1500 > 0.88


def test_bootstrap_agrees_with_scipys() -> None:
    rng = np.random.default_rng(1)
    gains = rng.normal(0.1, 1.0, 300)
    ours = bootstrap_rows(300, lambda rows: gains[rows].mean(axis=1), 4000, rng)
    low, high = percentile_interval(ours, 300, 0.95)
    theirs = stats.bootstrap((gains,), np.mean, n_resamples=4000, method="percentile", rng=2)
    width = high - low
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.08 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.08 * width)


def test_resampling_cells_is_resampling_rows() -> None:
    values = np.repeat([0.0, 1.0, 3.0], [50, 30, 20])
    counts, levels = np.array([50, 30, 20]), np.array([0.0, 1.0, 3.0])
    by_cell = bootstrap_cells(counts, lambda c: c @ levels / 100, 4000, np.random.default_rng(0))
    by_row = bootstrap_rows(
        100, lambda rows: values[rows].mean(axis=1), 4000, np.random.default_rng(0)
    )
    assert by_cell.mean() == pytest.approx(by_row.mean(), abs=0.01)
    assert by_cell.std() == pytest.approx(by_row.std(), rel=0.06)


@pytest.mark.parametrize("size", [1, 3, 100_001])
def test_chunks_add_up_to_the_asked_resamples(size: int) -> None:
    drawn = bootstrap_rows(size, lambda rows: rows.mean(axis=1), 41, np.random.default_rng(0))
    assert drawn.shape == (41,)


def test_a_sign_test_can_reach_the_level_with_the_least_informative() -> None:
    for confidence in (0.8, 0.9, 0.95, 0.99, 0.999):
        least = least_informative(confidence)
        assert mcnemar(least, 0) < 1 - confidence
        assert mcnemar(least - 1, 0) >= 1 - confidence


def test_fewer_informative_examples_widen_the_interval() -> None:
    gains = np.random.default_rng(0).normal(size=4000)
    few, many = (percentile_interval(gains, m, 0.95) for m in (6, 6000))
    assert few[0] < many[0]
    assert many[1] < few[1]
    assert many == pytest.approx((-1.96, 1.96), abs=0.12)


def test_undefined_resamples_count_as_the_worst() -> None:
    gains = np.ones(1000)
    gains[:100] = np.nan
    assert percentile_interval(gains, 100, 0.95) == (-np.inf, np.inf)


def test_high_confidence_gets_more_resamples() -> None:
    assert resamples(100, 0.95) >= 2000
    assert resamples(1_000_000, 0.95) >= 2000
    assert resamples(100, 0.999) * 0.0005 >= 20 - 1e-9
