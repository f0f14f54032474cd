"""Expected calibration error: how it is computed, and that it is for bounds alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError
from ctflow.gate import judge
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.metrics.calibration import BINS
from ctflow.gate.metrics.scores import computable, measure

KEY = "evaluate.predictions"


def table(**columns: Any) -> Predictions:
    named = {name: [str(x) for x in np.asarray(column)] for name, column in columns.items()}
    return Predictions([f"e{i}" for i in range(len(named["label"]))], named, Path("p.csv"))


def says(chance: float, right: int, n: int) -> Predictions:
    """A model that gives its answers that probability, and is right on so many of them."""
    label = ["a" if i < right else "b" for i in range(n)]
    return table(label=label, prediction=["a"] * n, p_a=[chance] * n, p_b=[1 - chance] * n)


def value(p: Predictions) -> float:
    return float(measure("ece", [p]).values()[0])


def test_how_far_what_it_says_is_from_how_often_it_is_right() -> None:
    assert value(says(0.9, 90, 100)) == pytest.approx(0)
    assert value(says(0.9, 70, 100)) == pytest.approx(0.2)
    assert value(says(0.6, 90, 100)) == pytest.approx(0.3)
    assert value(says(1.0, 100, 100)) == pytest.approx(0)


def test_bins_do_not_make_up_for_each_other() -> None:
    """Too sure in one bin, and too unsure in another."""
    rng = np.random.default_rng(1)
    chance = rng.uniform(0.5, 1, 600)
    right = rng.random(600) < 0.8
    label = np.where(right, "a", "b")
    p = table(label=label, prediction=["a"] * 600, p_a=chance, p_b=1 - chance)
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    expected = sum(
        abs(right[bins == b].mean() - chance[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    assert value(p) == pytest.approx(expected)
    rows = np.arange(0, 600, 3)
    assert measure("ece", [p]).values(rows)[0] != pytest.approx(expected)


def test_one_column_of_two_classes_is_enough() -> None:
    p = table(label=["1", "0"] * 20, prediction=["1", "0"] * 20, p_1=[0.8, 0.1] * 20)
    assert value(p) == pytest.approx((0.2 + 0.1) / 2)
    with pytest.raises(ConfigError, match="no column p_b"):
        measure("ece", [table(label=["a", "b", "c"], prediction=["a", "b", "c"], p_a=[1, 0, 0])])
    assert "ece" in computable(p)


def test_a_bound() -> None:
    rule = GateRule.model_validate({"metric": "ece", "max": 0.1, "predictions": KEY, "by": "site"})
    p = says(0.9, 70, 100)
    p = Predictions(p.ids, {**p.columns, "site": ["x"] * 100}, p.path)
    verdict = judge(
        project="p", environment="staging", run="r-1", rules=[rule], metrics={},
        predictions={KEY: p}, champion=None,
    )  # fmt: skip
    assert verdict.decision == "reject"
    assert verdict.reasons[0].text == "site=x: ece 0.200 > 0.10"


@pytest.mark.parametrize(
    "more",
    [{"over": "champion"}, {"max": 0.1, "confidence": 0.95}, {"max": 0.1, "weight": "w"},
     {"max": 0.1, "between": "site", "confidence": 0.9}],
)  # fmt: skip
def test_without_an_interval_it_is_for_bounds_only(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"ece (has no interval|does not go with)"):
        GateRule.model_validate({"metric": "ece", "predictions": KEY, **more})
