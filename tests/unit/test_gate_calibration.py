"""Chance alone: how often two equally good models make the gate promote one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctflow.gate import Champion, judge
from ctflow.gate.evidence import Predictions
from ctflow.gate_rules import GateRule

KEY = "evaluate.predictions"
TRIALS = 240


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
