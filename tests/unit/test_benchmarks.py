"""The simulations of the gate's benchmarks: equal models are equal, better ones better."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ctflow.gate.metrics.scores import measure, measure_of
from ctflow.gate.planning import connor

FOLDER = Path(__file__).parents[2] / "benchmarks"
DRAWS, EXAMPLES = 20, 1_500


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A benchmark's module, by its name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_equal_models_are_equal_and_better_ones_are_better(module: Any) -> None:
    models = module("_gate_models")
    drawn: dict[Any, Any] = {}
    for case in models.CASES:
        for step in case.steps:
            if (case.make, step) not in drawn:
                rng = np.random.default_rng(3)
                pairs = [case.make(rng, EXAMPLES, step) for _ in range(DRAWS)]
                drawn[case.make, step] = pairs
            values = np.array([measure_of(case.rule, p).values() for p in drawn[case.make, step]])
            gains = (values[:, 0] - values[:, 1]) * (-1 if case.rule.falls else 1)
            errors = gains.mean() / (gains.std(ddof=1) / np.sqrt(DRAWS))
            what = f"{case.metric}, {case.what}, step {step}: {errors:.1f} standard errors"
            assert abs(errors) < 4 if step == 0 else np.sign(step) * errors > 2, what


@pytest.mark.parametrize("metric", ["accuracy", "brier", "f1"])
def test_a_rule_without_a_test_takes_half_of_equal_models_and_the_gate_hardly_any(
    module: Any, metric: str
) -> None:
    gate, models = module("gate"), module("_gate_models")
    place = next(i for i, case in enumerate(models.CASES) if case.metric == metric)
    pairs = 24
    equal = gate.counts(gate.Task(place, 0.0, 1, pairs))
    better = gate.counts(gate.Task(place, 1.0, 1, pairs))
    assert equal[0] <= 2
    assert equal[2] <= 4
    assert pairs / 4 <= equal[1] <= 3 * pairs / 4
    assert better[1] > equal[1]
    assert better[0] > equal[0]
    assert better[2] > equal[2]


def test_the_textbooks_tests_are_those_of_scipy(module: Any) -> None:
    textbook = module("_gate_textbook")
    rng = np.random.default_rng(2)
    for _ in range(30):
        ours, theirs = rng.random((2, 40)) < [[0.85], [0.6]]
        better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        p = stats.binomtest(better, better + worse, alternative="greater").pvalue
        assert textbook.mcnemar(ours, theirs) == (p < 0.025)
        first, second = rng.normal(0.3, 1, 40), rng.normal(0, 1, 40)
        p = stats.ttest_rel(first, second, alternative="greater").pvalue
        assert textbook.paired_t(first - second) == (p < 0.025)


def test_delongs_test_takes_equal_areas_for_better_as_seldom_as_it_says(module: Any) -> None:
    textbook, models = module("_gate_textbook"), module("_gate_models")
    rng = np.random.default_rng(4)

    def taken(step: float, pairs: int = 200) -> int:
        drawn = [models.ranking(rng, 300, step) for _ in range(pairs)]
        return sum(textbook.passes("DeLong", measure("roc_auc", p), p, False) for p in drawn)

    limit = stats.binom.ppf(0.999, 200, textbook.LEVEL / 2)
    assert 0 < taken(0.0) <= limit < taken(1.0)


def test_limits_of_a_share_are_those_of_scipy(module: Any) -> None:
    gate = module("gate")
    for count, of in [(0, 50), (3, 120), (400, 400)]:
        limits = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
        assert gate.wilson(count, of) == pytest.approx((limits.low, limits.high), abs=1e-9)


def test_the_number_of_examples_is_that_of_the_true_quality(module: Any) -> None:
    power, models = module("gate_power"), module("_gate_models")
    gain, _, examples = power.needed("accuracy", models.four_classes, 1.0)
    differ = 0.85 * 0.11 + 0.15 * 0.89
    assert gain == pytest.approx(0.04, abs=0.004)
    assert examples == pytest.approx(connor(differ, 0.04, 0.95), rel=0.2)


def test_more_that_has_to_pass_lets_fewer_through(module: Any) -> None:
    power = module("gate_power")
    alone, *_, all_slices = (
        power.power(power.Asked(None, place, 1_000, 15)) for place in (0, len(power.ALL) - 1)
    )
    assert alone > 0.5
    assert all_slices < alone


def test_the_benchmark_prints_each_case_with_its_gain() -> None:
    words = [sys.executable, str(FOLDER / "gate.py"), "--only", "recall", "--pairs", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=200)
    lines = done.stdout.splitlines()
    assert lines[1] == "recall, 5% positives [McNemar]"
    assert lines[2].split()[:4] == ["equal", "models", "50", "3"]
    assert lines[5].split()[:5] == ["true", "gain", "+0.15", "50", "3"]
