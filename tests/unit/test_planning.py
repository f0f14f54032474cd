"""How many examples would show it: the numbers have the power that they promise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ctflow.config.gate_rules import GateRule
from ctflow.gate import Champion, judge
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.intervals.limits import share_interval
from ctflow.gate.intervals.significance import mcnemar
from ctflow.gate.planning import connor, least_gain, number, one_share, scaled
from ctflow.model import Verdict

KEY = "evaluate.predictions"


def answers(wrong: Any, **more: Any) -> Predictions:
    """Of each example, whether it is answered wrong."""
    columns = {"label": ["0"] * len(wrong), "prediction": [str(int(x)) for x in wrong]}
    columns |= {name: [str(x) for x in column] for name, column in more.items()}
    return Predictions([f"e{i:05}" for i in range(len(wrong))], columns, Path("p.csv"))


def decide(ours: Predictions, theirs: Predictions | None, **says: Any) -> Verdict:
    over = {"over": "champion"} if theirs is not None else {}
    rule = GateRule.model_validate({"predictions": KEY, **over, **says})
    return judge(
        project="p", environment="staging", run="r-1", rules=[rule], metrics={},
        predictions={KEY: ours},
        champion=None if theirs is None else Champion("sha256:old", {}, {KEY: theirs}),
    )  # fmt: skip


def pair(n: int, better: int, worse: int, both: int = 0) -> tuple[Predictions, Predictions]:
    """Challenger and champion: the counts of examples that only one is right on, or neither."""
    ours = np.zeros(n, dtype=bool)
    theirs = np.zeros(n, dtype=bool)
    theirs[:better] = True
    ours[better : better + worse] = True
    ours[better + worse : better + worse + both] = True
    theirs[better + worse : better + worse + both] = True
    return answers(ours), answers(theirs)


@pytest.mark.parametrize(
    ("differ", "gain"), [(0.05, 0.02), (0.1, 0.02), (0.1, 0.05), (0.3, 0.1), (0.2, 0.03)]
)
def test_connors_number_has_the_power_in_the_exact_test(differ: float, gain: float) -> None:
    n = math.ceil(connor(differ, gain, 0.95))
    rng = np.random.default_rng(2)
    shares = [(differ + gain) / 2, (differ - gain) / 2, 1 - differ]
    drawn = rng.multinomial(n, shares, size=1_500)[:, :2].tolist()
    known = {(b, c): b > c and mcnemar(b, c) < 0.05 for b, c in map(tuple, drawn)}
    power = np.mean([known[b, c] for b, c in drawn])
    assert 0.75 <= power <= 0.85
    assert least_gain(differ, n, 0.95) == pytest.approx(gain, rel=0.01)


def test_no_model_can_gain_what_few_examples_would_show() -> None:
    assert least_gain(0.1, 5, 0.95) > 1


@pytest.mark.parametrize(("value", "bound"), [(0.85, 0.8), (0.95, 0.9), (0.72, 0.6)])
def test_the_number_for_a_share_has_the_power(value: float, bound: float) -> None:
    n = math.ceil(one_share(value, bound, 0.95))
    passes = next(k for k in range(n + 1) if share_interval(k, n, 0.95)[0] >= bound)
    assert 0.72 <= stats.binom.sf(passes - 1, n, value) <= 0.85


def test_the_number_for_a_mean_has_the_power_of_students_test() -> None:
    gain, spread, here = 0.1, 1.0, 200
    half = stats.t.ppf(0.975, here - 1) * spread / math.sqrt(here)
    n = math.ceil(scaled(here, half, gain, 0.95))
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, gain / spread * math.sqrt(n))
    assert power == pytest.approx(0.8, abs=0.01)


def test_a_hold_says_how_many_examples_would_show_the_gain() -> None:
    verdict = decide(*pair(400, 20, 12, 10), metric="accuracy")
    assert verdict.decision == "hold"
    needed = connor(32 / 400, 0.02, 0.95)
    assert 1_600 < needed < 1_700
    least = least_gain(0.08, 400, 0.95)
    (note,) = verdict.notes
    assert note == (
        "accuracy: a gain of 0.020 shows with 80% power on about 1,700 examples; "
        f"on these 400 the smallest that shows is {least:.3f}"
    )


def test_what_is_shown_or_broken_needs_no_advice() -> None:
    assert decide(*pair(400, 40, 12), metric="accuracy").notes == ()
    assert decide(*pair(400, 5, 40), metric="accuracy").decision == "reject"
    assert decide(*pair(400, 5, 40), metric="accuracy").notes == ()


def test_more_examples_do_not_help_where_no_gain_was_seen() -> None:
    (note,) = decide(*pair(400, 12, 14), metric="accuracy").notes
    assert note.startswith("accuracy: no gain above 0 was seen")
    (note,) = decide(*pair(400, 14, 12), metric="accuracy", min_gain=0.01).notes
    assert note.startswith("accuracy: no gain above 0.010 was seen")


def test_a_margin_asks_for_fewer_examples_than_a_gain() -> None:
    (note,) = decide(*pair(400, 14, 17), metric="accuracy", margin=0.02).notes
    assert note.startswith("accuracy: a loss of 0.007 shows to be within the margin")


def test_slices_that_are_too_small_are_named() -> None:
    ours, theirs = pair(400, 20, 12, 10)
    site = ["a"] * 32 + ["c"] * 10 + ["b"] * 353 + ["tiny"] * 5
    ours, theirs = (
        answers([x == "1" for x in p.columns["prediction"]], site=site) for p in (ours, theirs)
    )
    (note,) = decide(ours, theirs, metric="accuracy", by="site").notes
    assert note.startswith("accuracy by site: examples needed to show what was seen")
    assert "a about " in note
    assert "(has 32)" in note
    assert "too small to say anything: b (353), tiny (5)" in note


def test_groups_are_counted_in_groups() -> None:
    ours, theirs = pair(400, 20, 12, 10)
    who = [i // 2 for i in range(400)]
    ours, theirs = (
        answers([x == "1" for x in p.columns["prediction"]], who=who) for p in (ours, theirs)
    )
    (note,) = decide(ours, theirs, metric="accuracy", group="who").notes
    assert " groups; on these 200 the smallest" in note


def test_a_bound_says_how_many_examples_would_show_it() -> None:
    p = answers([i < 36 for i in range(200)])
    verdict = decide(p, None, metric="accuracy", min=0.8, confidence=0.95)
    assert verdict.decision == "hold"
    assert f"with 80% power {number(one_share(0.82, 0.8, 0.95))} examples" in verdict.notes[0]
    verdict = decide(p, None, metric="accuracy", min=0.83, confidence=0.95)
    assert "more examples are not expected to help" in verdict.notes[0]


def test_numbers_are_rounded_up_to_two_digits() -> None:
    assert [number(x) for x in (7, 101, 1_540.2, 9_950_000)] == [
        "about 7", "about 110", "about 1,600", "about 10,000,000",
    ]  # fmt: skip
    assert number(math.inf) == "more than 10,000,000"
