"""NDCG: the mean over queries of how well each is ranked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.metrics.ndcg import by_query
from ctflow.gate.metrics.scores import computable, measure
from ctflow.gate.plans import plan_rule
from ctflow.gate.single import Single
from ctflow.model import Verdict

KEY = "evaluate.predictions"


def model(**columns: Any) -> Predictions:
    table = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    table.setdefault("prediction", ["0"] * len(table["label"]))
    return Predictions([f"e{i:05}" for i in range(len(table["label"]))], table, Path("p.csv"))


def rule(**says: Any) -> GateRule:
    told = {"metric": "ndcg", "over": "champion", "predictions": KEY, "group": "query"}
    return GateRule.model_validate(told | says)


def judged(said: GateRule, ours: Predictions, theirs: Predictions | None) -> Verdict:
    return judge(
        project="p", environment="staging", run="r-1", rules=[said], metrics={},
        predictions={KEY: ours},
        champion=Champion("sha256:old", {}, {KEY: theirs}) if theirs else None,
    )  # fmt: skip


def ranked(seed: int, queries: int = 120, noise: float = 1.0, **columns: Any) -> Predictions:
    """Queries of 2 to 11 rows; the rows and their labels are the same for every seed."""
    fixed = np.random.default_rng(0)
    who = np.repeat(np.arange(queries), fixed.integers(2, 12, queries))
    label = fixed.choice(4, len(who), p=[0.6, 0.2, 0.1, 0.1])
    score = label + np.random.default_rng(seed).normal(0, noise, len(who))
    return model(label=label, score=score, query=who, **columns)


@pytest.mark.parametrize("k", [None, 1, 3, 10, 50])
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_each_query_is_scikit_learns_also_where_scores_tie(k: int | None, decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    sizes = rng.integers(2, 15, 40)
    who = np.repeat(np.arange(40), sizes)
    order = rng.permutation(len(who))  # the rows of a query need not be together
    who = who[order]
    label = rng.integers(0, 4, len(who)) * (rng.random(len(who)) < 0.4).astype(float)
    score = np.round(rng.normal(0, 1, len(who)), decimals)
    found = by_query(who, label, score, k)
    for query in range(40):
        rows = who == query
        assert found[query] == pytest.approx(ndcg_score([label[rows]], [score[rows]], k=k))


def test_the_metric_is_the_mean_over_queries_and_not_over_rows() -> None:
    ours = ranked(1)
    label, score, who = (ours.numbers(name) for name in ("label", "score", "query"))
    each = [
        ndcg_score([label[who == query]], [score[who == query]], k=5) for query in np.unique(who)
    ]
    found = measure("ndcg_5", [ours], group="query")
    assert float(found.values()[0]) == pytest.approx(np.mean(each))
    estimate = Single("ndcg_5", ours, group="query").estimate(0.95, None, len(ours))
    assert estimate.value == pytest.approx(np.mean(each))
    assert (estimate.groups, estimate.examples) == (120, len(ours))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_queries_without_a_relevant_row_are_0_and_those_of_one_relevant_row_1() -> None:
    who, label = np.array([0, 0, 1, 2]), np.array([0.0, 0.0, 2.0, 0.0])
    assert by_query(who, label, np.array([1.0, 2.0, 3.0, 4.0])).tolist() == [0, 1, 0]


def test_a_better_ranking_is_promoted_by_students_interval_over_queries() -> None:
    ours, theirs = ranked(1, noise=0.6), ranked(2, noise=1.2)
    verdict = judged(rule(), ours, theirs)
    assert verdict.decision == "promote"
    (found,) = [one.comparison for one in verdict.reasons if one.comparison]
    assert (found.groups, found.examples) == (120, len(ours))
    pair = measure("ndcg", [ours, theirs], group="query")
    first, second = pair.linear(None)  # type: ignore[attr-defined]
    assert found.gain == pytest.approx(float((first - second).mean()))
    assert found.differ == int((first != second).sum())
    t = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.low == pytest.approx(min(t.low, found.low))
    assert found.low > t.low - 0.1 * (t.high - t.low)
    assert "120 groups" in verdict.reasons[0].text
    assert judged(rule(), theirs, ours).decision == "reject"


def test_the_order_of_the_rows_changes_nothing() -> None:
    ours, theirs = ranked(1), ranked(2)
    turned = [
        Predictions(
            list(reversed(one.ids)),
            {name: list(reversed(list(column))) for name, column in one.columns.items()},
            one.path,
        )
        for one in (ours, theirs)
    ]
    assert judged(rule(), *turned).reasons == judged(rule(), ours, theirs).reasons


def test_equal_rankings_of_other_scores_do_not_differ() -> None:
    ours = ranked(1)
    scaled = model(
        label=[*ours.columns["label"]], query=[*ours.columns["query"]],
        score=ours.numbers("score") * 3 + 1,
    )  # fmt: skip
    verdict = judged(rule(margin=0.05), ours, scaled)
    (found,) = [one.comparison for one in verdict.reasons if one.comparison]
    assert found.differ == 0
    assert found.gain == 0
    assert verdict.decision == "promote"
    assert judged(rule(), ours, scaled).decision == "hold"


def test_slices_of_whole_queries_work_and_others_are_refused() -> None:
    who = ranked(1).numbers("query")
    language = np.where(who < 60, "en", "de")
    ours, theirs = ranked(1, noise=0.5, language=language), ranked(2, language=language)
    verdict = judged(rule(by="language"), ours, theirs)
    groups = {one.slice: one.comparison.groups for one in verdict.reasons if one.comparison}
    assert groups == {"en": 60, "de": 60}
    split = np.arange(len(who)) % 2
    with pytest.raises(ConfigError, match=r"a part of the rows of query '?0") as caught:
        judged(rule(by="half"), ranked(1, half=split), ranked(2, half=split))
    assert "same for all rows of a query" in (caught.value.next or "")


def test_a_hold_counts_queries_and_a_plan_too() -> None:
    verdict = judged(rule(), ranked(1), ranked(2, noise=1.02))
    assert verdict.decision == "hold"
    assert any("groups" in note and "120" in note for note in verdict.notes)
    plan = plan_rule(rule(), ranked(1))
    assert plan.groups == 120
    assert plan.best == pytest.approx(1 - (plan.value or 0))
    assert plan.assumed[0].needed[-1] is not None


def test_bounds_with_and_without_a_confidence() -> None:
    sure = rule(over=None, min=0.5, confidence=0.95)
    assert judged(sure, ranked(1, noise=0.3), None).decision == "promote"
    point = rule(over=None, min=0.999)
    found = judge(
        project="p", environment="staging", run="r-1", rules=[point], metrics={"ndcg": 0.5},
        predictions={KEY: ranked(1)}, champion=None,
    )  # fmt: skip
    assert "the predictions give" in found.reasons[0].text


@pytest.mark.parametrize(
    ("says", "fact"),
    [
        ({"group": None}, "needs 'group: column'"),
        ({"group": None, "over": None, "min": 0.5}, "needs 'group: column'"),
        ({"block": "7d"}, "goes with none of 'between', 'block'"),
        ({"over": None, "between": "half", "max": 0.1}, "goes with none of 'between', 'block'"),
        ({"test": "mcnemar"}, "goes with none of 'between', 'block'"),
        ({"weight": "w"}, "does not go with 'weight'"),
        ({"margin": 5}, "within 0 and 1"),
        ({"metric": "ndcg_0"}, "group"),
    ],
)
def test_a_rule_that_is_none_is_refused(says: dict[str, Any], fact: str) -> None:
    if says.get("metric") == "ndcg_0":
        with pytest.raises(ConfigError, match="ndcg_0"):
            judged(rule(**says), ranked(1), ranked(2))
        return
    with pytest.raises(ValueError, match=fact):
        rule(**says)


def test_predictions_that_are_no_ranking_are_refused() -> None:
    good = ranked(1, 20)
    label, who, score = (good.numbers(name) for name in ("label", "query", "score"))
    names = ["a"] * len(label)
    for columns, fact in (
        ({"label": label, "query": who}, "no column score"),
        ({"label": label - 1, "query": who, "score": score}, "below 0"),
        ({"label": names, "query": who, "score": score}, "no relevance"),
    ):
        with pytest.raises(ConfigError, match=fact):
            measure("ndcg", [model(**columns)], group="query")
    with pytest.raises(ConfigError, match="no column 'query'"):
        judged(rule(), model(label=label, score=score), good)
    other = model(label=label, score=score, query=who + 1)
    with pytest.raises(ConfigError, match="other queries"):
        measure("ndcg", [good, other], group="query")
    assert "ndcg_<k> with 'group'" in computable(good)
    assert "ndcg_<k> with 'group'" not in computable(model(label=label, query=who))
