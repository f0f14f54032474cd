"""What the champion's predictions say of an evaluation set before there is a challenger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctflow.config.gate_rules import GateRule
from ctflow.gate.comparison import Paired
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.planning import connor, least_gain
from ctflow.gate.plans import Plan, plan_rule
from ctflow.model import Comparison
from ctflow.report.plan import plan_report
from ctflow.report.text import to_text

KEY = "evaluate.predictions"


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    return Predictions([f"e{i:05}" for i in range(len(named["label"]))], named, Path("p.csv"))


def over(metric: str, **says: Any) -> GateRule:
    return GateRule.model_validate(
        {"metric": metric, "over": "champion", "predictions": KEY} | says
    )


def answers(wrong: int, n: int, **more: Any) -> Predictions:
    return table(label=[0] * n, prediction=[int(i < wrong) for i in range(n)], **more)


SEEN = Comparison("accuracy", 0.9, 0.88, 0.02, -0.01, 0.05, 0.95, "", 500, 0.1, None, 30)


def text(rule: GateRule, p: Predictions) -> str:
    plan = Plan("staging", "sha256:" + "a" * 64, "r-1", 0.8, (plan_rule(rule, p),))
    return to_text(plan_report(plan))


def test_two_guesses_of_how_often_models_differ() -> None:
    plan = plan_rule(over("accuracy"), answers(80, 800))
    assert plan.value == 0.9
    assert plan.best == pytest.approx(0.1)
    five, ten = plan.assumed
    assert five.least == pytest.approx(least_gain(0.05, 800, 0.95))
    assert ten.needed[1] == int(np.ceil(connor(0.1, 0.01, 0.95)))
    # A model that is wrong on 1% does not differ on 5% from one that is as good.
    (rare,) = plan_rule(over("accuracy"), answers(8, 800)).assumed
    assert rare.text == "differ on 2% (a guess)"
    assert rare.needed[-1] is None  # no model gains 0.02 over 0.99
    assert plan_rule(over("accuracy"), answers(0, 800)).missing.startswith(
        "the champion is perfect"
    )


def test_what_the_last_verdict_saw_is_taken_before_a_guess() -> None:
    (one,) = plan_rule(over("accuracy"), answers(80, 800), (SEEN,)).assumed
    assert one.text == "differ on 6% (as last time)"
    assert one.least == pytest.approx(least_gain(0.06, 800, 0.95))
    old = replace(SEEN, differ=None)
    assert len(plan_rule(over("accuracy"), answers(80, 800), (old,)).assumed) == 2


def test_the_plan_foretells_the_interval_of_a_loss() -> None:
    """Two models whose squared errors correlate: the gain that shows is 1.43 half widths."""
    rng = np.random.default_rng(5)
    y, common = rng.normal(0, 1, 900), rng.normal(0, 1, 900)
    ours, theirs = (
        table(label=y, prediction=y + common + rng.normal(0, 0.35, 900)) for _ in range(2)
    )
    found = Paired("mse", ours, theirs).compare(0.95, None, 900)
    half = (found.high - found.low) / 2
    first = plan_rule(over("mse"), theirs).assumed
    (again,) = plan_rule(over("mse"), theirs, (found,)).assumed
    assert again.least == pytest.approx(1.43 * half, rel=0.01)
    assert first[0].least is not None
    assert first[1].least is not None
    assert again.least is not None
    errors = [(p.numbers("prediction") - y) ** 2 for p in (ours, theirs)]
    correlation = float(np.corrcoef(errors)[0, 1])
    assert 0.7 < correlation < 0.9
    assert first[0].least < again.least < first[1].least


def test_more_examples_are_needed_for_a_gain_than_for_a_margin() -> None:
    p = answers(80, 800)
    margin = plan_rule(over("accuracy", margin=0.02), p)
    assert margin.gains == (0.0, 0.005, 0.01)
    gain = plan_rule(over("accuracy", min_gain=0.02), p)
    assert gain.gains == pytest.approx((0.025, 0.03, 0.04))
    assert (gain.assumed[0].needed[0] or 0) > 10 * (margin.assumed[0].needed[0] or 0)


def test_slices_that_are_too_small_are_named() -> None:
    site = ["a"] * 700 + ["b"] * 60 + ["c"] * 40
    wrong = [int(i % 10 == 0) for i in range(700)] + [int(i < 3) for i in range(100)]
    p = table(label=[0] * 800, prediction=wrong, site=site)
    plan = plan_rule(over("accuracy", by="site", min_examples=50), p)
    assert [(one.slice, one.is_small, one.is_judged) for one in plan.slices] == [
        ("a", False, True), ("b", True, True), ("c", False, False),
    ]  # fmt: skip
    shown = text(over("accuracy", by="site", min_examples=50), p)
    assert "too small to show any gain: b (60)" in shown
    assert "smaller than min_examples, so not judged: c (40)" in shown


def test_groups_are_what_is_counted() -> None:
    p = answers(80, 800, who=[i // 4 for i in range(800)])
    plan = plan_rule(over("accuracy", group="who"), p)
    assert plan.groups == 200
    shown = text(over("accuracy", group="who"), p)
    assert "800 examples in 200 groups" in shown
    assert "groups for 0.005" in shown


@pytest.mark.parametrize("metric", ["recall", "f1_macro", "balanced_accuracy", "roc_auc", "brier"])
def test_every_kind_of_metric_has_a_plan(metric: str) -> None:
    rng = np.random.default_rng(7)
    y = rng.integers(0, 2, 400)
    chance = 1 / (1 + np.exp(-((2 * y - 1) * 1.5 + rng.normal(0, 1.2, 400))))
    p = table(label=y, prediction=(chance > 0.5).astype(int), p_1=chance)
    plan = plan_rule(over(metric), p)
    assert len(plan.assumed) == 2
    for one in plan.assumed:
        counts = [count for count in one.needed if count is not None]
        assert counts == sorted(counts, reverse=True)
    # The gain that shows on 400 needs about 400.
    first = plan.assumed[0]
    assert first.least is not None
    needed = zip(first.needed, plan.gains, strict=True)
    near = [count * (gain / first.least) ** 2 for count, gain in needed if count]
    assert near == pytest.approx([400.0] * len(near), rel=0.02)


def test_why_nothing_can_be_said() -> None:
    y = [1] * 20 + [0] * 380
    p = table(label=y, prediction=y, p_1=[0.9] * 20 + [0.1] * 380)
    assert "20 examples of the rarer class" in plan_rule(over("roc_auc"), p).missing
    assert "no column 'site'" in plan_rule(over("accuracy", by="site"), p).missing
    assert "nothing can be said: " in text(over("accuracy", by="site"), p)
