"""Chance alone: how often two equally good models make the gate promote one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ctflow.config.gate_rules import GateRule
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import Predictions

KEY = "evaluate.predictions"
TRIALS = 240


def bound(p: Predictions, **says: Any) -> str:
    """The decision of one bound."""
    rule = GateRule.model_validate({"predictions": KEY, **says})
    verdict = judge(
        project="p", environment="staging", run="r-1", rules=[rule], metrics={},
        predictions={KEY: p}, champion=None,
    )  # fmt: skip
    return verdict.decision


def model(labels: Any, answers: Any, score: Any = None) -> Predictions:
    columns = {"label": [*map(str, labels)], "prediction": [*map(str, answers)]}
    if score is not None:
        columns["score"] = [repr(float(x)) for x in score]
    return Predictions([f"e{i}" for i in range(len(labels))], columns, Path("p.csv"))


def promoted(metric: str, confidence: float, n: int, better: float = 0.0, **says: Any) -> float:
    """The share of promotions; both models right with 0.85, the challenger with ``better`` more."""
    rng = np.random.default_rng(20)
    if metric == "score":
        says["better"] = "higher"
    rule = GateRule.model_validate(
        {"metric": metric, "over": "champion", "predictions": KEY, "confidence": confidence, **says}
    )
    found = 0
    for trial in range(TRIALS):
        labels = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
        pair = [
            np.where(rng.random(n) < right, labels, (labels + rng.integers(1, 4, n)) % 4)
            for right in (0.85 + better, 0.85)
        ]
        scores = [rng.exponential(1 + better, n), rng.exponential(1, n)]
        ours, theirs = (model(labels, a, s) for a, s in zip(pair, scores, strict=True))
        verdict = judge(
            project="p",
            environment="staging",
            run=f"r-{trial}",
            rules=[rule],
            metrics={},
            predictions={KEY: ours},
            champion=Champion("sha256:old", {}, {KEY: theirs}),
        )
        found += verdict.decision == "promote"
    return found / TRIALS


@pytest.mark.parametrize("n", [25, 150])
@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "balanced_accuracy", "score", "mae"])
def test_equal_models_are_promoted_no_more_often_than_said(metric: str, n: int) -> None:
    tail = (1 - 0.8) / 2
    three_sigma = 3 * np.sqrt(tail * (1 - tail) / TRIALS)
    assert promoted(metric, 0.8, n) <= tail + three_sigma


def test_a_loss_of_the_margin_is_accepted_no_more_often_than_said() -> None:
    tail = (1 - 0.8) / 2
    three_sigma = 3 * np.sqrt(tail * (1 - tail) / TRIALS)
    for metric in ("accuracy", "f1_micro"):
        share = promoted(metric, 0.8, 200, better=-0.05, margin=0.05)
        assert share <= tail + three_sigma


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_a_much_better_model_is_promoted(metric: str) -> None:
    assert promoted(metric, 0.95, 400, better=0.1) > 0.9


@pytest.mark.parametrize(("confidence", "passed"), [(0.95, 0.025), (None, 0.33)])
def test_a_slice_below_its_bound_passes_no_more_often_than_said(
    confidence: float | None, passed: float
) -> None:
    """Every count of right answers of a slice of 50, truly at 0.72, against 0.75."""
    n, total = 50, 0.0
    says = {} if confidence is None else {"confidence": confidence}
    for hits in range(n + 1):
        p = table(label=["1"] * n, prediction=[str(int(i < hits)) for i in range(n)],
                  site=["a"] * n)  # fmt: skip
        if bound(p, metric="accuracy", min=0.75, by="site", **says) == "promote":
            total += stats.binom.pmf(hits, n, 0.72)
    assert total <= passed if confidence else total == pytest.approx(passed, abs=0.05)


@pytest.mark.parametrize("metric", ["brier", "mae", "f1_macro"])
def test_a_model_just_at_its_bound_passes_no_more_often_than_said(metric: str) -> None:
    rng = np.random.default_rng(9)
    tail, found, n = (1 - 0.8) / 2, 0, 100
    three_sigma = 3 * np.sqrt(tail * (1 - tail) / TRIALS)
    where = {"brier": {"max": 1 / 3}, "mae": {"max": 1.0}, "f1_macro": {"min": 0.8}}[metric]
    for _ in range(TRIALS):
        y = rng.integers(0, 2, n)
        if metric == "mae":  # of exponential errors, the mean is 1
            p = table(label=[0] * n, prediction=rng.exponential(1, n))
        else:  # the chance of the true class is uniform; 80% are right
            right = rng.random(n)
            answers = np.where(rng.random(n) < 0.8, y, 1 - y)
            p = table(label=y, prediction=answers, p_1=np.where(y == 1, right, 1 - right))
        found += bound(p, metric=metric, confidence=0.8, **where) == "promote"
    assert found / TRIALS <= tail + three_sigma


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in column] for name, column in columns.items()}
    return Predictions([f"e{i:03}" for i in range(len(named["label"]))], named, Path("p.csv"))
