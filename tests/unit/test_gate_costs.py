"""Rules on what serving costs: the limits of a quantile, the verdicts, what a rule may say."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from ctflow.config.gate_rules import GateRule
from ctflow.config.serving_costs import COSTS, TIMES
from ctflow.config.settings import project_of
from ctflow.errors import ConfigError
from ctflow.gate.costs import (
    MOST,
    MOST_DEPENDENT,
    least_requests,
    places,
    quantile,
    size_reason,
    time_reason,
    wants_more,
)
from ctflow.gate.intervals.dependence import chi_square, counts_as

SHARES = sorted(TIMES.values())


def rule(**says: Any) -> GateRule:
    return GateRule.model_validate({"metric": "p99_ms", "max": 50, **says})


def mixed(times: list[float]) -> list[float]:
    """The times in an order that tells nothing."""
    return random.Random(11).sample(times, len(times))


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("count", [1, 5, 20, 59, 298, 299, 600, 2000])
def test_the_limits_are_those_of_the_binomial(count: int, share: float) -> None:
    lower, upper = places(count, share)
    binomial = stats.binom(count, share)
    # Of all places that are right often enough, the upper limit's is the first, the lower the last.
    right_above = [s for s in range(1, count + 1) if binomial.cdf(s - 1) >= 0.95]
    right_below = [r for r in range(1, count + 1) if binomial.sf(r - 1) >= 0.95]
    assert upper == (right_above[0] if right_above else None)
    assert lower == (right_below[-1] if right_below else None)


@pytest.mark.parametrize("share", SHARES)
def test_the_fewest_requests_that_have_an_upper_limit(share: float) -> None:
    least = least_requests(share)
    assert places(least, share)[1] == least
    assert places(least - 1, share)[1] is None


def test_it_is_299_for_the_99th_percentile() -> None:
    assert (least_requests(0.99), least_requests(0.5)) == (299, 5)
    assert places(1000, 0.99) == (985, 996)
    assert places(MOST, 0.99) == (1972, 1988)


def test_a_quantile_is_the_inverse_of_the_empirical_distribution() -> None:
    rng = random.Random(3)
    for count in (1, 2, 3, 20, 99, 100, 101, 1000):
        times = sorted(rng.random() for _ in range(count))
        for share in SHARES:
            expected = float(np.quantile(times, share, method="inverted_cdf"))
            # Where share * count is whole, floats may put numpy's one place higher.
            whole = abs(share * count - round(share * count)) < 1e-9
            if whole:
                expected = times[max(round(share * count), 1) - 1]
            assert quantile(times, share) == expected


def test_a_model_at_its_bound_passes_in_5_percent_and_is_rejected_in_5_percent() -> None:
    rng = random.Random(7)
    at = rule(max=-1000 * math.log(0.01))  # the 99th percentile of Exp(1 s)
    tries = 400
    found = {"promote": 0, "hold": 0, "reject": 0}
    for _ in range(tries):
        times = [1000 * rng.expovariate(1.0) for _ in range(MOST)]
        found[time_reason(at, times, 1.0).decision] += 1
    # Not above 5% by more than chance explains (one in a thousand).
    most = stats.binom(tries, 0.05).ppf(0.999)
    assert 0 < found["promote"] <= most
    assert 0 < found["reject"] <= most


def in_runs(rng: random.Random, length: float, count: int) -> list[float]:
    """Times of which 2% are slow, in runs of that many on average."""
    times, is_slow = list[float](), rng.random() < 0.02
    for _ in range(count):
        times.append(rng.lognormvariate(0, 0.2) + is_slow * rng.expovariate(1 / 20))
        ends, begins = 1 / length, 0.02 / 0.98 / length
        is_slow = rng.random() >= ends if is_slow else rng.random() < begins
    return times


def test_slow_answers_that_come_together_count_as_fewer() -> None:
    rng = random.Random(13)
    alone = [counts_as(in_runs(rng, 1 / 0.98, MOST), 0.99) for _ in range(60)]
    assert sum(one == MOST for one in alone) >= 48  # 5% by chance, for each length of block
    together = sorted(counts_as(in_runs(rng, 3, MOST), 0.99) for _ in range(60))
    assert 300 < together[30] < 900
    # Taking turns is no dependence that makes limits too narrow.
    turns = [(1.0, 2.0, 3.0, 5.0, 20.0)[k % 5] * rng.lognormvariate(0, 0.3) for k in range(MOST)]
    assert counts_as(turns, 0.99) == counts_as(turns, 0.5) == MOST
    # A machine that is busy for the second half of the time.
    drift = [rng.random() + (k > MOST // 2) for k in range(MOST)]
    assert counts_as(drift, 0.5) < 60
    assert counts_as([1.0] * MOST, 0.99) == MOST
    assert counts_as([1.0], 0.99) == 1


def test_what_chance_explains_is_that_of_chi_square() -> None:
    for degrees in (9, 14, 39, 99):
        assert chi_square(degrees) == pytest.approx(stats.chi2(degrees).ppf(0.95), rel=2e-3)


def test_dependence_widens_the_limits() -> None:
    """Of models at their bound whose slow answers come three in a row, 14% would pass without."""
    rng, tries = random.Random(17), 300
    bound = float(np.quantile([one for _ in range(200) for one in in_runs(rng, 3, MOST)], 0.99))
    found = {"promote": 0, "hold": 0, "reject": 0}
    without = 0
    upper = places(MOST, 0.99)[1]
    assert upper is not None
    for _ in range(tries):
        times = in_runs(rng, 3, MOST)
        found[time_reason(rule(max=bound), times, 1.0).decision] += 1
        without += sorted(times)[upper - 1] <= bound
    assert without > 0.09 * tries
    assert found["promote"] < 0.6 * without
    assert found["reject"] <= 0.05 * tries


def test_it_says_that_they_count_as_fewer() -> None:
    times = [10.0] * 1000 + [40.0] * 40 + [10.0] * 960
    found = time_reason(rule(), times, 25.0)
    worth = counts_as(times, 0.99)
    assert worth < 299
    assert found.text == (
        f"p99_ms 40.0 (2,000 requests on this machine in 25 s, counted as {worth} as slow answers"
        " come together; a 95% upper limit needs 299): not shown to be at most 50"
    )


# -- the verdict ----------------------------------------------------------------------------------


def test_a_fast_model_passes_and_says_what_was_measured() -> None:
    times = mixed([10.0] * 980 + [12.25] * 15 + [14.0] * 4 + [400.0])
    found = time_reason(rule(), times, 11.0)
    assert found.decision == "promote"
    assert found.rule == "p99_ms"
    assert found.text == (
        "p99_ms 12.2 (95% upper limit 14.0, 1,000 requests on this machine), at most 50"
    )
    assert found.estimate is not None
    said = found.estimate
    assert (said.value, said.low, said.high, said.examples) == (12.25, 12.25, 14.0, 1000)
    assert said.confidence == pytest.approx(0.9)


def test_a_slow_model_is_rejected_and_one_between_is_held() -> None:
    slow = time_reason(rule(), [60.0] * 20, 1.2)
    assert slow.decision == "reject"
    assert slow.text == (
        "p99_ms 60.0 (95% lower limit 60.0, 20 requests on this machine), above 50"
    )
    between = time_reason(rule(), mixed([10.0] * 990 + [51.0] * 10), 11.0)
    assert between.decision == "hold"
    assert between.text == (
        "p99_ms 10.0 (95% limits 10.0 to 51.0, 1,000 requests on this machine): 50 is between"
    )


def test_the_figures_show_on_which_side_of_the_bound_they_are() -> None:
    found = time_reason(rule(max=12.0), [12.0004] * 1000, 12.0)
    assert found.decision == "reject"
    assert "p99_ms 12.0004 (95% lower limit 12.0004" in found.text
    assert time_reason(rule(max=12.0), [12.0] * 1000, 12.0).decision == "promote"


def test_too_few_requests_show_nothing_but_that_it_is_too_slow() -> None:
    found = time_reason(rule(), [10.0] * 298, 20.4)
    assert found.decision == "hold"
    assert found.text == (
        "p99_ms 10.0 (298 requests on this machine in 20 s; a 95% upper limit needs 299):"
        " not shown to be at most 50"
    )
    assert found.estimate is None
    assert time_reason(rule(), [10.0] * 299, 20.4).decision == "promote"
    # Of five the greatest is a lower limit of p99 already, of six it is none.
    assert time_reason(rule(), [10.0] * 4 + [51.0], 20.4).decision == "reject"
    assert time_reason(rule(), [10.0] * 5 + [51.0], 20.4).decision == "hold"
    # Four times of which all are above the bound have no lower limit of p50, five have one.
    median = rule(metric="p50_ms")
    assert time_reason(median, [51.0] * 4, 20.4).decision == "hold"
    assert time_reason(median, [51.0] * 5, 20.4).decision == "reject"


def test_a_size_is_counted() -> None:
    size = {"metric": "bytes"}
    assert size_reason(rule(**size, max=1_234_567), 1_234_567).decision == "promote"
    most = size_reason(rule(**size, max=100_000_000), 1_234_567)
    assert (most.decision, most.text) == ("promote", "bytes 1,234,567, at most 100,000,000")
    above = size_reason(rule(**size, max=1000), 1001)
    assert (above.decision, above.text) == ("reject", "bytes 1,001, above 1,000")
    below = size_reason(rule(**size, min=10, max=1000), 9)
    assert (below.decision, below.text) == ("reject", "bytes 9, below 10")
    both = size_reason(rule(**size, min=10, max=1000), 10)
    assert both.text == "bytes 10, at least 10 and at most 1,000"


# -- how long it is measured ----------------------------------------------------------------------


def asked(takes: float, *rules: GateRule) -> tuple[int, float]:
    """How many answers that all take so many milliseconds are timed; and seconds in all."""
    more, times = wants_more(rules), list[float]()
    while more(times, sum(times) / 1000):
        times.append(takes)
    return len(times), sum(times) / 1000


def test_requests_end_with_their_number_or_the_time() -> None:
    assert asked(1.0, rule()) == (MOST, 2.0)
    count, seconds = asked(40.0, rule())
    assert count == 500
    assert seconds == pytest.approx(20.0, abs=0.1)


def test_a_busy_machine_is_asked_for_as_many_as_an_upper_limit_takes() -> None:
    """2,000 answers of which slow ones come together may count as 96, which is always a hold."""
    series = in_runs(random.Random(3), 60, MOST_DEPENDENT)
    assert counts_as(series[:MOST], 0.99) < least_requests(0.99)
    assert time_reason(rule(max=300), series[:MOST], 1.0).decision == "hold"
    timed = len(first(series, rule(max=300)))
    assert timed == 3 * MOST
    assert time_reason(rule(max=300), series[:timed], 2.0).decision == "promote"
    # The median needs no more; all together need what the most demanding needs.
    assert len(first(series, rule(metric="p50_ms", max=300))) == MOST
    assert len(first(series, rule(metric="p50_ms", max=300), rule(max=300))) == timed
    # There is an end to it, and to the time that it takes.
    assert len(first([one + 9 for one in series], rule(max=300))) < 2 * MOST
    least = counts_as([float(k // 1000 % 10) for k in range(MOST_DEPENDENT)], 0.99)
    assert least >= least_requests(0.99)


def first(series: list[float], *rules: GateRule) -> list[float]:
    """Those of the series that are timed."""
    more, times = wants_more(rules), list[float]()
    seconds = 0.0
    while more(times, seconds):
        times.append(series[len(times)])
        seconds += times[-1] / 1000
    return times


def test_a_slow_model_has_the_time_that_its_bound_allows() -> None:
    """20 s of answers that take 100 ms each could never show that p99 is at most 110 ms."""
    count, _ = asked(100.0, rule(max=110))
    assert count == 299
    assert time_reason(rule(max=110), [100.0] * count, 29.9).decision == "promote"
    assert asked(4000.0, rule(max=5000))[1] == pytest.approx(300.0, abs=4.1)


def test_what_is_decided_is_not_measured_further() -> None:
    lower = places(MOST, 0.99)[0]
    assert lower is not None
    count, _ = asked(80.0, rule())
    assert count == MOST - lower + 1 == 29
    assert time_reason(rule(), [80.0] * count, 1.0).decision == "reject"
    # One answer less than that above the bound could still come out as a hold.
    times = mixed([80.0] * (count - 1) + [10.0] * (MOST - count + 1))
    assert time_reason(rule(), times, 1.0).decision == "hold"
    for share in SHARES:
        fatal = [n - (places(n, share)[0] or 0) + 1 for n in (*range(1, 60), 300, 700, MOST)]
        assert fatal == sorted(fatal), "fewer times would need more above the bound"
    # Two rules: the first that is decided ends it.
    assert asked(80.0, rule(), rule(metric="p50_ms", max=1000))[0] == count


# -- what a rule may say --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", COSTS)
def test_a_bound_is_what_a_rule_on_a_cost_says(metric: str) -> None:
    assert rule(metric=metric).max == 50


@pytest.mark.parametrize(
    ("says", "text"),
    [
        ({"over": "champion", "predictions": "a.b"}, "is not compared with the champion: bound it"),
        ({"over": "champion", "max": None}, "is not compared with the champion: bound it"),
        ({"confidence": 0.95}, "p99_ms has its own limits, at 95%: leave 'confidence' out"),
        ({"metric": "bytes", "confidence": 0.95}, "bytes is counted, not estimated: leave 'conf"),
        ({"of": {"mean": "loss"}, "predictions": "a.b"}, "give a metric with 'of' another name"),
        ({"by": "ink", "predictions": "a.b"}, "not computed from predictions: leave 'by' out"),
        ({"slices": {"a": {"max": 1}}}, "p99_ms is measured, not computed from predictions: leave"),
        ({"group": "user"}, "not computed from predictions: leave 'group' out"),
        ({"predictions": "a.b"}, "not computed from predictions: leave 'predictions' out"),
        ({"confirm": "a.b"}, "not computed from predictions: leave 'confirm' out"),
        ({"looks": 3}, "not computed from predictions: leave 'looks' out"),
        ({"margin": 3}, "not computed from predictions: leave 'margin' out"),
        ({"min_gain": 3}, "not computed from predictions: leave 'min_gain' out"),
        ({"min": 3}, "p99_ms is a cost: 'min' says nothing of it, say 'max'"),
        ({"max": None}, "a rule on p99_ms needs 'max'"),
        ({"max": 0}, "max 0: no model has p99_ms of 0 or below"),
        ({"max": -5}, "max -5: no model has p99_ms of 0 or below"),
        ({"metric": "bytes", "min": 60}, "min 60 is above max 50"),
    ],
)
def test_what_does_not_go_with_a_cost_is_refused(says: dict[str, Any], text: str) -> None:
    given = {key: value for key, value in ({"max": 50} | says).items() if value is not None}
    with pytest.raises(ValidationError) as caught:
        GateRule.model_validate({"metric": "p99_ms"} | given)
    (error,) = caught.value.errors()
    assert text in error["msg"]


def test_the_errors_line_in_the_file_is_named() -> None:
    text = (
        "project: a\ngate:\n  - {metric: bytes, max: 100_000_000}\n  - {metric: p99_ms, min: 1}\n"
    )
    with pytest.raises(ConfigError, match=r"ctflow.yaml:4: gate.1: p99_ms is a cost"):
        project_of(text, "ctflow.yaml")
    assert project_of(text.rpartition("  -")[0], "ctflow.yaml").gate[0].max == 100_000_000
