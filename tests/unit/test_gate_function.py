"""Metrics that are functions of the project: intervals of what is not known but by asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from ctflow.config.gate_metric import MetricOf
from ctflow.config.gate_rules import GateRule
from ctflow.config.policy import rules_digest
from ctflow.config.project import Project
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.checks import check_rule
from ctflow.gate.comparison import Paired
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.function_intervals import MAX_RESAMPLES, PARTS, Samples, gain_interval
from ctflow.gate.metrics.functions import Function
from ctflow.gate.plans import plan_rule
from ctflow.gate.single import Single, by_group
from ctflow.model import Verdict

KEY = "evaluate.predictions"
WHERE = "steps/evaluate/metrics.py:profit"
Table = Mapping[str, Any]


class Asked:
    """Asks a function in this process, as the step's would be; counts how often."""

    def __init__(self, function: Callable[[Table], float]) -> None:
        self.function = function
        self.answers = 0
        self.tables: list[Table] = []

    def __call__(
        self, function: str, timeout: float, columns: Table, draws: Sequence[Any]
    ) -> list[float]:
        assert (function, timeout) == (WHERE, 600.0)
        if not any(one is columns for one in self.tables):
            self.tables.append(columns)
        arrays = {name: np.array(column) for name, column in columns.items()}
        self.answers += len(draws)
        return [
            float(self.function({name: one[rows] for name, one in arrays.items()}))
            for rows in draws
        ]


def mean(table: Table) -> float:
    return float(table["x"].mean())


def f1(table: Table) -> float:
    hits = float(((table["label"] == 1) & (table["prediction"] == 1)).sum())
    said = float((table["label"] == 1).sum() + (table["prediction"] == 1).sum())
    return 2 * hits / said if said else math.nan


def median(table: Table) -> float:
    return float(np.median(table["x"]))


def table(calls: Asked | None, **columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    n = len(next(iter(named.values())))
    named = {"label": ["0"] * n, "prediction": ["0"] * n, **named}
    return Predictions([f"e{i:05}" for i in range(n)], named, Path("p.csv"), calls=calls)


def rule(**says: Any) -> GateRule:
    given = {"metric": "profit", "of": {"function": WHERE}, "predictions": KEY, **says}
    return GateRule.model_validate(given)


def over(**says: Any) -> GateRule:
    return rule(**{"over": "champion", "better": "higher", **says})


def decide(one: GateRule, ours: Predictions, theirs: Predictions | None = None) -> Verdict:
    champion = None if theirs is None else Champion("sha256:old", {}, {KEY: theirs})
    return judge(
        project="p", environment="staging", run="r-1", rules=[one], metrics={},
        predictions={KEY: ours}, champion=champion,
    )  # fmt: skip


def pair(calls: Asked, n: int, gain: float, seed: int = 0) -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, n)
    return tuple(table(calls, x=base + rng.normal(at, 0.7, n)) for at in (gain, 0.0))  # type: ignore[return-value]


def measured(calls: Asked, *models: Predictions) -> Function:
    return Function(MetricOf(function=WHERE), models)


# -- what it is given --------------------------------------------------------------------------


def test_it_gets_columns_by_name_in_the_order_of_the_ids() -> None:
    calls = Asked(lambda table: len(table["id"]))
    columns = {
        "label": ["1", "0", "1"], "prediction": ["1.0", " 0 ", "1e0"], "city": ["b", "", "nan"],
        "paid": ["3", "", "4"],
    }  # fmt: skip
    file = Predictions(["e3", "e1", "e2"], columns, Path("p.csv"), calls=calls)
    assert measured(calls, file).values().tolist() == [3]
    assert calls.tables == [
        {
            "id": ["e1", "e2", "e3"], "label": [0.0, 1.0, 1.0], "prediction": [0.0, 1.0, 1.0],
            "city": ["", "nan", "b"], "paid": ["", "4", "3"],
        }
    ]  # fmt: skip


def test_a_column_is_numbers_only_where_both_files_have_numbers() -> None:
    calls = Asked(lambda table: float(table["x"].dtype.kind == "f"))
    numbers, texts = table(calls, x=["1", "2"], y=["1", "2"]), table(calls, x=["1", "b"], z=[1, 2])
    assert measured(calls, numbers, numbers).values().tolist() == [1, 1]
    assert measured(calls, numbers, texts).values().tolist() == [0, 0]
    assert measured(calls, numbers, table(calls, x=["1", "b"], y=[1, 2])).values().tolist() == [
        0,
        0,
    ]


def test_nothing_is_asked_before_it_must_be() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 60, 0.5)
    one = over()
    check_rule(one, ours)
    Single("profit", ours, of=one.of)
    paired = Paired("profit", ours, theirs, of=one.of, lower_better=False)
    assert (calls.answers, calls.tables) == (0, [])
    paired.compare(0.95, None, 60)
    assert calls.answers > 1_000
    assert len(calls.tables) == 1  # both files' answers, handed over once


def test_without_anybody_to_ask_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics.py:profit is asked in the environment of"):
        decide(rule(min=0.5), table(None, x=[1, 2]))


# -- intervals ---------------------------------------------------------------------------------


def test_the_parts_of_a_mean_are_its_values_and_the_interval_holds_students() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 120, 0.3)
    samples = Samples(measured(calls, ours, theirs), None, None, 1)
    x, y = ours.numbers("x"), theirs.numbers("x")
    assert samples.parts == pytest.approx(np.stack([x, y], axis=1))
    expected = stats.ttest_rel(x, y).confidence_interval(0.95)
    low, high, method = gain_interval(samples, 1.0, 0.95, 0.0)
    assert low <= expected.low + 1e-9
    assert high >= expected.high - 1e-9
    assert high - low < 1.2 * (expected.high - expected.low)
    assert "resamples (Monte Carlo error" in method
    assert "Student's t of 120 examples left out in turn" in method


def test_of_many_examples_bundles_are_left_out() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 2_000, 0.1)
    samples = Samples(measured(calls, ours, theirs), None, None, 1)
    gains = samples.parts[:, 0] - samples.parts[:, 1]
    differences = ours.numbers("x") - theirs.numbers("x")
    assert len(gains) == PARTS
    assert gains.mean() == pytest.approx(differences.mean())
    assert gains.std(ddof=1) / 20 == pytest.approx(stats.sem(differences), rel=0.1)
    assert "400 bundles of examples" in gain_interval(samples, 1.0, 0.95, 0.0)[2]


def test_a_medians_interval_is_that_of_resampling() -> None:
    calls = Asked(median)
    ours, theirs = pair(calls, 150, 0.4)
    found = Paired("profit", ours, theirs, of=over().of, lower_better=False).compare(0.95)
    x, y = ours.numbers("x"), theirs.numbers("x")
    expected = stats.bootstrap(
        (x, y), lambda a, b, axis: np.median(a, axis) - np.median(b, axis), paired=True,
        method="percentile", rng=np.random.default_rng(2), n_resamples=4_000,
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(expected.low, abs=0.08)
    assert found.high == pytest.approx(expected.high, abs=0.08)
    assert found.low <= expected.low + 0.02


def test_groups_are_resampled_and_left_out_whole() -> None:
    calls = Asked(mean)
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(40), 5)
    shift = rng.normal(0, 1, 40)[patient]
    ours = table(calls, x=shift + rng.normal(0, 0.1, 200), patient=patient)
    theirs = table(calls, x=rng.normal(0, 0.1, 200), patient=patient)
    samples = Samples(measured(calls, ours, theirs), None, patient, 1)
    gains = ours.numbers("x") - theirs.numbers("x")
    expected, *_ = by_group(gains, patient)
    assert samples.parts[:, 0] - samples.parts[:, 1] == pytest.approx(expected, rel=1e-6)
    draws = list(samples._draws([1], 20))
    assert all((np.bincount(patient[rows], minlength=40) % 5 == 0).all() for rows in draws)
    grouped = Paired("profit", ours, theirs, of=over().of, lower_better=False, group="patient")
    single = Paired("profit", ours, theirs, of=over().of, lower_better=False)
    wide, narrow = grouped.compare(0.95, None, 200), single.compare(0.95, None, 200)
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)
    assert wide.groups == 40
    assert "40 groups left out" in wide.method


def test_few_examples_that_tell_show_nothing() -> None:
    """Also where other columns differ everywhere: what counts is what the function sees."""
    calls = Asked(f1)
    label = np.arange(300) % 2
    answer = label.copy()
    answer[:10] = 1 - answer[:10]
    noise = np.random.default_rng(1).random((2, 300))
    theirs = table(calls, label=label, prediction=answer, p_1=noise[0])
    better = answer.copy()
    better[:4] = label[:4]
    verdict = decide(over(), table(calls, label=label, prediction=better, p_1=noise[1]), theirs)
    assert verdict.decision == "hold"
    assert "the two differ in 4 of 300 examples, too few to resample" in str(
        verdict.reasons[0].comparison
    )
    within = decide(
        over(margin=0.2), table(calls, label=label, prediction=answer, p_1=noise[1]), theirs
    )
    assert within.decision == "promote", within.reasons


def test_resamples_are_doubled_to_a_bound_only() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 80, 0.3)
    samples = Samples(measured(calls, ours, theirs), None, None, 1)
    low, _, method = gain_interval(samples, 1.0, 0.95, 5.0)
    assert "1000 resamples" in method
    _, _, method = gain_interval(samples, 1.0, 0.95, low)
    assert f"{MAX_RESAMPLES} resamples" in method
    assert samples.resampled(1_000) is not None
    assert len(samples.resampled(MAX_RESAMPLES)) == MAX_RESAMPLES


def test_the_same_predictions_give_the_same_verdict() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 90, 0.2)
    turned = [
        Predictions(one.ids[::-1], {k: v[::-1] for k, v in one.columns.items()}, one.path,
                    calls=calls)
        for one in (ours, theirs)
    ]  # fmt: skip
    assert decide(over(), ours, theirs) == decide(over(), *turned)


def test_equal_models_are_rarely_promoted() -> None:
    """2.5% at most: of 100 pairs 7 or more would be a chance of one in a hundred."""
    promoted = 0
    for seed in range(100):
        calls = Asked(mean)
        paired = Paired("profit", *pair(calls, 20, 0.0, seed), of=over().of, lower_better=False)
        samples = Samples(paired._measure, None, None, seed)  # type: ignore[arg-type]
        promoted += gain_interval(samples, 1.0, 0.95, -9.0)[0] > 0
    assert promoted <= 6


# -- rules -------------------------------------------------------------------------------------


def test_better_and_worse_models() -> None:
    calls = Asked(mean)
    ours, theirs = pair(calls, 150, 0.5)
    better, worse = decide(over(), ours, theirs), decide(over(), theirs, ours)
    assert (better.decision, worse.decision) == ("promote", "reject")
    assert decide(over(better="lower"), theirs, ours).decision == "promote"
    assert "profit +0." in better.reasons[0].text


def test_slices_are_judged_each() -> None:
    calls = Asked(mean)
    rng = np.random.default_rng(4)
    side = np.array(["a", "b"]).repeat(80)
    base = rng.normal(0, 1, 160)
    theirs = table(calls, x=base, side=side)
    ours = table(
        calls, x=base + np.where(side == "a", 0.5, -0.5) + rng.normal(0, 0.3, 160), side=side
    )
    verdict = decide(over(by="side"), ours, theirs)
    assert {one.slice: one.decision for one in verdict.reasons} == {"a": "promote", "b": "reject"}
    asked = calls.answers
    assert asked < 8_000  # Holm's second look at a slice asks nothing again


def test_of_hardly_an_example_nothing_is_asked_but_the_value() -> None:
    def fragile(table: Table) -> float:
        assert len(table["x"]), "no examples at all"
        return mean(table)

    side = ["a"] * 60 + ["b"]
    ours, theirs = (table(Asked(fragile), x=np.arange(61) + add, side=side) for add in (1, 0))
    verdict = decide(over(by="side"), ours, theirs)
    assert {one.slice: one.decision for one in verdict.reasons} == {"a": "promote", "b": "hold"}
    assert "1 examples, too few to tell" in verdict.reasons[1].text
    grouped = decide(over(group="side"), ours, theirs)
    assert "2 groups, too few to tell" in grouped.reasons[0].text
    bound = decide(rule(min=0, by="side", confidence=0.95), ours)
    assert [one.decision for one in bound.reasons] == ["promote", "hold"]


def test_bounds_and_slices_between() -> None:
    calls = Asked(mean)
    x = np.random.default_rng(5).normal(3, 1, 200)
    file = table(calls, x=x, side=["a", "b"] * 100)
    expected = stats.t.interval(0.95, 199, x.mean(), stats.sem(x))
    verdict = decide(rule(min=2.5, confidence=0.95), file)
    assert verdict.decision == "promote"
    found = verdict.reasons[0].estimate
    assert found is not None
    assert found.low == pytest.approx(expected[0], abs=0.02)
    assert found.high == pytest.approx(expected[1], abs=0.02)
    assert decide(rule(min=3.0, confidence=0.95), file).decision == "hold"
    assert decide(rule(min=2.5), file).decision == "promote"
    assert decide(rule(max=2.5), file).decision == "reject"
    assert decide(rule(between="side", max=1.0, confidence=0.95), file).decision == "promote"
    assert decide(rule(between="side", max=0.01), file).decision == "reject"


def test_what_is_undefined_is_never_promoted() -> None:
    calls = Asked(lambda table: math.nan)
    ours, theirs = pair(calls, 50, 1.0)
    for one, champion in ((over(), theirs), (over(), None), (rule(min=0.5), None)):
        verdict = decide(one, ours, champion)
        assert verdict.decision == "reject"
        assert "profit is undefined on these predictions" in verdict.reasons[0].text
    # Undefined on some resamples: those count as the worst at either end.
    rare = Asked(lambda table: float(table["x"].mean()) if (table["x"] > 900).any() else math.nan)
    x = np.r_[np.full(3, 1_000.0), np.random.default_rng(6).normal(0, 1, 97)]
    verdict = decide(over(), table(rare, x=x + 1), table(rare, x=x))
    assert verdict.decision == "hold", verdict.reasons
    alone = Asked(lambda table: 1.0 if "e00000" in table["id"] else math.nan)
    verdict = decide(over(), table(alone, x=x + 1), table(alone, x=x))
    assert verdict.decision == "hold"
    assert "it is undefined where some of the examples are left out" in verdict.reasons[0].text


def test_a_first_model_is_asked_about_too() -> None:
    calls = Asked(mean)
    decide(over(), pair(calls, 50, 0.0)[0])
    assert calls.answers == 1


def test_a_plan_from_the_champions_predictions() -> None:
    calls = Asked(mean)
    found = plan_rule(over(), pair(calls, 400, 0.0)[1])
    assert found.missing == ""
    assert [one.text for one in found.assumed] == [
        "correlate by 0.9 (a guess)", "correlate by 0.7 (a guess)",
    ]  # fmt: skip
    assert all(one.least is not None and 0 < one.least < 1 for one in found.assumed)
    assert "is asked in the environment" in plan_rule(over(), table(None, x=[1, 2])).missing


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"of": {"function": "metrics.py:profit"}}, "is not a function of a step"),
        ({"of": {"function": "/etc/metrics.py:profit"}}, "is not a function of a step"),
        ({"of": {"function": "steps/../x.py:profit"}}, "is not a function of a step"),
        ({"of": {"function": "steps//x.py:profit"}}, "is not a function of a step"),
        ({"of": {"function": "steps/evaluate/metrics.py"}}, "is not a function of a step"),
        ({"of": {"function": "steps/evaluate/metrics.sh:profit"}}, "is not a function of a step"),
        ({"of": {"function": "steps/evaluate/metrics.py:a.b"}}, "is not a function of a step"),
        ({"of": {"function": "steps/evaluate/a\n.py:b"}}, "is not a function of a step"),
        ({"of": {"function": WHERE, "mean": "x"}}, "'of' needs exactly one of mean"),
        ({"of": {"function": WHERE, "timeout": "soon"}}, "is not a duration"),
        ({"of": {"function": WHERE, "timeout": "0s"}}, "a function needs time"),
        ({"of": {"mean": "x", "timeout": "5m"}}, "'timeout' goes with 'function'"),
        ({"weight": "w"}, "profit does not go with 'weight'"),
        ({"better": None}, "say which way it improves"),
        ({"test": "mcnemar"}, "'of' goes neither"),
        ({"exact": True}, "'exact' is for"),
        ({"predictions": None}, "needs 'predictions"),
        ({"metric": "accuracy"}, "accuracy is known"),
    ],
)
def test_what_a_rule_may_not_say(says: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        over(**says)


def test_another_function_is_another_rule() -> None:
    def digest(code: Mapping[str, str] | None = None, **of: Any) -> str:
        gate = [{"metric": "profit", "of": {"function": WHERE, **of}, "min": 1, "predictions": KEY}]
        project = {"project": "digits", "gate": gate, "environments": {"staging": {}}}
        return rules_digest(Project.model_validate(project), code)

    assert digest() == digest({})
    assert digest(timeout="5m") != digest()
    assert digest({WHERE: "sha256:a"}) != digest({WHERE: "sha256:b"})
