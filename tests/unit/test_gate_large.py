"""Large sets: judged by formula alone, where resampling would not move the interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ctflow.gate.comparison import Paired
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.intervals import large, significance
from ctflow.gate.intervals.large import needs_no_resampling
from ctflow.gate.metrics.scores import measure
from ctflow.model import Comparison

N = 20_001
EL = "Student's t and empirical likelihood, with half an imagined disaster"


def pair(n: int = N) -> tuple[Predictions, Predictions]:
    """Two models of about the same skill; a fifth of the labels are positive; groups of 2."""
    rng = np.random.default_rng(3)
    labels = (rng.random(n) < 0.2).astype(int)
    texts = list(map(str, labels.tolist()))
    ids, groups = [f"e{i:06}" for i in range(n)], [str(i // 2) for i in range(n)]
    models = []
    for _ in range(2):
        chance = 1 / (1 + 4 * np.exp(0.5 - 1.0 * labels - rng.standard_normal(n)))
        columns = {"label": texts, "prediction": texts, "p_1": list(map(repr, chance.tolist()))}
        models.append(Predictions(ids, {**columns, "user": groups}, Path("p.csv")))
    return models[0], models[1]


def test_a_large_set_is_resampled_only_where_that_moves_the_interval() -> None:
    rng = np.random.default_rng(4)
    n = large.MANY + 1
    even = rng.standard_normal(n)
    assert needs_no_resampling([even], n, 0.95)
    assert needs_no_resampling([even[:1000], even[1000:]], 1000, 0.95)
    assert not needs_no_resampling([even[1:]], n, 0.95), "not more than the limit"
    assert not needs_no_resampling([even], large.LEAST - 1, 0.95), "few inform"
    assert not needs_no_resampling([np.zeros(n)], n, 0.95)
    disasters = np.where(np.arange(n) % 2_000 == 0, -1.0, 0.002)
    assert not needs_no_resampling([disasters], n, 0.95), "25 disasters are skewed"
    assert not needs_no_resampling([-disasters], n, 0.95)


@pytest.mark.parametrize(("disasters", "agrees"), [(30, False), (80, False), (250, True)])
def test_where_it_says_so_resampling_does_not_move_it(disasters: int, agrees: bool) -> None:
    n = large.MANY + 10_000
    part = np.where(np.arange(n) < disasters, -1.0, 0.002)
    assert needs_no_resampling([part], n, 0.95) is agrees
    low, high = significance.t_interval(part, float(part.mean()), n, 0.95)
    # The number of disasters in a resample is binomial; between two numbers, interpolated.
    counts = np.arange(2 * disasters)
    of_resamples = stats.binom(n, disasters / n)
    shares = of_resamples.cdf(counts) - of_resamples.pmf(counts) / 2
    ends = 0.002 - 1.002 * np.interp([0.975, 0.025], shares, counts) / n
    moved = np.abs(ends - (low, high)).max() / (high - low)
    assert bool(moved <= large.AGREED) is agrees


@pytest.mark.parametrize(
    ("metric", "group", "named"),
    [
        ("brier", None, EL),
        ("log_loss", None, EL),
        ("roc_auc", None, "DeLong's interval"),
        ("brier", "user", "Student's t over the groups' sums"),
    ],
)
def test_a_comparison_without_resampling_is_that_with_it(
    monkeypatch: pytest.MonkeyPatch, metric: str, group: str | None, named: str
) -> None:
    paired = Paired(metric, *pair(), group=group)

    def compare() -> Comparison:
        return paired.compare(0.95, None, N)

    resampled = compare()
    assert "resampl" in resampled.method
    assert "resampling would say the same" not in resampled.method
    monkeypatch.setattr(large, "MANY", 10_000)
    found = compare()
    assert found.method == f"{named} (of so many, resampling would say the same)"
    assert (found.gain, found.groups) == (resampled.gain, resampled.groups)
    width = resampled.high - resampled.low
    assert found.low == pytest.approx(resampled.low, abs=0.06 * width)
    assert found.high == pytest.approx(resampled.high, abs=0.06 * width)
    assert resampled.low <= found.low < found.high <= resampled.high, "it was the hull of both"


def test_an_area_ranks_the_scores_of_a_slice_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = measure("roc_auc", list(pair(200)))
    calls = []
    unique = np.unique

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return unique(*args, **more)

    monkeypatch.setattr(np, "unique", counted)
    rows = np.arange(100)
    whole, part = metric.values(None), metric.values(rows)
    assert len(calls) == 4
    metric.differs(rows)
    assert metric.values(rows) is not part
    assert len(calls) == 4
    assert metric.values(None).tolist() == whole.tolist() != part.tolist()
