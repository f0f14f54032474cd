"""Empirical likelihood: limits of a mean of skewed values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from statsmodels.emplike.descriptive import DescStat

from ctflow.gate.comparison import GUARDED
from ctflow.gate.intervals.likelihood import likelihood_interval, ratio
from ctflow.gate.intervals.significance import t_interval


def skewed(n: int = 200) -> Any:
    return 0.1 - np.random.default_rng(2).exponential(1, n) ** 2


@pytest.mark.parametrize("shift", [-0.4, -0.1, 0.0, 0.2])
def test_the_ratio_is_statsmodels(shift: float) -> None:
    values = skewed()
    mean = float(values.mean()) + shift
    expected = DescStat(values).test_mean(mean)[0]
    assert ratio(values, mean) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_limits_are_where_the_ratio_is_the_square_of_students_t() -> None:
    values = skewed()
    limit = stats.t.ppf(0.975, len(values) - 1) ** 2
    low, high = likelihood_interval(values, len(values), 0.95)
    mean = float(values.mean())
    ends = [(values.min() + 1e-6, mean), (mean, values.max() - 1e-6)]
    for found, (first, last) in zip((low, high), ends, strict=True):
        expected = brentq(lambda at: ratio(values, at) - limit, first, last)
        assert found == pytest.approx(expected, abs=1e-6)
    t_low, t_high = t_interval(values, mean, len(values), 0.95)
    assert low < t_low, "longer on the side of the large losses"
    assert high < t_high


def test_values_on_one_side_have_no_ratio_and_equal_ones_no_width() -> None:
    assert ratio(np.array([1.0, 2.0]), 0.5) == math.inf
    assert ratio(np.zeros(4), 0.0) == 0
    assert likelihood_interval(np.full(30, 0.5), 30, 0.95) == (0.5, 0.5)


def test_an_imagined_value_moves_the_end_on_its_side() -> None:
    values = np.random.default_rng(1).normal(0.05, 0.1, 1_000)
    low, high = likelihood_interval(values, 1_000, 0.95)
    lower, higher = likelihood_interval(values, 1_000, 0.95, worst=0.5)
    added = likelihood_interval(np.append(values, -0.5), 1_000, 0.95)[0]
    assert lower == pytest.approx(added, abs=1e-6)
    assert lower < low < high < higher


def test_a_disaster_too_few_is_not_taken_for_a_gain() -> None:
    """Where five of 1,000 are lost in truth, one seen is chance in 3%, and t shows a gain."""
    values = np.full(GUARDED, 0.0044)
    values[0] = -0.87
    few = np.append(values[1:], values[0])
    mean = float(few.mean())
    assert t_interval(few, mean, len(few), 0.95)[0] > 0
    assert likelihood_interval(few, len(few), 0.95)[0] > 0
    assert likelihood_interval(few, len(few), 0.95, worst=0.5)[0] < 0
