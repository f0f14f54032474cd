"""Further metrics: as scikit-learn computes them, and what each example's part in them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student_t
from sklearn import metrics as sk

from ctflow.config.gate_rules import GateRule
from ctflow.config.metric_names import is_bounded, is_known, is_lower_better, is_right_wrong
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.comparison import Paired
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.metrics.agreement import Agreement
from ctflow.gate.metrics.areas import MeanArea
from ctflow.gate.metrics.average_precision import AveragePrecision
from ctflow.gate.metrics.measures import Measure
from ctflow.gate.metrics.scores import computable, measure
from ctflow.gate.plans import plan_rule
from ctflow.gate.single import Single

KEY = "evaluate.predictions"
NAMES = ("a", "b", "c", "d")
LINEAR = ("mcc", "kappa", "average_precision", "roc_auc_ovr", "roc_auc_ovo")


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    n = len(named["label"])
    return Predictions([f"e{i:05}" for i in range(n)], named, Path("p.csv"))


def many(seed: int, n: int = 240, skill: float = 1.0, label: Any = None) -> Predictions:
    """Four classes, with probabilities in two decimals, so that some tie."""
    rng = np.random.default_rng(seed)
    label = np.random.default_rng(99).integers(0, 4, n) if label is None else label
    weight = np.exp(rng.normal(0, 1, (n, 4)) + skill * (np.arange(4) == label[:, None]))
    chance = np.round(weight / weight.sum(axis=1, keepdims=True), 2)
    chance[:, 0] = np.round(1 - chance[:, 1:].sum(axis=1), 2)
    names = np.array(NAMES)
    probabilities = {f"p_{name}": np.maximum(chance[:, j], 0) for j, name in enumerate(NAMES)}
    return table(label=names[label], prediction=names[chance.argmax(axis=1)], **probabilities)


def two(seed: int, n: int = 240, skill: float = 1.0) -> Predictions:
    """Two classes, a third of them positive; scores in one decimal."""
    rng = np.random.default_rng(seed)
    label = (np.random.default_rng(98).random(n) < 0.3).astype(int)
    score = np.round(rng.normal(0, 1, n) + skill * label, 1)
    return table(label=label, prediction=(score > 0.5).astype(int), score=score)


def numeric(seed: int, n: int = 240) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.random.default_rng(97).normal(5, 1, n)
    return table(label=label, prediction=label + rng.normal(0, 1, n))


def model(metric: str, seed: int, **says: Any) -> Predictions:
    return two(seed, **says) if metric == "average_precision" else many(seed, **says)


def value(metric: str, p: Predictions) -> float:
    return float(measure(metric, [p]).values()[0])


# -- values -------------------------------------------------------------------------------------


def test_agreement_is_scikit_learns() -> None:
    for seed in range(5):
        p = many(seed)
        labels, answers = list(p.texts("label")), list(p.texts("prediction"))
        assert value("mcc", p) == pytest.approx(sk.matthews_corrcoef(labels, answers))
        assert value("kappa", p) == pytest.approx(sk.cohen_kappa_score(labels, answers))


def test_a_constant_answer_agrees_by_chance() -> None:
    p = table(label=["a", "b"] * 20, prediction=["a"] * 40)
    assert value("mcc", p) == 0
    assert value("kappa", p) == 0
    only = table(label=["a"] * 40, prediction=["a"] * 40)
    assert np.isnan(value("kappa", only))


def test_areas_are_scikit_learns() -> None:
    for seed in range(5):
        p, q = many(seed), two(seed)
        areas = [sk.roc_auc_score(p.texts("label").equal(name), p.numbers(f"p_{name}"))
                 for name in NAMES]  # fmt: skip
        assert value("roc_auc_ovr", p) == pytest.approx(np.mean(areas))
        chances = np.stack([p.numbers(f"p_{name}") for name in NAMES], axis=1)
        pairs = sk.roc_auc_score(list(p.texts("label")), chances, multi_class="ovo")
        assert value("roc_auc_ovo", p) == pytest.approx(pairs)
        expected = sk.average_precision_score(q.numbers("label"), q.numbers("score"))
        assert value("average_precision", q) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_is_scikit_learns_without_ties(k: int) -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(0, 4, 200)
    chance = rng.dirichlet(np.ones(4), 200)
    p = table(label=np.array(NAMES)[label], prediction=["a"] * 200,
              **{f"p_{name}": chance[:, j] for j, name in enumerate(NAMES)})  # fmt: skip
    expected = sk.top_k_accuracy_score(label, chance, k=k, labels=range(4))
    assert value(f"top_{k}_accuracy", p) == pytest.approx(expected)


def test_a_label_that_ties_is_the_last_of_those() -> None:
    even = {f"p_{name}": [0.25] * 40 for name in NAMES}
    p = table(label=["a"] * 40, prediction=["a"] * 40, **even)
    assert value("top_2_accuracy", p) == 0


def test_errors_are_scikit_learns() -> None:
    p = numeric(1)
    label, answer = p.numbers("label"), p.numbers("prediction")
    for at in (0.1, 0.5, 0.95):
        expected = sk.mean_pinball_loss(label, answer, alpha=at)
        assert value(f"pinball_{at}", p) == pytest.approx(expected)
    assert value("mape", p) == pytest.approx(sk.mean_absolute_percentage_error(label, answer))


@pytest.mark.parametrize(
    ("metric", "columns", "complaint"),
    [
        ("mape", {"label": [0, 1], "prediction": [1, 1]}, "the label of id e00000 is 0"),
        ("pinball_0.9", {"label": ["a", "b"], "prediction": ["a", "b"]}, "are not all numbers"),
        ("pinball_0.0", {"label": [0, 1], "prediction": [1, 1]}, "a quantile above 0"),
        ("top_2_accuracy", {"label": ["a", "b"], "prediction": ["a", "b"], "p_a": [0.5, 0.5],
                            "p_b": [0.5, 0.5]}, "2 columns p_<class>, not more than 2"),
        ("top_1_accuracy", {"label": ["a", "c"], "prediction": ["a", "b"], "p_a": [0.5, 0.5],
                            "p_b": [0.5, 0.5]}, "no column p_c"),
        ("roc_auc_ovr", {"label": ["a", "b"], "prediction": ["a", "b"]}, "2 classes; use roc_auc"),
        ("roc_auc_ovo", {"label": ["a", "b"], "prediction": ["a", "b"]}, "2 classes; use roc_auc"),
        ("roc_auc_ovr", {"label": ["a", "b", "c"], "prediction": ["a", "b", "c"],
                         "p_a": [1, 0, 0]}, "no column p_b"),
        ("average_precision", {"label": [0, 1], "prediction": [0, 1]}, "no column p_1 and no"),
    ],
)  # fmt: skip
def test_what_they_need(metric: str, columns: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        measure(metric, [table(**columns)])


def test_names() -> None:
    for name in ("mcc", "kappa", "roc_auc_ovr", "roc_auc_ovo", "average_precision",
                 "top_5_accuracy", "pinball_0.9", "mape"):  # fmt: skip
        assert is_known(name)
    for name in ("top_0_accuracy", "top_k_accuracy", "pinball_9", "pinball_1.5"):
        assert not is_known(name)
    assert is_lower_better("pinball_0.9")
    assert is_lower_better("mape")
    assert is_bounded("top_5_accuracy")
    assert is_right_wrong("top_5_accuracy")
    assert not is_bounded("mape")
    assert {"mcc", "top_<k>_accuracy", "roc_auc_ovr"} <= set(computable(many(1)))
    assert {"mape", "pinball_<quantile>"} <= set(computable(numeric(1)))


# -- each example's part ------------------------------------------------------------------------


def parts(metric: str, models: list[Predictions], rows: Any = None) -> Any:
    found: Measure = measure(metric, models)
    assert isinstance(found, (Agreement, AveragePrecision, MeanArea))
    return found.influence(rows)


@pytest.mark.parametrize("metric", LINEAR)
def test_a_part_is_the_derivative_by_the_examples_weight(metric: str) -> None:
    """Doubling an example a thousand others stand beside moves the value by its part of them."""
    small = model(metric, 3, n=24)
    times = 400
    rows = np.tile(np.arange(24), times)
    whole = measure(metric, [small])
    base = float(whole.values(rows)[0])
    influence = parts(metric, [small], rows)[:24]
    assert influence.mean() == pytest.approx(base)
    for place in (0, 5, 11, 17):
        moved = float(whole.values(np.append(rows, place))[0])
        expected = (influence[place] - base) / (len(rows) + 1)
        assert moved - base == pytest.approx(expected, rel=0.02, abs=2e-8)


@pytest.mark.parametrize("metric", LINEAR)
def test_parts_of_a_difference(metric: str) -> None:
    ours, theirs = model(metric, 3), model(metric, 4)
    rows = np.arange(0, 240, 2)
    both = measure(metric, [ours, theirs]).values(rows)
    found = parts(metric, [ours, theirs], rows)
    assert len(found) == 120
    assert found.mean() == pytest.approx(both[0] - both[1])
    apart = parts(metric, [ours], rows) - parts(metric, [theirs], rows)
    assert found == pytest.approx(apart, abs=1e-6)


@pytest.mark.parametrize("metric", LINEAR)
def test_parts_and_resamples_spread_alike(metric: str) -> None:
    ours, theirs = model(metric, 3, n=900), model(metric, 4, n=900)
    both = measure(metric, [ours, theirs])
    drawn = both.resample(None, 1_000, np.random.default_rng(1))
    error = parts(metric, [ours, theirs]).std() / 30
    assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(error, rel=0.12)


# -- verdicts -----------------------------------------------------------------------------------


def decide(metric: str, ours: Predictions, theirs: Predictions, **says: Any) -> str:
    rule = GateRule.model_validate(
        {"metric": metric, "over": "champion", "predictions": KEY, **says}
    )
    verdict = judge(
        project="p", environment="staging", run="r-1", rules=[rule], metrics={},
        predictions={KEY: ours}, champion=Champion("sha256:old", {}, {KEY: theirs}),
    )  # fmt: skip
    return verdict.decision


@pytest.mark.parametrize("metric", [*LINEAR, "top_2_accuracy"])
def test_a_better_model_is_promoted(metric: str) -> None:
    good, bad = model(metric, 3, skill=3), model(metric, 4, skill=0.5)
    assert decide(metric, good, bad) == "promote"
    assert decide(metric, bad, good) == "reject"
    assert decide(metric, bad, bad) == "hold"
    assert decide(metric, bad, bad, margin=0.2) == "promote"


def test_smaller_errors_are_better() -> None:
    good, bad = numeric(1), numeric(2)
    label = bad.numbers("label")
    bad = table(label=label, prediction=label + 3 * (bad.numbers("prediction") - label))
    for metric in ("pinball_0.9", "mape"):
        assert decide(metric, good, bad) == "promote"
        assert decide(metric, bad, good) == "reject"


@pytest.mark.parametrize("metric", LINEAR)
def test_one_models_interval_holds_its_value(metric: str) -> None:
    p = model(metric, 3, n=400)
    found = Single(metric, p).estimate(0.95, None, 400)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.4
    grouped = table(**{name: list(p.columns[name]) for name in p.columns},
                    who=np.arange(400) // 4)  # fmt: skip
    found = Single(metric, grouped, group="who").estimate(0.95, None, 400)
    assert found.groups == 100
    assert found.low < found.value < found.high


def test_rankings_need_examples_of_each_class() -> None:
    p, q = two(1, n=60), two(2, n=60)
    assert (
        Paired("average_precision", p, q)
        .compare(0.95, None, 60)
        .method.endswith("examples of the rarer class, fewer than 30")
    )
    assert decide("average_precision", p, q) == "hold"


def test_a_plan_of_top_k_is_one_of_right_answers() -> None:
    rule = GateRule.model_validate(
        {"metric": "top_2_accuracy", "over": "champion", "predictions": KEY}
    )
    plan = plan_rule(rule, many(3))
    assert [one.text for one in plan.assumed] == [
        "differ on 5% (a guess)",
        "differ on 10% (a guess)",
    ]


@pytest.mark.parametrize("metric", [*LINEAR, "top_2_accuracy"])
def test_plans(metric: str) -> None:
    rule = GateRule.model_validate({"metric": metric, "over": "champion", "predictions": KEY})
    plan = plan_rule(rule, model(metric, 3))
    assert plan.missing == ""
    assert plan.best == pytest.approx(1 - value(metric, model(metric, 3)))
    assert all(one.least is None or one.least > 0 for one in plan.assumed)


def test_areas_of_pairs_have_students_interval_only() -> None:
    ours, theirs = many(1, n=400, skill=1.6), many(2, n=400)
    found = Paired("roc_auc_ovo", ours, theirs).compare(0.95, size=400)
    part = parts("roc_auc_ovo", [ours, theirs])
    assert found.gain == pytest.approx(float(part.mean()))
    fewest = int(min(np.unique(ours.texts("label").codes, return_counts=True)[1]))
    half = float(student_t.ppf(0.975, fewest - 1)) * float(part.std(ddof=1)) / 20
    assert found.low == pytest.approx(found.gain - half)
    assert found.high == pytest.approx(found.gain + half)
    assert found.method == "Student's t"
    bound = Single("roc_auc_ovo", ours).estimate(0.95, None, 400)
    assert bound.low < bound.value < bound.high <= 1
    assert "bootstrap" not in bound.method
    few = Paired("roc_auc_ovo", many(1, n=60), many(2, n=60)).compare(0.95, size=60)
    assert np.isinf(few.low)
    assert "rarer class" in few.method
