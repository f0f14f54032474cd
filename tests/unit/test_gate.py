"""The gate: what passes, what is held, and everything that fails closed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError, UsageError
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.judge import NO_CHAMPION
from ctflow.model import Override, Verdict, dump, from_json

KEY = "evaluate.predictions"
N = 400


def rule(metric: str = "accuracy", **says: Any) -> GateRule:
    return GateRule.model_validate({"metric": metric, **says})


def over(metric: str = "accuracy", **says: Any) -> GateRule:
    return rule(metric, over="champion", predictions=KEY, **says)


def answers(wrong: range, n: int = N, **more: list[str]) -> Predictions:
    """Two classes in turn; those examples answered wrong."""
    labels = [i % 2 for i in range(n)]
    given = [1 - y if i in wrong else y for i, y in enumerate(labels)]
    columns = {"label": [*map(str, labels)], "prediction": [*map(str, given)], **more}
    return Predictions([f"e{i:04}" for i in range(n)], columns, Path("p.csv"))


def accuracy(p: Predictions) -> float:
    pairs = zip(p.columns["label"], p.columns["prediction"], strict=True)
    return sum(a == b for a, b in pairs) / len(p)


GOOD, FAIR = answers(range(12)), answers(range(50))


def decide(
    *rules: GateRule,
    challenger: Predictions | None = GOOD,
    champion: Predictions | None = FAIR,
    metrics: Mapping[str, Any] | None = None,
    **more: Any,
) -> Verdict:
    if metrics is None:
        metrics = {"accuracy": accuracy(challenger)} if challenger else {}
    serving = None
    if champion is not None:
        serving = Champion("sha256:old", {"accuracy": accuracy(champion)}, {KEY: champion})
    return judge(
        project="digits",
        environment="staging",
        run="r-1",
        rules=rules,
        metrics=metrics,
        predictions={KEY: challenger} if challenger else {},
        champion=more.pop("serving", serving),
        challenger=more.pop("challenger_digest", None),
        **more,
    )


def text(verdict: Verdict) -> str:
    return "; ".join(reason.text for reason in verdict.reasons)


def test_promotes_a_model_that_is_good_enough_and_better() -> None:
    verdict = decide(rule(min=0.8), over())
    assert verdict.decision == "promote"
    assert verdict.passes
    assert verdict.reasons[0].text == "accuracy 0.970 >= 0.80 (95% CI 0.948 to 0.984)"
    assert verdict.reasons[1].text.startswith("accuracy +0.095 over champion (95% CI 0.0")
    found = verdict.reasons[1].comparison
    assert found is not None
    assert (found.gain, found.examples) == (0.095, N)
    assert found.low < found.gain < found.high
    assert found.p_value is not None
    assert found.p_value < 1e-9
    assert verdict.champion == "sha256:old"
    assert verdict.evaluation_set == GOOD.evaluation_set
    assert verdict.examples == N
    assert verdict.champion_metrics == {"accuracy": accuracy(FAIR)}
    assert from_json(Verdict, json.loads(dump(verdict))) == verdict


def test_holds_what_is_not_shown_better_and_rejects_what_is_worse() -> None:
    held = decide(over(), challenger=answers(range(2, 14)), champion=answers(range(14)))
    assert held.decision == "hold"
    assert "not shown better" in text(held)
    rejected = decide(over(), challenger=FAIR, champion=GOOD)
    assert rejected.decision == "reject"
    assert "accuracy -0.095 over champion" in text(rejected)
    assert text(rejected).endswith(": worse")
    assert not held.passes
    assert not rejected.passes


def test_the_worst_rule_decides() -> None:
    assert decide(rule(min=0.99), over()).decision == "reject"
    assert decide(rule(min=0.9), over(min_gain=0.09)).decision == "hold"


@pytest.mark.parametrize(
    ("metric", "most"), [("accuracy", 4), ("error_rate", 4), ("f1_macro", 5), ("recall_1", 5)]
)
def test_a_few_differing_examples_are_never_enough(metric: str, most: int) -> None:
    for differ in range(1, most + 1):
        verdict = decide(
            over(metric), challenger=answers(range(0)), champion=answers(range(differ))
        )
        assert verdict.decision == "hold"


def test_six_differing_examples_are_enough_for_the_exact_test() -> None:
    verdict = decide(over(exact=True), challenger=answers(range(0)), champion=answers(range(6)))
    assert verdict.decision == "promote"
    comparison = verdict.reasons[0].comparison
    assert comparison is not None
    assert comparison.p_value == pytest.approx(2**-5)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_a_margin_accepts_a_small_loss_and_no_more(metric: str) -> None:
    for margin, decision in ((0.03, "promote"), (0.001, "hold")):
        slightly = decide(
            over(metric, margin=margin), challenger=answers(range(14)), champion=answers(range(13))
        )
        assert slightly.decision == decision
    verdict = decide(over(metric, margin=0.03), challenger=FAIR, champion=GOOD)
    assert verdict.decision == "reject"
    assert "outside the margin of 0.03" in text(verdict)


def test_a_least_gain_must_be_reached_by_the_lower_end() -> None:
    assert decide(over(min_gain=0.05)).decision == "promote"
    verdict = decide(over(min_gain=0.09))
    assert verdict.decision == "hold"
    assert "not shown to be at least 0.09" in text(verdict)


def test_a_lower_metric_is_better_where_it_is_one() -> None:
    verdict = decide(over("error_rate"))
    assert verdict.decision == "promote"
    comparison = verdict.reasons[0].comparison
    assert comparison is not None
    assert comparison.gain == pytest.approx(0.095)
    assert comparison.challenger < comparison.champion


def scored(scores: list[float]) -> Predictions:
    return answers(range(0), len(scores), score=[repr(float(x)) for x in scores])


def test_a_score_of_any_kind_is_bootstrapped() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(200)
    low, high = scored([*base]), scored([*(base + 0.1 + rng.normal(0, 0.05, 200))])
    rules = over("score", better="higher"), over("score", better="lower")
    assert decide(rules[0], challenger=high, champion=low).decision == "promote"
    assert decide(rules[1], challenger=high, champion=low).decision == "reject"
    assert decide(rules[1], challenger=low, champion=high).decision == "promote"
    few = decide(rules[0], challenger=scored([1, 2, 3]), champion=scored([0, 1, 2]))
    assert few.decision == "hold"
    with pytest.raises(ValueError, match="score can be a gain or a cost"):
        over("score")


# -- what fails closed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "0.99", True, None, [0.99], np.bool_(True), 10**400]
)
def test_a_metric_that_is_no_finite_number_is_rejected(value: Any) -> None:
    for bound in (rule(min=0.5), rule(max=2.0), rule("custom", min=-1.0)):
        verdict = decide(bound, metrics={"accuracy": value, "custom": value})
        assert verdict.decision == "reject"
        assert verdict.metrics == {}
    assert decide(over(), metrics={"accuracy": value}).decision == "reject"


def test_a_missing_metric_is_rejected() -> None:
    verdict = decide(rule("recall_9", min=0.5), metrics={"accuracy": 1.0})
    assert verdict.decision == "reject"
    assert "recall_9 is missing" in text(verdict)


@pytest.mark.parametrize("champion", [None, FAIR])
def test_an_empty_gate_is_rejected(champion: Predictions | None) -> None:
    verdict = decide(champion=champion)
    assert verdict.decision == "reject"
    assert text(verdict) == "the gate has no rules"


def test_missing_predictions_are_rejected() -> None:
    verdict = decide(over(), challenger=None, metrics={"accuracy": 0.99})
    assert verdict.decision == "reject"
    assert f"no predictions {KEY}" in text(verdict)
    serving = Champion("sha256:old", {}, {})
    verdict = decide(over(), serving=serving)
    assert verdict.decision == "reject"
    assert "the champion has no predictions" in text(verdict)


def test_other_examples_or_labels_are_rejected() -> None:
    flipped = {**FAIR.columns, "label": ["1", *FAIR.columns["label"][1:]]}
    relabelled = Predictions(FAIR.ids, flipped, FAIR.path)
    renamed = Predictions(["other", *FAIR.ids[1:]], FAIR.columns, FAIR.path)
    for theirs in (answers(range(50), N - 2), relabelled, renamed):
        verdict = decide(over(), champion=theirs)
        assert verdict.decision == "reject"
        assert "other examples or labels" in text(verdict)


def test_a_champion_without_what_the_metric_needs_is_rejected() -> None:
    ours = scored([0.0, 1.0] * 20)
    theirs = answers(range(3), 40)
    verdict = decide(over("score", better="higher"), challenger=ours, champion=theirs)
    assert verdict.decision == "reject"
    assert "the champion's predictions do not give score" in text(verdict)


def test_a_better_report_than_the_predictions_show_is_rejected() -> None:
    for gate in ([over()], [rule(min=0.5), over()], [rule(min=0.5, predictions=KEY)]):
        verdict = decide(*gate, metrics={"accuracy": 0.999})
        assert verdict.decision == "reject"
        assert "accuracy is reported as 0.999, but the predictions give 0.970" in text(verdict)
    rounded = float(np.float32(accuracy(GOOD)))
    assert decide(over(), metrics={"accuracy": rounded}).decision == "promote"


def test_without_a_champion_the_absolute_rules_decide() -> None:
    for least, decision in ((0.8, "promote"), (0.99, "reject")):
        verdict = decide(rule(min=least), over(), champion=None)
        assert verdict.decision == decision
        assert NO_CHAMPION in verdict.notes
        assert verdict.champion is None
    verdict = decide(over(), champion=None)
    assert verdict.decision == "reject"
    assert "nothing judged this model" in text(verdict)
    assert decide(rule(min=0.8), over(), champion=None, metrics={"accuracy": 0.99}).decision == (
        "reject"
    )


def test_the_model_that_serves_is_held() -> None:
    verdict = decide(rule(min=0.5), over(), challenger_digest="sha256:old")
    assert verdict.decision == "hold"
    assert text(verdict) == "this model already serves"
    assert decide(challenger_digest="sha256:old").decision == "reject"


# -- slices ----------------------------------------------------------------------------------------


def sliced(wrong: range, site: list[str] | None = None) -> Predictions:
    return answers(wrong, site=site or ["b" if i < 40 else "a" for i in range(N)])


def test_each_slice_has_its_bounds() -> None:
    p = sliced(range(12))
    by = {"by": "site", "predictions": KEY}
    verdict = decide(rule(min=0.8, **by), challenger=p)
    assert verdict.decision == "reject"
    assert [(r.slice, r.decision) for r in verdict.reasons] == [("a", "promote"), ("b", "reject")]
    assert verdict.reasons[1].text == "site=b: accuracy 0.700 < 0.80 (95% CI 0.535 to 0.834)"
    own = {"b": {"min": 0.6}}
    assert decide(rule(min=0.8, slices=own, **by), challenger=p).decision == "promote"
    small = decide(rule(min=0.8, min_examples=50, **by), challenger=p)
    assert small.decision == "promote"
    assert "accuracy, site=b: 40 examples, fewer than 50: not judged" in small.notes
    assert decide(rule(min=0.8, min_examples=500, **by), challenger=p).decision == "reject"
    named = {"c": {"min": 0.1}}
    absent = decide(rule(min=0.1, slices=named, **by), challenger=p)
    assert absent.decision == "reject"
    assert "site=c: no examples of this slice" in text(absent)


def test_a_slice_that_is_worse_than_the_champion_rejects() -> None:
    ours, theirs = sliced(range(12)), sliced(range(60, 110))
    assert decide(over(), challenger=ours, champion=theirs).decision == "promote"
    verdict = decide(over(by="site"), challenger=ours, champion=theirs)
    assert verdict.decision == "reject"
    assert [(r.slice, r.decision) for r in verdict.reasons] == [("a", "promote"), ("b", "reject")]


def test_bad_slices_are_a_configuration_error() -> None:
    many = answers(range(3), site=[f"s{i}" for i in range(N)])
    with pytest.raises(ConfigError, match="more than 200 slices"):
        decide(rule(min=0.1, by="site", predictions=KEY), challenger=many)
    with pytest.raises(ConfigError, match="no column 'region'"):
        decide(rule(min=0.1, by="region", predictions=KEY))


# -- configuration, overrides, text ----------------------------------------------------------------


def test_a_metric_that_the_predictions_cannot_give_is_a_configuration_error() -> None:
    for champion in (None, FAIR):
        for metric in ("bleu", "log_loss", "f1_9", "roc_auc", "score"):
            with pytest.raises(ConfigError, match="cannot be computed") as error:
                decide(
                    over(metric, better="lower" if metric == "log_loss" else "higher"),
                    champion=champion,
                )
            assert "f1_macro" in error.value.next
            assert "log_loss" not in error.value.next
    with pytest.raises(ConfigError, match="McNemar"):
        decide(over("f1_macro", test="mcnemar"))
    with pytest.raises(ConfigError, match="lower error_rate is better"):
        decide(over("error_rate", better="higher"))


def test_importing_the_gate_costs_no_numpy() -> None:
    code = "import sys, ctflow.gate; print({'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_override_is_recorded_and_needs_a_reason() -> None:
    override = Override("agreed with the owners", "ada")
    verdict = decide(rule(min=0.99), override=override)
    assert verdict.decision == "reject"
    assert verdict.override == override
    assert verdict.passes
    with pytest.raises(UsageError, match="needs a reason"):
        decide(rule(min=0.99), override=replace(override, reason=" \n"))


def test_text_from_steps_is_one_plain_bounded_line() -> None:
    nasty = "\x1b[31m" + "x" * 5000 + "\n\u202e<script>"
    p = answers(range(3), site=[nasty] * N)
    verdict = decide(rule(min=0.1, by="site", predictions=KEY), challenger=p)
    for reason in verdict.reasons:
        assert reason.text.isprintable()
        assert len(reason.text) <= 400
        assert len(reason.slice) <= 100


@given(st.floats(0, 1), st.floats(0, 1))
def test_shown_figures_agree_with_the_decision(value: float, bound: float) -> None:
    verdict = decide(rule("custom", min=bound), metrics={"custom": value})
    words = verdict.reasons[0].text.split()
    assert words[2] == (">=" if value >= bound else "<")
    if words[2] == "<" and bound - value > 1e-9:
        assert float(words[1]) < bound


# -- properties ------------------------------------------------------------------------------------

models = st.lists(st.sampled_from(["0", "1", "2"]), min_size=30, max_size=30)
METRICS = ["accuracy", "error_rate", "f1_macro", "balanced_accuracy", "mae", "rmse"]


def model(given: list[str], order: list[int] | None = None) -> Predictions:
    rows = order or list(range(len(given)))
    labels = [str(i % 3) for i in rows]
    columns = {"label": labels, "prediction": [given[i] for i in rows]}
    return Predictions([f"e{i}" for i in rows], columns, Path("p.csv"))


@settings(max_examples=25, deadline=None)
@given(models, models, st.permutations(range(30)), st.sampled_from(METRICS))
def test_the_order_of_rows_does_not_matter(
    ours: list[str], theirs: list[str], order: list[int], metric: str
) -> None:
    first = decide(over(metric), challenger=model(ours), champion=model(theirs))
    again = decide(over(metric), challenger=model(ours, order), champion=model(theirs))
    assert first == again


@settings(max_examples=25, deadline=None)
@given(models, models, st.sampled_from(METRICS))
def test_swapping_the_models_negates_the_gain(
    ours: list[str], theirs: list[str], metric: str
) -> None:
    here = decide(over(metric), challenger=model(ours), champion=model(theirs))
    there = decide(over(metric), challenger=model(theirs), champion=model(ours))
    a, b = here.reasons[0].comparison, there.reasons[0].comparison
    assert (a is None) == (b is None)
    if a and b:
        assert a.gain == pytest.approx(-b.gain, abs=1e-12)
    assert "promote" not in (here.decision, there.decision) or here.decision != there.decision


@settings(max_examples=25, deadline=None)
@given(models, st.sampled_from(METRICS))
def test_the_same_answers_are_never_promoted(given: list[str], metric: str) -> None:
    verdict = decide(over(metric), challenger=model(given), champion=model(given))
    assert verdict.decision == "hold"


@given(st.sampled_from(["label", "prediction", "score", "p_1"]), st.integers(0, 29))
def test_nan_anywhere_is_never_judged(column: str, row: int) -> None:
    columns = {
        name: ["1"] * 30 if name != column else ["1"] * row + ["nan"] + ["1"] * (29 - row)
        for name in ("label", "prediction", "score", "p_1")
    }
    with pytest.raises(UsageError, match="nan"):
        Predictions([f"e{i}" for i in range(30)], columns, Path("p.csv"))
