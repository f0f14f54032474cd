"""A fair comparison in each metric: one scale, one positive class, intervals by class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import binomtest
from scipy.stats import t as student_t

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.intervals.significance import (
    incomplete_beta,
    mover,
    right_wrong_interval,
    student,
    t_interval,
    unseen,
)
from ctflow.gate.metrics.measures import Means
from ctflow.gate.metrics.scores import measure
from ctflow.model import Verdict

KEY = "evaluate.predictions"


def model(**columns: Any) -> Predictions:
    table = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    return Predictions([f"e{i:05}" for i in range(len(table["label"]))], table, Path("p.csv"))


def compared(metric: str, ours: Predictions, theirs: Predictions | None, **says: Any) -> Verdict:
    over = {"over": "champion"} if theirs is not None else {}
    rule = GateRule.model_validate({"metric": metric, "predictions": KEY, **over, **says})
    return judge(
        project="p", environment="staging", run="r-1", rules=[rule],
        metrics=says.pop("metrics", {metric: 0.01}) if theirs is None else {},
        predictions={KEY: ours},
        champion=None if theirs is None else Champion("sha256:old", {}, {KEY: theirs}),
    )  # fmt: skip


def test_students_quantile_is_scipys() -> None:
    for degrees in (1, 2, 5, 5.5, 30, 1e4):
        for level in (0.6, 0.975, 0.9999):
            assert student(level, degrees) == pytest.approx(student_t.ppf(level, degrees), rel=1e-8)
    for x in (0.0, 0.01, 0.5, 0.999, 1.0):
        assert incomplete_beta(x, 2.5, 0.5) == pytest.approx(betainc(2.5, 0.5, x), abs=1e-13)


def test_students_interval_is_scipys_and_a_disaster_widens_its_lower_end() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.1, 1, 60)
    mean = float(values.mean())
    expected = student_t.interval(0.95, 59, mean, values.std(ddof=1) / np.sqrt(60))
    assert t_interval(values, mean, 60, 0.95) == pytest.approx(expected, rel=1e-9)
    added = np.append(values, -9.0)
    low, high = t_interval(values, mean, 60, 0.95, worst=9.0)
    by_hand = student_t.ppf(0.025, 59) * added.std(ddof=1) / np.sqrt(61) + added.mean()
    assert low == pytest.approx(by_hand, rel=1e-9)
    assert high > expected[1]


def test_a_mean_of_one_class_is_tangos_and_few_differences_have_wilsons_limit() -> None:
    plain = right_wrong_interval(0, 0, 50, 0.95)
    assert mover([(0, 0, 50)], 0.95) == pytest.approx(plain, abs=1e-12)
    wilson = binomtest(5, 50).proportion_ci(0.95, method="wilson")
    assert unseen(5, 50, 0.95) == pytest.approx(wilson.high - 0.1, rel=1e-9)
    both = mover([(5, 1, 40), (3, 4, 900)], 0.95)
    rare = mover([(5, 1, 40)], 0.95)
    assert both[1] - both[0] > (rare[1] - rare[0]) / 2  # most of the doubt is the rare class's


def test_an_empty_third_class_does_not_change_the_scale_of_brier() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    p = np.where(rng.random(400) < 0.8, np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.2, 0.8))
    said = {"label": y, "prediction": (p > 0.5).astype(int), "p_0": 1 - p, "p_1": p}
    two, three = model(**said), model(**said, p_2=0 * p)
    for ours, theirs in ((two, three), (three, two)):
        verdict = compared("brier", ours, theirs)
        assert verdict.decision == "hold"
        found = verdict.reasons[0].comparison
        assert found is not None
        assert found.challenger == found.champion


def test_probabilities_are_brought_to_one_or_refused_by_row() -> None:
    y = np.arange(400) % 2
    p = np.where(y == 1, 0.8, 0.3)
    same = model(label=y, prediction=y, p_0=1 - p, p_1=p)
    rounded = model(label=y, prediction=y, p_0=(1 - p) * 1.0009, p_1=p * 1.0009)
    assert compared("log_loss", rounded, same).reasons[0].decision == "hold"
    with pytest.raises(ConfigError, match=r"id e00000 add up to 1\.0099, not 1"):
        compared(
            "log_loss", model(label=y, prediction=y, p_0=(1 - p) * 1.0099, p_1=p * 1.0099), same
        )


def test_the_positive_class_is_not_the_challengers_choice() -> None:
    i = np.arange(2000)
    y = (i < 100).astype(int)
    right = np.where(y == 1, i % 5 != 0, i % 24 == 0).astype(int)
    champion = model(label=y, prediction=right, p_1=np.where(right == 1, 0.9, 0.05))
    never = model(label=y, prediction=0 * y, p_0=0 * y + 0.95)
    verdict = compared("f1", never, champion, margin=0.02)
    assert verdict.decision == "reject"
    assert verdict.reasons[0].comparison is not None
    assert verdict.reasons[0].comparison.challenger == 0
    both = model(label=y, prediction=right, p_0=1 - right * 0.9, p_1=right * 0.9)
    other = model(label=y, prediction=right, p_0=1 - right * 0.8)
    assert compared("roc_auc", both, other).decision == "hold"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"margin": 5}, "write 0.05 for 5 points"),
        ({"min_gain": 1.5}, "write 0.015 for 1.5 points"),
        ({"min_gain": -0.95}, "greater than or equal to 0"),
    ],
)
def test_a_margin_or_gain_in_the_wrong_unit_is_refused(says: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compared(
            "accuracy", model(label=[1], prediction=[1]), model(label=[1], prediction=[1]), **says
        )
    free = {"metric": "rmse", "over": "champion", "predictions": KEY, "margin": 5}
    assert GateRule.model_validate(free).margin == 5


def test_balanced_accuracy_without_a_class_is_rejected_and_with_few_held() -> None:
    i = np.arange(50)
    y = (i < 2).astype(int)

    def wrong(every: int, at: int) -> Any:
        return np.where((y == 0) & (i % every == at), 1, y)

    few = compared(
        "balanced_accuracy",
        model(label=y, prediction=wrong(24, 5)),
        model(label=y, prediction=wrong(4, 3)),
    )
    assert few.decision == "hold"
    none = compared(
        "balanced_accuracy",
        model(label=0 * y, prediction=wrong(24, 5)),
        model(label=0 * y, prediction=wrong(4, 3)),
    )
    assert none.decision == "reject"
    assert "undefined" in none.reasons[0].text


@pytest.mark.parametrize("metric", ["recall_macro", "precision_macro", "f1_macro"])
def test_a_class_that_is_only_answered_is_rejected_by_name(metric: str) -> None:
    i = np.arange(400)
    y = i % 2
    good, fair = np.where(i < 12, 1 - y, y), np.where(i < 60, 1 - y, y)
    stray = np.where(i >= 390, 7, fair)
    for ours, theirs, who in ((good, stray, "champion"), (stray, good, "challenger")):
        groups: list[dict[str, Any]] = [{}, {"group": "who"}]
        for says in groups if metric == "recall_macro" else groups[:1]:
            models = [model(label=y, prediction=a, who=i // 4) for a in (ours, theirs)]
            verdict = compared(metric, models[0], models[1], **says)
            assert verdict.decision == "reject"
            assert f"class '7' is answered by the {who} and has no examples" in (
                verdict.reasons[0].text
            )
    part = np.where(i < 200, "a", "b")
    labels = np.where((y == 1) & (i >= 200), 0, y)  # part b has no example of class 1
    pair = model(label=labels, prediction=good, part=part), model(label=labels, prediction=fair)
    verdict = compared(metric, *pair, by="part")
    assert [r.decision for r in verdict.reasons][1] == "reject"
    assert verdict.reasons[1].text.startswith(f"part=b: {metric}: class '1' is answered by the ")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "recall_weighted", "f1_weighted", "f1_1"])
def test_a_class_that_is_only_answered_does_not_disturb_other_averages(metric: str) -> None:
    i = np.arange(400)
    y = i % 2
    stray = np.where(i % 40 == 3, 7, np.where(i < 60, 1 - y, y))
    verdict = compared(metric, model(label=y, prediction=y), model(label=y, prediction=stray))
    assert verdict.decision == "promote"


def test_equal_balanced_accuracy_with_few_positives_is_not_promoted() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        y = (rng.random(50) < 0.05).astype(int)

        def answer(hit: float, pass_: float, y: Any = y) -> Any:
            return np.where(
                np.where(y == 1, rng.random(50) < hit, rng.random(50) < pass_), y, 1 - y
            )

        ours = model(label=y, prediction=answer(0.75, 0.95))
        theirs = model(label=y, prediction=answer(0.95, 0.75))
        found += compared("balanced_accuracy", ours, theirs).decision == "promote"
    assert found <= 10


@pytest.mark.parametrize(
    ("metric", "margin"), [("recall", 0.02), ("balanced_accuracy", 0.01), ("f1", 0.011)]
)
def test_a_loss_in_a_rare_class_is_not_within_the_margin(metric: str, margin: float) -> None:
    rng = np.random.default_rng(1)
    y = (np.arange(1000) < 50).astype(int)
    found = 0
    for _ in range(100):
        old = np.where(y == 1, rng.random(1000) < 0.9, rng.random(1000) < 0.01).astype(int)
        new = np.where((y == 1) & (old == 1) & (rng.random(1000) < 0.02 / 0.9), 0, old)
        pair = model(label=y, prediction=new), model(label=y, prediction=old)
        found += compared(metric, *pair, margin=margin).decision == "promote"
    assert found <= 7


def test_the_same_numbers_are_within_any_margin_that_the_set_can_bear_out() -> None:
    v = np.arange(400) / 7
    same = model(label=v, prediction=v + 0.1)
    near = model(label=v, prediction=np.where(np.arange(400) < 5, v + 0.11, v + 0.1))
    for ours in (same, near):
        assert compared("mae", ours, same, margin=1000).decision == "promote"
        assert compared("mae", ours, same, margin=1e-9).decision == "hold"
        assert compared("mae", ours, same).decision == "hold"


def test_an_area_of_few_positives_is_held() -> None:
    y = (np.arange(400) < 20).astype(int)
    good = model(label=y, prediction=y, p_1=np.where(y == 1, 0.9, 0.1))
    poor = model(label=y, prediction=y, p_1=(np.arange(400) % 10) / 10)
    verdict = compared("roc_auc", good, poor)
    assert verdict.decision == "hold"
    assert "20 examples of the rarer class" in verdict.reasons[0].text


def test_an_area_of_many_is_compared_with_delongs_variance() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 600)
    ours = np.clip(0.5 + (y - 0.5) * 0.5 + rng.normal(0, 0.25, 600), 0, 1)
    theirs = np.clip(0.5 + (y - 0.5) * 0.2 + rng.normal(0, 0.25, 600), 0, 1)
    verdict = compared(
        "roc_auc", model(label=y, prediction=y, p_1=ours), model(label=y, prediction=y, p_1=theirs)
    )
    found = verdict.reasons[0].comparison
    assert verdict.decision == "promote"
    assert found is not None
    # DeLong's variance from its definition, pair by pair.
    parts = []
    for s in (ours, theirs):
        wins = np.subtract.outer(s[y == 1], s[y == 0])
        wins = (wins > 0) + 0.5 * (wins == 0)
        parts.append((wins.mean(axis=1), wins.mean(axis=0)))
    gain = parts[0][0].mean() - parts[1][0].mean()
    var = sum((a - b).var(ddof=1) / len(a) for a, b in zip(*parts, strict=True))
    assert found.gain == pytest.approx(gain, abs=1e-12)
    assert found.low <= gain - 1.96 * np.sqrt(var)
    assert found.low == pytest.approx(gain - 1.96 * np.sqrt(var), abs=0.01)


def test_a_metric_that_cannot_be_checked_is_said() -> None:
    y = np.arange(400) % 2
    verdict = compared("log_loss", model(label=y, prediction=y, p_1=0 * y + 0.5, p_2=0 * y + 0.5),
                       None, max=0.5)  # fmt: skip
    assert any("not checked against the predictions: there is no column p_0" in n
               for n in verdict.notes)  # fmt: skip


def test_a_metric_that_improves_as_it_falls_says_so_in_words() -> None:
    label = np.arange(200) / 3
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, 200)
    ours, theirs = (model(label=label, prediction=label + size * noise) for size in (1.0, 3.0))
    better = compared("rmse", ours, theirs).reasons[0].text
    assert re.fullmatch(
        r"rmse [\d.]+, [\d.]+ lower, so better, than the champion's [\d.]+ "
        r"\(95% CI of the gain [\d.]+ to [\d.]+\)",
        better,
    )
    worse = compared("rmse", theirs, ours).reasons[0].text
    assert "higher, so worse, than the champion's" in worse
    assert "(95% CI of the gain -" in worse
    few = (
        model(label=label[:3], prediction=label[:3]),
        model(label=label[:3], prediction=label[:3] + 1),
    )
    assert "over champion" not in compared("rmse", *few).reasons[0].text
    same = compared("rmse", ours, ours).reasons[0].text
    assert re.match(r"rmse \d\.\d{3}, as the champion's \(", same)


def clustered(rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Two equally good models on 50 groups of 20 rows, which are right or wrong together."""
    y = np.repeat(rng.integers(0, 2, 50), 20)
    wins = np.repeat(rng.choice([1, -1, 0], 50, p=[0.1, 0.1, 0.8]), 20)
    who = np.arange(1000) // 20
    ours, theirs = np.where(wins == -1, 1 - y, y), np.where(wins == 1, 1 - y, y)
    jitter = rng.random((2, 1000)) * 0.2 - 0.1
    p, q = 0.15 + 0.7 * ours + jitter[0], 0.15 + 0.7 * theirs + jitter[1]
    return (
        model(label=y, prediction=ours, p_1=p, who=who),
        model(label=y, prediction=theirs, p_1=q, who=who),
    )


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "brier", "roc_auc"])
def test_rows_that_go_together_do_not_promote_an_equal_model(metric: str) -> None:
    rng = np.random.default_rng(1)
    found = sum(
        compared(metric, *clustered(rng), group="who").decision == "promote" for _ in range(60)
    )
    assert found <= 5


def test_the_same_rows_without_their_group_do() -> None:
    rng = np.random.default_rng(1)
    found = sum(compared("accuracy", *clustered(rng)).decision == "promote" for _ in range(60))
    assert found >= 10


def test_groups_of_one_are_the_paired_t_of_the_rows() -> None:
    rng = np.random.default_rng(5)
    label = rng.normal(0, 1, 300)
    ours, theirs = label + rng.normal(0, 1, 300), label + rng.normal(0, 1.6, 300)
    who = np.arange(300)
    verdict = compared(
        "mse",
        model(label=label, prediction=ours, who=who),
        model(label=label, prediction=theirs, who=who),
        group="who",
    )
    found = verdict.reasons[0].comparison
    assert verdict.decision == "promote"
    assert found is not None
    differences = (theirs - label) ** 2 - (ours - label) ** 2
    low, high = student_t.interval(
        0.95, 299, differences.mean(), differences.std(ddof=1) / np.sqrt(300)
    )
    assert found.gain == pytest.approx(differences.mean())
    assert found.low <= low + 1e-9
    assert found.high >= high - 1e-9
    assert found.high - found.low < 1.2 * (high - low)
    assert found.groups == 300
    assert ", 300 groups)" in verdict.reasons[0].text


def test_few_groups_bound_a_margin_and_show_no_gain() -> None:
    y = np.arange(400) % 2
    who = np.arange(400) // 20
    same = model(label=y, prediction=y, who=who)
    assert compared("accuracy", same, same, group="who", margin=0.3).decision == "promote"
    assert compared("accuracy", same, same, group="who", margin=0.05).decision == "hold"
    poor = model(label=y, prediction=np.where(who < 4, 1 - y, y), who=who)
    verdict = compared("accuracy", same, poor, group="who")
    assert verdict.decision == "hold"
    assert verdict.reasons[0].comparison is not None
    assert "4 of 20 groups, too few" in verdict.reasons[0].comparison.method


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "precision_1"])
def test_a_group_that_the_metric_cannot_have_is_refused(metric: str) -> None:
    with pytest.raises(ValueError, match="'group' does not go with"):
        GateRule.model_validate(
            {"metric": metric, "over": "champion", "predictions": KEY, "group": "who"}
        )
    y = np.arange(10) % 2
    same = model(label=y, prediction=y)
    with pytest.raises(ConfigError, match="no column 'who' to group by"):
        compared("accuracy", same, same, group="who")


def test_resamples_are_doubled_where_the_seed_would_decide() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 1, 120)
    noise -= noise.mean()
    base = rng.normal(0, 1, 120)
    methods = []
    for shift in (0.182, 0.6):
        ours, theirs = (
            model(label=base, prediction=base, score=base + noise + shift),
            model(label=base, prediction=base, score=base),
        )
        found = compared("score", ours, theirs, better="higher").reasons[0].comparison
        assert found is not None
        methods.append((abs(found.low), int(found.method.split()[2])))
        assert "Monte Carlo error" in found.method
    assert methods[0][1] > methods[1][1] == 4_000


def test_one_slice_of_many_that_looks_worse_is_no_reject() -> None:
    slice_of = np.arange(2000) % 20
    y = np.arange(2000) // 20 % 2
    row = np.arange(2000) // 20  # 100 rows in each slice
    theirs = model(label=y, prediction=np.where(row >= 90, 1 - y, y), part=slice_of)

    def ours(lost: int) -> Predictions:
        wrong = (slice_of == 3) & (row < lost)
        return model(label=y, prediction=np.where(wrong | (row >= 97), 1 - y, y), part=slice_of)

    for lost, decision in ((20, "hold"), (45, "reject")):
        # 7 rows better; in slice 3, that many worse.
        verdict = compared("accuracy", ours(lost), theirs, by="part")
        (slice_3,) = (reason for reason in verdict.reasons if reason.slice == "3")
        assert slice_3.decision == decision
        assert ("chance among 20 slices" in slice_3.text) == (decision == "hold")
    alone = Predictions(
        theirs.ids[3::20], {k: v[3::20] for k, v in theirs.columns.items()}, Path("p.csv")
    )
    whole = ours(20)
    part = Predictions(
        whole.ids[3::20], {k: v[3::20] for k, v in whole.columns.items()}, Path("p.csv")
    )
    assert compared("accuracy", part, alone, by="part").decision == "reject"


def test_a_ranking_that_is_the_same_is_bounded_by_its_rarer_class() -> None:
    y = np.arange(400) % 8 == 0
    p = np.arange(400) / 400
    ours = model(label=y.astype(int), prediction=y.astype(int), p_1=p)
    theirs = model(label=y.astype(int), prediction=y.astype(int), p_1=p**2)
    assert compared("roc_auc", ours, theirs, margin=0.001).decision == "hold"
    assert compared("roc_auc", ours, theirs, margin=0.2).decision == "promote"


def test_equal_scores_are_within_a_margin_that_their_spread_can_bear_out() -> None:
    score = np.arange(400) / 400
    same = model(label=score, prediction=score, score=score)
    assert compared("score", same, same, better="higher", margin=1e-6).decision == "hold"
    assert compared("score", same, same, better="higher", margin=0.5).decision == "promote"


def test_few_differences_resampled_by_request_are_bounded_as_wilson_does() -> None:
    y = np.arange(400) % 2
    right = model(label=y, prediction=y)
    lost = model(label=y, prediction=np.where(np.arange(400) < 5, 1 - y, y))
    found = compared("accuracy", lost, right, test="bootstrap").reasons[0].comparison
    assert found is not None
    assert -found.low == pytest.approx(binomtest(5, 400).proportion_ci(0.95, "wilson").high)


def test_groups_in_which_the_models_agree_do_not_count_as_evidence() -> None:
    """Each example has a part in a ratio; only those that differ say anything."""
    y = np.arange(400) % 2
    who = np.arange(400) // 20
    poor = np.where((who < 4) & (y == 1), 0, y)
    ours, theirs = (model(label=y, prediction=answer, who=who) for answer in (y, poor))
    verdict = compared("balanced_accuracy", ours, theirs, group="who")
    assert verdict.decision == "hold"
    assert "differ in 4 of 20 groups, too few" in verdict.reasons[0].text


@pytest.mark.parametrize(("classes", "most"), [(2, 1.0), (3, 2.0)])
def test_the_imagined_disaster_is_the_worst_brier_score_there_can_be(
    classes: int, most: float
) -> None:
    y = np.arange(30) % classes
    columns = {f"p_{k}": np.where(y == k, 0.8, 0.2 / (classes - 1)) for k in range(classes)}
    measured = measure("brier", [model(label=y, prediction=y, **columns)] * 2)
    assert isinstance(measured, Means)
    assert measured.worst(None) == most


def test_one_column_of_no_label_is_not_taken_for_the_other_class() -> None:
    y = np.arange(100) % 2
    odd = model(label=y, prediction=y, p_spam=0.2 + 0.6 * y)
    with pytest.raises(ConfigError, match="there is no column p_1 and no score"):
        compared("roc_auc", odd, odd)
    with pytest.raises(ConfigError, match="no example has the label '7', the positive class"):
        compared("roc_auc", odd, odd, positive="7")
