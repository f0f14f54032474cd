"""Metrics of a project's own: columns, costs, and what a rule may say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from ctflow.config.gate_metric import MetricOf
from ctflow.config.gate_rules import GateRule
from ctflow.config.project import Project
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.metrics import quantiles
from ctflow.gate.metrics.custom import Sums, custom_measure
from ctflow.gate.metrics.measures import Means, Ratios
from ctflow.gate.metrics.quantiles import Quantiles
from ctflow.gate.plans import plan_rule
from ctflow.model import Verdict

KEY = "evaluate.predictions"
COSTS = {"fraud": {"ok": 100.0}, "ok": {"fraud": 5.0}}
RNG = np.random.default_rng(7)


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    n = len(next(iter(named.values())))
    named = {"label": ["0"] * n, "prediction": ["0"] * n, **named}
    return Predictions([f"e{i:05}" for i in range(n)], named, Path("p.csv"))


def of(**says: Any) -> MetricOf:
    return MetricOf.model_validate(says)


def rule(metric: str = "profit", **says: Any) -> GateRule:
    return GateRule.model_validate({"metric": metric, "predictions": KEY, **says})


def over(metric: str = "profit", **says: Any) -> GateRule:
    return rule(metric, **{"over": "champion", "better": "higher", **says})


def decide(
    one: GateRule,
    ours: Predictions,
    theirs: Predictions | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Verdict:
    champion = None if theirs is None else Champion("sha256:old", {}, {KEY: theirs})
    return judge(
        project="p", environment="staging", run="r-1", rules=[one], metrics=metrics or {},
        predictions={KEY: ours}, champion=champion,
    )  # fmt: skip


def text(verdict: Verdict) -> str:
    return verdict.reasons[0].text


def fraud(missed: int, alarms: int, n: int = 400) -> Predictions:
    """40 frauds; the first ``missed`` are let through, and ``alarms`` others held up."""
    label = ["fraud"] * 40 + ["ok"] * (n - 40)
    answer = ["ok"] * missed + ["fraud"] * (40 - missed + alarms) + ["ok"] * (n - 40 - alarms)
    return table(label=label, prediction=answer)


# -- values -------------------------------------------------------------------------------------


def test_means_sums_and_ratios() -> None:
    gain, size = RNG.normal(0, 1, 90), RNG.exponential(1, 90)
    models = [table(gain=gain, size=size), table(gain=gain[::-1], size=size)]
    rows = np.arange(0, 90, 3)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"mean": "gain"}, lambda a, b: a.mean()),
        ({"sum": "gain"}, lambda a, b: a.sum()),
        ({"ratio": ["gain", "size"]}, lambda a, b: a.sum() / b.sum()),
    ]
    for says, expected in cases:
        measured = custom_measure(of(**says), models)
        for some in (None, rows):
            pick = slice(None) if some is None else some
            found = measured.values(some)
            assert found[0] == pytest.approx(expected(gain[pick], size[pick]))
            assert found[1] == pytest.approx(expected(gain[::-1][pick], size[pick]))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.95])
def test_a_quantile_and_its_interval_are_scipys(at: float) -> None:
    values: Any = RNG.exponential(1, 301)
    measured = Quantiles([values], at)
    expected = stats.quantile_test(values, p=at).confidence_interval(0.95)
    assert measured.values()[0] == np.quantile(values, at, method="inverted_cdf")
    assert measured.limits(None, 0, 0.95) == pytest.approx((expected.low, expected.high))


def test_a_quantile_of_few_has_no_interval() -> None:
    assert Quantiles([np.zeros(10)], 0.99).limits(None, 0, 0.95)[1] == math.inf
    assert Quantiles([np.zeros(50)], 0.9).flaw(None) == ""  # five of them
    few = {"wait": RNG.exponential(1, 60)}
    one = over("p95", of={"quantile": "wait", "at": 0.95}, better="lower")
    verdict = decide(one, table(wait=few["wait"] * 0.5), table(**few))
    assert verdict.decision == "hold"
    assert "3 of 60 examples lie beyond the quantile, fewer than 5" in text(verdict)


@pytest.mark.parametrize("values", ["continuous", "tied"])
def test_quantiles_of_many_are_resampled_as_those_of_few(
    values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells that stand for examples far away change neither the middle nor the spread."""
    rng = np.random.default_rng(11)  # whatever tests ran before, and took of RNG
    base = rng.normal(0, 1, 3_000)
    columns: list[Any] = [base + rng.normal(0, 0.3, 3_000) for _ in range(2)]
    if values == "tied":
        columns = [np.round(column, 1) for column in columns]
    drawn = []
    for many in (10_000, 100):
        monkeypatch.setattr(quantiles, "MANY", many)
        measured = Quantiles(columns, 0.8)
        drawn.append(measured.resample(None, 4_000, np.random.default_rng(1)))
    (rows, cells) = drawn
    assert cells.mean(axis=0) == pytest.approx(rows.mean(axis=0), abs=0.003)
    assert np.cov(cells.T) == pytest.approx(np.cov(rows.T), rel=0.12, abs=1e-4)


def test_a_ratios_parts_are_its_derivatives() -> None:
    """Each example's part is what the ratio would move by, were it weighted a little more."""
    upper, lower = RNG.normal(1, 1, 30), RNG.exponential(1, 30)
    parts = Ratios([np.stack([upper, lower])]).linear(None)[0]
    value = upper.sum() / lower.sum()
    assert parts.mean() == pytest.approx(value)
    weights = np.ones(30)
    weights[4] += 1e-6
    moved = (weights * upper).sum() / (weights * lower).sum()
    assert (moved - value) / 1e-6 * 30 == pytest.approx(parts[4] - value, rel=1e-4)


def test_a_sum_scales_with_its_slice() -> None:
    gain = RNG.normal(3, 1, 100)
    sums = Sums([gain[None, :]])
    rows = np.arange(40)
    assert sums.linear(rows)[0].mean() == pytest.approx(gain[:40].sum())
    drawn = sums.resample(rows, 500, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(gain[:40].sum(), rel=0.02)


def test_costs_by_label_and_answer() -> None:
    measured = custom_measure(of(cost=COSTS), [fraud(3, 20)])
    assert measured.values()[0] == pytest.approx((3 * 100 + 20 * 5) / 400)
    assert isinstance(measured, Means)
    assert measured.worst(None) == 100
    gains = of(cost={"fraud": {"fraud": -20.0}}, otherwise=1.0)
    assert custom_measure(gains, [fraud(3, 20)]).values()[0] == pytest.approx(
        (37 * -20 + 3 + 20) / 400
    )
    assert gains.is_nonnegative is False
    assert of(cost=COSTS).is_nonnegative


def test_an_answer_without_a_cost_is_named() -> None:
    with pytest.raises(ConfigError, match="label 'ok' answered 'fraud'; add it under 'cost'"):
        custom_measure(of(cost={"fraud": {"ok": 1}}), [fraud(3, 20)])
    with pytest.raises(
        ConfigError, match=r"no label under 'cost' occurs; the labels are fraud, ok"
    ):
        custom_measure(of(cost={"Fraud": {"ok": 1}}, otherwise=1), [fraud(3, 20)])
    with pytest.raises(ConfigError, match="same label and prediction twice"):
        custom_measure(of(cost={"1": {"0": 1}, "1.0": {"0": 2}}), [fraud(3, 20)])


# -- verdicts -----------------------------------------------------------------------------------


def test_a_cheaper_model_is_promoted_and_a_dearer_one_rejected() -> None:
    """Lower is better without a word: it makes fewer right, and costs less."""
    cheap, dear = fraud(2, 30), fraud(20, 0)
    one = rule("cost", over="champion", of={"cost": COSTS})
    assert decide(one, cheap, dear).decision == "promote"
    assert "lower, so better, than the champion's" in text(decide(one, cheap, dear))
    assert decide(one, dear, cheap).decision == "reject"
    assert decide(one, cheap, cheap).decision == "hold"


@pytest.mark.parametrize(
    "says",
    [
        {"mean": "gain"},
        {"sum": "gain"},
        {"ratio": ["gain", "size"]},
        {"quantile": "gain", "at": 0.5},
    ],
)
def test_more_is_better_where_the_rule_says_so(says: dict[str, Any]) -> None:
    gain, size = RNG.normal(0, 1, 300), RNG.exponential(1, 300) + 1
    more, less = table(gain=gain + 1, size=size), table(gain=gain, size=size)
    assert decide(over(of=says), more, less).decision == "promote"
    assert decide(over(of=says), less, more).decision == "reject"
    assert decide(over(of=says, better="lower"), less, more).decision == "promote"
    margin = 30 if "sum" in says else 0.1
    same = decide(over(of=says, margin=margin), less, less)
    assert same.decision == "promote", text(same)


def test_a_bound_of_an_own_metric_needs_no_report() -> None:
    p = table(gain=RNG.normal(1, 1, 200), site=["a", "b"] * 100)
    mean = float(p.numbers("gain").mean())
    assert decide(rule(of={"mean": "gain"}, min=0.5), p).decision == "promote"
    assert decide(rule(of={"mean": "gain"}, min=2), p).decision == "reject"
    sure = rule(of={"mean": "gain"}, min=mean - 0.01, confidence=0.95)
    assert decide(sure, p).decision == "hold"
    by = decide(rule(of={"sum": "gain"}, min=50, by="site"), p)
    assert [one.slice for one in by.reasons] == ["a", "b"]
    grouped = rule(of={"mean": "gain"}, min=0.1, confidence=0.95, group="site")
    assert "2 groups" in text(decide(grouped, p))


def test_a_report_of_an_own_metric_must_be_true() -> None:
    p = table(gain=[1.0] * 50 + [0.0] * 50)
    one = rule(of={"mean": "gain"}, min=0.4)
    assert decide(one, p, metrics={"profit": 0.5}).decision == "promote"
    verdict = decide(one, p, metrics={"profit": 0.9})
    assert verdict.decision == "reject"
    assert "profit is reported as 0.900, but the predictions give 0.500" in text(verdict)


def test_a_champion_whose_file_lacks_the_column_is_no_error() -> None:
    """Else every push would end in one, until the champion is another."""
    ours = table(gain=[1.0] * 50)
    for theirs in (table(other=[1.0] * 50), table(gain=["many"] * 50)):
        verdict = decide(over(of={"mean": "gain"}), ours, theirs)
        assert verdict.decision == "reject"
        assert "the champion's predictions do not give profit" in text(verdict)


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ({"mean": "gian"}, "there is no column 'gian'.*use one of label, prediction, gain"),
        ({"mean": "site"}, "site 'a' is not a finite number"),
        ({"ratio": ["size", "gain"]}, "gain is below 0 in places"),
        ({"cost": {"x": {"y": 1}}}, "no label under 'cost' occurs"),
    ],
)
def test_a_column_that_is_not_there_is_a_configuration_error(
    says: dict[str, Any], complaint: str
) -> None:
    p = table(gain=[-1.0] * 50, size=[1.0] * 50, site=["a"] * 50)
    for one in (rule(of=says, max=1), over(of=says, better="lower")):
        with pytest.raises(ConfigError, match=f"profit cannot be computed.*{complaint}"):
            decide(one, p, p)


def test_a_ratio_by_nothing_is_undefined() -> None:
    p = table(gain=[1.0] * 50, size=[0.0] * 50)
    assert decide(rule(of={"ratio": ["gain", "size"]}, min=0), p).decision == "reject"
    assert decide(over(of={"ratio": ["gain", "size"]}), p, p).decision == "reject"


@pytest.mark.parametrize(
    "says", [{"mean": "gain"}, {"sum": "gain"}, {"quantile": "gain", "at": 0.5}]
)
def test_plans(says: dict[str, Any]) -> None:
    p = table(gain=RNG.normal(5, 1, 300))
    plan = plan_rule(over(of=says), p)
    assert plan.missing == ""
    assert plan.value == pytest.approx(float(custom_measure(of(**says), [p]).values()[0]))
    assert all(one.least is not None and one.least > 0 for one in plan.assumed)


# -- what may be said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ({"of": {}, "min": 0}, "'of' needs exactly one of mean, sum, ratio, quantile, cost"),
        ({"of": {"mean": "a", "sum": "b"}, "min": 0}, "'of' needs exactly one of"),
        ({"of": {"quantile": "a"}, "min": 0}, "'quantile' and 'at' go together"),
        ({"of": {"mean": "a", "at": 0.5}, "min": 0}, "'quantile' and 'at' go together"),
        ({"of": {"mean": "a", "otherwise": 1}, "min": 0}, "'otherwise' goes with 'cost'"),
        ({"of": {"cost": {"a": {}}}, "min": 0}, "'cost' names no cost"),
        ({"of": {"ratio": ["a", "a"]}, "min": 0}, "two different columns"),
        ({"of": {"mean": "a"}, "min": 0, "metric": "accuracy"}, "accuracy is known"),
        ({"of": {"mean": "a"}, "min": 0, "metric": "recall_x"}, "recall_x is known"),
        ({"of": {"mean": "a"}, "min": 0, "predictions": None}, "'of' needs 'predictions"),
        ({"of": {"mean": "a"}, "min": 0, "positive": "x"}, "neither with 'positive'"),
        ({"of": {"mean": "a"}, "over": "champion"}, "say which way it improves"),
        ({"of": {"mean": "a"}, "over": "champion", "better": "higher", "test": "mcnemar"},
         "nor with test: mcnemar"),
        ({"of": {"cost": COSTS}, "over": "champion", "better": "higher"}, "a cost is better when"),
        ({"of": {"quantile": "a", "at": 0.5}, "over": "champion", "better": "lower", "group": "x"},
         "'group' does not go with a quantile"),
    ],
)  # fmt: skip
def test_rules_that_would_be_a_mistake(says: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        rule(**says)


def test_one_name_is_one_metric() -> None:
    first = {"metric": "profit", "predictions": KEY, "min": 0, "of": {"mean": "a"}}
    with pytest.raises(ValidationError, match="'profit' is two metrics"):
        Project.model_validate({"project": "p", "gate": [first, {**first, "of": {"mean": "b"}}]})
    assert Project.model_validate({"project": "p", "gate": [first, {**first, "max": 9}]})
