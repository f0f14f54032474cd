"""Bounds that the whole interval must keep to, and the intervals of one model's metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from ctflow.config.gate_rules import GateRule
from ctflow.config.policy import rules_digest
from ctflow.config.project import Project
from ctflow.errors import ConfigError
from ctflow.gate import judge
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.intervals.limits import (
    area_interval,
    f1_limits,
    mean_interval,
    mean_of_shares,
    share_interval,
    skewed,
    wilson,
)
from ctflow.gate.intervals.significance import clopper_pearson
from ctflow.gate.single import Single
from ctflow.model import Estimate, Reason, Verdict, dump, from_json

KEY = "evaluate.predictions"


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    return Predictions([f"e{i:05}" for i in range(len(named["label"]))], named, Path("p.csv"))


def right(hits: int, n: int, **more: Any) -> Predictions:
    return table(label=[1] * n, prediction=[int(i < hits) for i in range(n)], **more)


def rule(metric: str = "accuracy", **says: Any) -> GateRule:
    return GateRule.model_validate({"metric": metric, "predictions": KEY, **says})


def decide(
    one: GateRule, predictions: Predictions, metrics: Mapping[str, float] | None = None
) -> Verdict:
    return judge(
        project="p", environment="staging", run="r-1", rules=[one], metrics=metrics or {},
        predictions={KEY: predictions}, champion=None,
    )  # fmt: skip


def estimate(reason: Reason) -> Estimate:
    assert reason.estimate is not None
    return reason.estimate


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (1, 400), (36, 50), (7, 7), (812, 907)])
def test_intervals_of_a_share_are_scipys(hits: int, total: int) -> None:
    for confidence in (0.8, 0.95, 0.999):
        test = stats.binomtest(hits, total)
        for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
            expected = test.proportion_ci(confidence, method=method)
            found = ours(hits, total, confidence)
            assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert share_interval(0, 0, 0.95) == (0, 1)


def test_the_exact_interval_of_a_million_is_scipys() -> None:
    expected = stats.binomtest(700_000, 1_000_000).proportion_ci(0.95, method="exact")
    found = clopper_pearson(700_000, 1_000_000, 0.95)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-8)


def test_no_share_passes_a_bound_that_it_does_not_reach_more_often_than_said() -> None:
    """Wilson's interval alone lets a share of 0.004 pass in 16% of sets of 50."""
    worst = {}
    for n in (20, 50, 200):
        counts = np.arange(n + 1)
        for name, interval in (("hull", share_interval), ("wilson", wilson)):
            lows = np.array([interval(int(k), n, 0.95)[0] for k in counts])
            # The worst case is a model just at a bound that some count just reaches.
            sizes = [stats.binom.sf(k - 1, n, lows[k]) for k in counts[1:]]
            worst[name, n] = max(sizes)
    assert all(size <= 0.025 + 1e-9 for (name, _), size in worst.items() if name == "hull")
    assert worst["wilson", 50] > 0.15


def test_halls_ends_are_where_his_transformation_is_students_t() -> None:
    value, error, skewness, degrees = 0.3, 0.02, 0.4, 60
    low, high = skewed(value, error, skewness * error**3, degrees, 0.95)
    t = stats.t.ppf(0.975, degrees)

    def transformed(truth: float) -> float:
        w = (value - truth) / error
        return w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / 6

    assert transformed(high) == pytest.approx(-t)
    assert low == value - t * error  # of a value that is skewed upwards, Student's is the lower
    assert skewed(value, error, 0.0, degrees, 0.95) == pytest.approx(
        (value - t * error, value + t * error)
    )


def test_a_mean_without_skewness_has_students_interval() -> None:
    values = np.concatenate([np.linspace(-1, 1, 41)])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 40, 0.9) == pytest.approx((expected.low, expected.high))
    assert mean_interval(np.full(9, 2.0), 8, 0.95) == (2.0, 2.0)


def test_one_part_of_mover_keeps_its_limits() -> None:
    assert mean_of_shares([0.7], [(0.6, 0.75)], [1.0]) == pytest.approx((0.6, 0.75))
    low, high = mean_of_shares([0.7, 0.5], [(0.6, 0.75), (0.4, 0.6)], [0.5, 0.5])
    assert low == pytest.approx(0.6 - 0.5 * math.hypot(0.1, 0.1))
    assert high == pytest.approx(0.6 + 0.5 * math.hypot(0.05, 0.1))


def test_the_interval_of_an_area_holds_delongs_and_has_a_width_where_all_is_in_order() -> None:
    rng = np.random.default_rng(4)
    ones, zeros = rng.normal(1, 1, 60), rng.normal(0, 1, 90)
    above = (ones[:, None] > zeros).astype(float)
    low, high = area_interval(above.mean(axis=1), above.mean(axis=0), 0.95)
    variance = above.mean(axis=1).var(ddof=1) / 60 + above.mean(axis=0).var(ddof=1) / 90
    half = stats.norm.ppf(0.975) * math.sqrt(variance)
    assert low < above.mean() - half
    assert high > above.mean() + half
    low, high = area_interval(np.ones(30), np.ones(200), 0.95)
    assert high == 1
    assert 0.88 < low < 0.99


def test_the_score_interval_of_an_area_is_where_the_score_test_turns() -> None:
    """By search on a grid: Hanley and McNeil's variance at the supposed area, Newcombe's sizes."""
    # Half of the positives above all negatives, half above half of them.
    positives, negatives = np.repeat([1.0, 0.6], 200), np.repeat([1.0, 0.6], 200)
    low, _ = area_interval(positives, negatives, 0.95)
    area, n = 0.8, 199.5 * 2 - 0
    grid = np.linspace(0.5, 0.8, 30_001)[:-1]
    n = (400 + 400) / 2 - 1
    variance = grid * (1 - grid) * (1 + n * (1 - grid) / (2 - grid) + n * grid / (1 + grid)) / 160e3
    score = grid[np.argmax((area - grid) / np.sqrt(variance) <= stats.norm.ppf(0.975))]
    assert low <= score + 1e-4


@pytest.mark.parametrize(
    ("hits", "decision", "says"),
    [
        (188, "promote", "accuracy 0.940 (95% CI 0.898 to 0.969), shown to be >= 0.80"),
        (166, "hold", "accuracy 0.830 (95% CI 0.771 to 0.879), not shown to be >= 0.80"),
        (140, "reject", "accuracy 0.700 (95% CI 0.631 to 0.763), shown to be < 0.80"),
    ],
)
def test_a_bound_with_confidence_asks_for_the_whole_interval(
    hits: int, decision: str, says: str
) -> None:
    verdict = decide(rule(min=0.8, confidence=0.95), right(hits, 200))
    assert verdict.decision == decision
    assert verdict.reasons[0].text == says
    found = estimate(verdict.reasons[0])
    assert found.value == hits / 200
    assert (found.low, found.high) == share_interval(hits, 200, 0.95)
    assert from_json(Verdict, from_dump(verdict)) == verdict


def from_dump(verdict: Verdict) -> Any:
    import json

    return json.loads(dump(verdict))


def test_both_bounds_and_a_greatest_one() -> None:
    p = right(188, 200)
    both = decide(rule(min=0.85, max=0.95, confidence=0.95), p)
    assert both.decision == "hold"
    assert both.reasons[0].text.endswith("shown to be >= 0.85 and not shown to be <= 0.95")
    for bound, decision in ((0.11, "promote"), (0.07, "hold"), (0.03, "reject")):
        assert decide(rule("error_rate", max=bound, confidence=0.95), p).decision == decision


def test_a_point_bound_stays_one_and_says_its_interval() -> None:
    p = right(166, 200)
    verdict = decide(rule(min=0.8), p, {"accuracy": 0.83})
    assert verdict.decision == "promote"
    assert verdict.reasons[0].text == "accuracy 0.830 >= 0.80 (95% CI 0.771 to 0.879)"
    custom = decide(rule("profit", min=0.8), p, {"profit": 1.0})
    assert custom.reasons[0].text == "profit 1.000 >= 0.80"
    assert custom.reasons[0].estimate is None


def test_what_a_confidence_needs_is_said_before_any_training() -> None:
    with pytest.raises(ValidationError, match=r"needs 'predictions: task\.output'"):
        GateRule.model_validate({"metric": "accuracy", "min": 0.8, "confidence": 0.95})
    with pytest.raises(ConfigError, match="cannot be computed") as error:
        decide(rule("profit", min=0.8, confidence=0.95), right(9, 10), {"profit": 1.0})
    assert "accuracy" in (error.value.next or "")
    with pytest.raises(ValidationError, match="bound with 'confidence'"):
        rule(min=0.8, group="patient")
    with pytest.raises(ConfigError, match="'group' does not go with recall_weighted"):
        decide(
            rule("recall_weighted", min=0.8, confidence=0.95, group="who"),
            right(9, 10, who=range(10)),
        )


def test_a_run_need_not_report_what_its_predictions_give() -> None:
    assert decide(rule(min=0.8, confidence=0.95), right(199, 200)).decision == "promote"
    lies = decide(rule(min=0.8, confidence=0.95), right(199, 200), {"accuracy": 0.9})
    assert lies.decision == "reject"


def test_leaving_the_confidence_out_is_another_rule() -> None:
    def digest(**says: Any) -> str:
        gate = [{"metric": "accuracy", "min": 0.8, "predictions": KEY, **says}]
        return rules_digest(
            Project.model_validate(
                {"project": "p", "pipeline": "p.py:p", "gate": gate,
                 "model": {"artifact": "train.model", "format": "sklearn"}}
            )
        )  # fmt: skip

    assert digest() != digest(confidence=0.95)
    assert digest(confidence=0.95) != digest(confidence=0.9)


def test_each_slice_must_be_sure() -> None:
    p = right(385, 400, site=["a"] * 40 + ["b"] * 360)
    says: dict[str, Any] = {"min": 0.9, "by": "site", "confidence": 0.95}
    verdict = decide(rule(**says), p)
    assert [one.decision for one in verdict.reasons] == ["promote", "promote"]
    small = right(385, 400, site=["b"] * 380 + ["a"] * 20)
    verdict = decide(rule(**says), small)
    assert {one.slice: one.decision for one in verdict.reasons} == {"a": "reject", "b": "promote"}
    own = {"a": {"min": 0.1}}
    verdict = decide(rule(**says, slices=own), small)
    assert {one.slice: one.decision for one in verdict.reasons} == {"a": "hold", "b": "promote"}


def test_a_slice_that_is_low_by_chance_among_many_is_held() -> None:
    """20 slices at 0.8; one with 10 of 20 right is below 0.75 by itself, not among so many."""
    sites, hits = [], []
    for site in range(20):
        sites += [f"s{site:02}"] * 20
        count = 10 if site == 7 else 20
        hits += [int(i < count) for i in range(20)]
    p = table(label=[1] * 400, prediction=hits, site=sites)
    verdict = decide(rule(min=0.75, by="site", confidence=0.95), p)
    low = next(one for one in verdict.reasons if one.slice == "s07")
    assert estimate(low).high < 0.75
    assert low.decision == "hold"
    assert low.text.endswith("which may be chance among 20 slices")


def test_rows_of_one_group_claim_no_more_than_the_group() -> None:
    rng = np.random.default_rng(8)
    chances = np.repeat(rng.beta(9, 1, 60), 10)
    p = table(
        label=[1] * 600,
        prediction=(rng.random(600) < chances).astype(int),
        who=np.repeat(np.arange(60), 10),
    )
    alone = estimate(decide(rule(min=0.5, confidence=0.95), p).reasons[0])
    reason = decide(rule(min=0.5, confidence=0.95, group="who"), p).reasons[0]
    grouped = estimate(reason)
    assert grouped.groups == 60
    assert "60 groups" in reason.text
    means = p_means(p)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    # Of groups of one size: Student's t over their means, or wider where they are skewed.
    assert grouped.low <= expected.low + 1e-9
    assert grouped.high >= expected.low
    assert grouped.high - grouped.low > 1.3 * (alone.high - alone.low)
    few = right(600, 600, who=np.repeat(np.arange(60), 10))
    held = decide(rule(min=0.97, confidence=0.95, group="who"), few)
    assert held.decision == "hold"  # as if there were 60 examples
    assert decide(rule(min=0.9, confidence=0.95, group="who"), few).decision == "promote"


def p_means(p: Predictions) -> Any:
    return np.array([float(x) for x in p.columns["prediction"]]).reshape(60, 10).mean(axis=1)


def test_an_area_with_few_of_a_class_is_held_and_one_in_perfect_order_is_not_certain() -> None:
    y = [1] * 20 + [0] * 200
    few = table(label=y, prediction=y, p_1=y)
    verdict = decide(rule("roc_auc", min=0.8, confidence=0.95), few)
    assert verdict.decision == "hold"
    assert "20 examples of the rarer class" in verdict.reasons[0].text
    y = [1] * 40 + [0] * 200
    many = table(label=y, prediction=y, p_1=y)
    assert decide(rule("roc_auc", min=0.85, confidence=0.95), many).decision == "promote"
    assert decide(rule("roc_auc", min=0.99, confidence=0.95), many).decision == "hold"


def test_losses_have_intervals() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(0, 1, 300)
    p = table(label=y, prediction=y + rng.normal(0, 1, 300))
    mse = Single("mse", p).estimate(0.95, None, 300)
    rmse = Single("rmse", p).estimate(0.95, None, 300)
    assert (rmse.value, rmse.low, rmse.high) == pytest.approx(
        tuple(math.sqrt(x) for x in (mse.value, mse.low, mse.high))
    )
    errors = (p.numbers("prediction") - p.numbers("label")) ** 2
    assert mse.value == pytest.approx(errors.mean())
    assert mse.low < errors.mean() < mse.high
    assert decide(rule("mse", max=2.0, confidence=0.95), p).decision == "promote"
    # As good as it gets: what was never seen may still be there.
    same = table(label=y, prediction=[*y[:-1], y[-1] + 3])
    mae = Single("mae", same).estimate(0.95, None, 300)
    assert mae.low == 0
    assert mae.high > 3 * 1 / 300
    tiny = table(label=y[:4], prediction=y[:4] + 1)
    assert decide(rule("mae", max=9.0, confidence=0.95), tiny).decision == "hold"


def test_a_disaster_is_imagined_where_there_are_many_examples() -> None:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 1200)
    p = table(label=y, prediction=y, p_1=np.clip(y * 0.98 + 0.01 + rng.normal(0, 2e-3, 1200), 0, 1))
    found = Single("brier", p).estimate(0.95, None, 1200)
    assert "imagined disaster" in found.method
    assert found.high - found.value > 1 / 1201


@pytest.mark.parametrize(
    ("metric", "share"),
    [("recall_1", 36 / 40), ("precision_1", 36 / 42), ("recall_weighted", 90 / 100)],
)
def test_a_class_has_the_interval_of_its_share(metric: str, share: float) -> None:
    y = [1] * 40 + [0] * 60
    answers = [1] * 36 + [0] * 4 + [1] * 6 + [0] * 54
    found = Single(metric, table(label=y, prediction=answers)).estimate(0.95, None, 100)
    total = {"recall_1": 40, "precision_1": 42, "recall_weighted": 100}[metric]
    assert found.value == pytest.approx(share)
    assert (found.low, found.high) == share_interval(round(share * total), total, 0.95)


def test_f1_is_a_function_of_a_share() -> None:
    y = [1] * 40 + [0] * 60
    answers = [1] * 36 + [0] * 4 + [1] * 6 + [0] * 54
    p = table(label=y, prediction=answers)
    found = Single("f1_1", p).estimate(0.95, None, 100)
    assert found.value == pytest.approx(2 * 36 / (40 + 42))
    assert (found.low, found.high) == f1_limits(share_interval(36, 46, 0.95))
    macro = Single("f1_macro", p).estimate(0.95, None, 100)
    assert macro.low < macro.value < macro.high
    assert "bootstrap" in macro.method
    balanced = Single("balanced_accuracy", p).estimate(0.95, None, 100)
    parts = [share_interval(36, 40, 0.95), share_interval(54, 60, 0.95)]
    assert (balanced.low, balanced.high) == pytest.approx(
        mean_of_shares([0.9, 0.9], parts, [0.5, 0.5])
    )
