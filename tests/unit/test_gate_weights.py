"""Weighted examples, and blocks of time as groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics as sk

from ctflow.config.gate_rules import GateRule
from ctflow.config.time_blocks import block_length, block_of
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.groups import group_codes
from ctflow.gate.metrics.scores import measure
from ctflow.gate.metrics.weights import Weighted, effective
from ctflow.gate.plans import plan_rule
from ctflow.model import Verdict

KEY = "evaluate.predictions"
RNG = np.random.default_rng(5)
N = 400
LABEL = RNG.integers(0, 2, N)
WEIGHT = RNG.exponential(1, N)


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    n = len(named["label"])
    return Predictions([f"e{i:05}" for i in range(n)], named, Path("p.csv"))


def model(seed: int, right: float = 0.8, weight: Any = WEIGHT, **more: Any) -> Predictions:
    rng = np.random.default_rng(seed)
    is_right = rng.random(N) < right
    chance = np.where(is_right == (LABEL == 1), rng.uniform(0.5, 1, N), rng.uniform(0, 0.5, N))
    return table(label=LABEL, prediction=(chance > 0.5).astype(int), p_1=chance, w=weight, **more)


def numeric(seed: int) -> Predictions:
    label = np.random.default_rng(1).normal(5, 1, N)
    answer = label + np.random.default_rng(seed).normal(0, 1, N)
    return table(label=label, prediction=answer, w=WEIGHT)


def rule(metric: str = "accuracy", **says: Any) -> GateRule:
    return GateRule.model_validate(
        {"metric": metric, "predictions": KEY, "weight": "w", "over": "champion", **says}
    )


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


# -- weights ------------------------------------------------------------------------------------


def test_weighted_metrics_are_scikit_learns() -> None:
    p, q = model(1), numeric(2)
    answer, chance = p.numbers("prediction"), p.numbers("p_1")
    label, guess = q.numbers("label"), q.numbers("prediction")
    expected = {
        "accuracy": (p, sk.accuracy_score(LABEL, answer, sample_weight=WEIGHT)),
        "error_rate": (p, 1 - sk.accuracy_score(LABEL, answer, sample_weight=WEIGHT)),
        "log_loss": (p, sk.log_loss(LABEL, chance, sample_weight=WEIGHT)),
        "brier": (p, sk.brier_score_loss(LABEL, chance, sample_weight=WEIGHT)),
        "mae": (q, sk.mean_absolute_error(label, guess, sample_weight=WEIGHT)),
        "rmse": (q, sk.mean_squared_error(label, guess, sample_weight=WEIGHT) ** 0.5),
        "mape": (q, sk.mean_absolute_percentage_error(label, guess, sample_weight=WEIGHT)),
    }
    for name, (predictions, value) in expected.items():
        assert measure(name, [predictions], weight="w").values()[0] == pytest.approx(value)


@pytest.mark.parametrize("metric", ["accuracy", "mae", "rmse"])
def test_whole_weights_are_as_many_examples(metric: str) -> None:
    """The parts are those of the metric in which each example stands as often as it weighs."""
    often = np.random.default_rng(3).integers(0, 4, N)
    p = table(label=LABEL + 1, prediction=model(1).numbers("prediction"), w=often)
    found = measure(metric, [p], weight="w")
    assert isinstance(found, Weighted)
    plain = measure(metric, [p])
    rows = np.repeat(np.arange(N), often)
    assert found.values()[0] == pytest.approx(plain.values(rows)[0])
    parts = found.linear(None)[0]
    assert parts.mean() == pytest.approx(found.values()[0])
    place = int(np.flatnonzero(often == 2)[0])
    more = often.astype(np.float64)
    more[place] += 1e-6
    heavier = table(label=LABEL + 1, prediction=p.numbers("prediction"), w=more)
    moved = measure(metric, [heavier], weight="w").values()[0]
    # The part of an example is its value's part, times its weight: by that it grows.
    slope = (parts[place] - parts.mean()) / often[place] / N
    assert slope != 0
    assert (moved - found.values()[0]) / 1e-6 == pytest.approx(slope, rel=1e-3)


def test_heavy_examples_decide() -> None:
    """Worse on most of the examples, and better on those that count."""
    heavy = np.arange(N) < 60
    weight = np.where(heavy, 50.0, 1.0)
    ours = np.where(heavy | (np.arange(N) % 3 > 0), LABEL, 1 - LABEL)
    theirs = np.where(heavy & (np.arange(N) % 2 > 0), 1 - LABEL, LABEL)
    a, b = (table(label=LABEL, prediction=one, w=weight) for one in (ours, theirs))
    verdict = decide(rule(), a, b)
    assert verdict.decision == "promote", verdict.reasons
    assert decide(rule(weight=None), a, b).decision == "reject"
    assert "accuracy: 400 examples weighted by w tell as much as 74 equal ones" in verdict.notes


def test_equal_weights_change_nothing_much() -> None:
    a, b = model(1, 0.9, np.full(N, 3.0)), model(2, 0.8, np.full(N, 3.0))
    by = decide(rule(), a, b).reasons[0].comparison
    plain = decide(rule(weight=None, test="bootstrap"), a, b).reasons[0].comparison
    assert by is not None
    assert plain is not None
    assert by.gain == pytest.approx(plain.gain)
    assert by.low == pytest.approx(plain.low, abs=0.006)
    assert by.p_value is None


def test_the_effective_number_is_kishs() -> None:
    assert effective(np.ones(50)) == 50
    assert effective(np.array([1.0, 0.0, 0.0])) == 1
    assert effective(np.zeros(3)) == 0
    assert effective(np.array([1.0, 2.0, 3.0])) == 2  # 36/14


def test_hardly_any_difference_is_within_a_margin() -> None:
    a = model(1, 1.0)
    assert decide(rule(margin=0.1), a, a).decision == "promote"
    assert decide(rule(margin=0.001), a, a).decision == "hold"


def test_the_level() -> None:
    """Equal models, uneven weights: 2.5% at most."""
    rng = np.random.default_rng(0)
    promoted = 0
    for _ in range(120):
        weight = np.exp(rng.normal(0, 1, N))
        a, b = (model(int(rng.integers(1 << 30)), 0.8, weight) for _ in range(2))
        promoted += decide(rule(), a, b).decision == "promote"
    assert promoted <= 9  # three standard deviations above 3


def test_bounds_and_reports() -> None:
    p = model(1)
    weighted = float(measure("accuracy", [p], weight="w").values()[0])
    plain = float(measure("accuracy", [p]).values()[0])
    assert abs(weighted - plain) > 1e-3
    between = (weighted + plain) / 2
    bound = rule(over=None, min=between)
    expected = "promote" if weighted > between else "reject"
    for reported in (weighted, plain):
        assert decide(bound, p, metrics={"accuracy": reported}).decision == expected
    assert "reported as" in decide(bound, p, metrics={"accuracy": 0.99}).reasons[0].text
    sure = decide(rule(over=None, min=weighted - 0.001, confidence=0.95), p)
    assert sure.decision == "hold"


def test_own_means_and_costs_have_weights_too() -> None:
    p = model(1, gain=RNG.normal(1, 1, N))
    found = measure("profit", [p], of=rule("profit", of={"mean": "gain"}, better="higher").of,
                    weight="w")  # fmt: skip
    assert found.values()[0] == pytest.approx(np.average(p.numbers("gain"), weights=WEIGHT))
    cost = rule("cost", of={"cost": {"1": {"0": 5}, "0": {"1": 1}}})
    assert decide(cost, model(1, 0.95), model(2, 0.6)).decision == "promote"


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        (np.full(N, -1.0), "a weight in w is below 0"),
        (np.zeros(N), "all weights in w are 0"),
        (np.array(["x"] * N), "w 'x' is not a finite number"),
    ],
)
def test_bad_weights(weight: Any, complaint: str) -> None:
    p = model(1, weight=weight)
    with pytest.raises(ConfigError, match=complaint):
        decide(rule(), p, p)
    theirs = decide(rule(), model(1), p)
    assert theirs.decision == "reject"
    assert "the champion's predictions do not give accuracy" in theirs.reasons[0].text


def test_a_champion_that_weighs_otherwise_is_not_compared() -> None:
    verdict = decide(rule(), model(1), model(2, weight=WEIGHT * 2))
    assert verdict.decision == "reject"
    assert "the examples have other weights in w" in verdict.reasons[0].text


def test_plans() -> None:
    plan = plan_rule(rule(), model(1))
    assert plan.missing == ""
    even = plan_rule(rule(weight=None, test="bootstrap"), model(1))
    least = [one.assumed[0].least for one in (plan, even)]
    assert least[0] is not None
    assert least[1] is not None
    assert least[0] > 1.2 * least[1]  # uneven weights tell less


@pytest.mark.parametrize(
    "says",
    [{"metric": "roc_auc"}, {"metric": "recall"}, {"metric": "r2"}, {"metric": "mcc"},
     {"metric": "x", "of": {"sum": "a"}, "better": "higher"}, {"exact": True},
     {"test": "mcnemar"}, {"over": None, "min": 0.5, "predictions": None}],
)  # fmt: skip
def test_rules_that_would_be_a_mistake(says: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="weight"):
        rule(**says)


# -- blocks -------------------------------------------------------------------------------------


def test_blocks_of_time() -> None:
    assert block_of("2026-03-30", "7d") == block_of("2026-04-05T23:59:59", "1w")
    assert block_of("2026-03-30", "7d") + 1 == block_of("2026-04-06", "7d")
    assert block_of("2026-03-30T05:00:00Z", "6h") == block_of("2026-03-30 00:00", "6h")
    assert block_of("2026-03-30T01:00:00+02:00", "1d") == block_of("2026-03-29", "1d")
    assert block_of("2026-03-30T01:00:00.5Z", "1h") == block_of(
        "2026-03-30T01:30:00.123456789", "1h"
    )
    assert block_length("4w").days == 28
    with pytest.raises(ConfigError, match="'yesterday' is not a time; write 2026"):
        block_of("yesterday", "1d")


def test_the_blocks_are_the_groups() -> None:
    days = [f"2026-03-{2 + i % 28:02}" for i in range(N)]
    p = model(1, day=days)
    one = rule("accuracy", weight=None, group="day", block="7d")
    assert len(np.unique(group_codes(p, "day", "7d"))) == 4
    found = decide(one, p, model(2, day=days)).reasons[0]
    assert found.comparison is not None
    assert found.comparison.groups == 4
    assert found.comparison.method == "the two differ in 4 of 4 groups, too few to tell"
    single = rule(over=None, min=0.1, confidence=0.95, weight=None, group="day", block="1d")
    assert ", 28 groups" in decide(single, p).reasons[0].text


def test_a_series_needs_blocks() -> None:
    """Errors that last for days: single rows pass far too often, weeks keep the level."""
    rng = np.random.default_rng(8)
    n = 6 * 7 * 20
    times = np.datetime64("2026-01-05T00") + 4 * np.arange(n)
    promoted = {"rows": 0, "weeks": 0}
    for _ in range(40):
        slow = np.zeros((2, n))
        for t in range(1, n):
            slow[:, t] = 0.88 * slow[:, t - 1] + rng.normal(0, 1, 2)
        models = [
            table(label=np.zeros(n), prediction=np.zeros(n), score=one, at=times) for one in slow
        ]
        for name, says in (("rows", {}), ("weeks", {"group": "at", "block": "7d"})):
            one = rule("score", weight=None, better="higher", **says)
            promoted[name] += decide(one, models[0], models[1]).decision == "promote"
    assert promoted["rows"] >= 6
    assert promoted["weeks"] <= 3


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ({"block": "7d"}, "'block' needs 'group"),
        ({"group": "at", "block": "7x"}, "'7x' is not a length"),
        ({"group": "at", "block": "0d"}, "'0d' is not a length"),
    ],
)
def test_blocks_that_would_be_a_mistake(says: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        rule(weight=None, **says)


def test_a_time_that_is_none_is_a_configuration_error() -> None:
    p = model(1, day=["soon"] * N)
    with pytest.raises(ConfigError, match="'soon' is not a time"):
        decide(rule(weight=None, group="day", block="1d"), p, p)
