"""How many examples a gain needs, and what several rules and slices cost in power.

Usage: python benchmarks/gate_power.py [--pairs N]. First, for accuracy and other metrics: the
number of examples that a formula gives for 80% power, and the share of the better models that the
gate promotes on so many. Then how the share falls as more has to pass. Seeded: the same figures
each time.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import multiprocessing.pool
import os
import time
from typing import Any, NamedTuple

import numpy as np
from _gate_models import (
    KEY,
    Make,
    Pair,
    four_classes,
    outliers,
    probabilities,
    ranking,
    rare_class,
    table,
)

from ctflow.config.gate_rules import GateRule
from ctflow.config.metric_names import is_lower_better
from ctflow.gate import Champion, judge
from ctflow.gate.intervals.midp import right_wrong
from ctflow.gate.metrics.areas import RocAuc
from ctflow.gate.metrics.measures import Means, RightWrong, right_answers
from ctflow.gate.metrics.scores import measure
from ctflow.gate.planning import connor, normal, reach

LEVEL = 0.95
#: On so many examples true gains and spreads are taken.
TRUTH = 200_000
#: Words for what has to pass on a second set of as many examples too, as with ``confirm``.
CONFIRMED = "and one on a reserved set of n too"
#: What gains are asked of: metric, models, how much better, and how many pairs are judged.
GAINS: list[tuple[str, Make, float, int]] = [
    ("accuracy", four_classes, 1.0, 400),
    ("accuracy", four_classes, 0.5, 400),
    ("recall", rare_class, 1.0, 400),
    ("recall", rare_class, 0.5, 400),
    ("brier", probabilities, 0.5, 100),
    ("log_loss", probabilities, 0.5, 100),
    ("mae", outliers, 1.0, 60),
    ("mse", outliers, 1.0, 60),
    ("roc_auc", ranking, 1.0, 60),
]
#: What has to pass: words for it, and the rules.
ALL: list[tuple[str, list[dict[str, Any]]]] = [
    ("a gain in accuracy", [{}]),
    (CONFIRMED, [{}]),
    ("and one in balanced_accuracy", [{}, {"metric": "balanced_accuracy"}]),
    ("and each of 2 slices within 0.05", [{}, {"by": "s2", "margin": 0.05}]),
    ("and each of 5 slices within 0.05", [{}, {"by": "s5", "margin": 0.05}]),
    ("and each of 10 slices within 0.05", [{}, {"by": "s10", "margin": 0.05}]),
    ("a gain in each of 2 slices", [{"by": "s2"}]),
    ("a gain in each of 5 slices", [{"by": "s5"}]),
]
#: Shares of the examples on which just one of the two is right, and gains.
DIFFER, SMALL = (0.02, 0.05, 0.1, 0.2, 0.3), (0.005, 0.01, 0.02, 0.05, 0.1)
COUNTS = (1_000, 2_000, 4_000, 8_000)
SLICES = (2, 5, 10)


class Asked(NamedTuple):
    """Pairs to judge: by the places of the models in ``GAINS`` (or None) and of the rules."""

    models: int | None
    rules: int
    examples: int
    pairs: int


def rule(**says: object) -> GateRule:
    """A rule over the champion, on accuracy unless it says otherwise."""
    told = {"metric": "accuracy", "over": "champion", "predictions": KEY}
    return GateRule.model_validate(told | says)


def is_promoted(rules: list[GateRule], pair: Pair) -> bool:
    """Whether the gate takes the first of the two."""
    verdict = judge(
        project="benchmark", environment="staging", run="r-1", rules=rules, metrics={},
        predictions={KEY: pair[0]}, champion=Champion("sha256:old", {}, {KEY: pair[1]}),
    )  # fmt: skip
    return verdict.decision == "promote"


def sliced(rng: np.random.Generator, n: int) -> Pair:
    """Four classes, 85% right against 89%, with columns that name slices of equal size."""
    pair = four_classes(rng, n, 1.0)
    slices = {f"s{k}": np.arange(n) % k for k in SLICES}
    columns = [{name: np.array(list(values)) for name, values in m.columns.items()} for m in pair]
    ours, theirs = (table(**one, **slices) for one in columns)
    return ours, theirs


def power(asked: Asked) -> float:
    """The share of the better models that is promoted."""
    rng = np.random.default_rng(11)
    if asked.models is None:
        words, said = ALL[asked.rules]
        rules = [rule(**says) for says in said]
        count = 2 if words == CONFIRMED else 1
        trials = ([sliced(rng, asked.examples) for _ in range(count)] for _ in range(asked.pairs))
    else:
        metric, make, step, _ = GAINS[asked.models]
        rules = [rule(metric=metric)]
        trials = ([make(rng, asked.examples, step)] for _ in range(asked.pairs))
    passed = sum(all(is_promoted(rules, pair) for pair in sets) for sets in trials)
    return passed / asked.pairs


def counted(differ: float, gain: float) -> tuple[int, float]:
    """Connor's number for accuracy, and the gate's power there; of 1,000 draws of the counts."""
    n = math.ceil(connor(differ, gain, LEVEL))
    judged: dict[tuple[int, int], bool] = {}
    shares = [(differ + gain) / 2, (differ - gain) / 2, 1 - differ]
    drawn = np.random.default_rng(11).multinomial(n, shares, size=1_000)
    for better, worse, _ in drawn.tolist():
        if (better, worse) not in judged:
            p, low, _, _ = right_wrong(better, worse, n, LEVEL)
            judged[better, worse] = low > 0 and p < 1 - LEVEL
    return n, float(np.mean([judged[better, worse] for better, worse, _ in drawn.tolist()]))


def needed(metric: str, make: Make, step: float) -> tuple[float, str, float]:
    """The true gain, what of the models decides, and the examples for it by the formula.

    Connor's number for right or wrong answers (of the positives, for recall), else the number for
    which the gain is 2.8 standard errors.
    """
    pair = make(np.random.default_rng(1), TRUTH, step)
    found = measure(metric, pair)
    gain = float(-np.diff(found.values())[0]) * (-1 if is_lower_better(metric) else 1)
    if isinstance(found, RightWrong) or metric == "recall":
        ours, theirs = right_answers(pair)
        rows = pair[0].classes("label").equal("1") if metric == "recall" else np.full(TRUTH, True)
        differ = float((ours != theirs)[rows].mean())
        return gain, f"differ on {differ:.0%}", connor(differ, gain, LEVEL) / float(rows.mean())
    if isinstance(found, RocAuc):
        spread = float(found.influence(None).std())
    else:
        assert isinstance(found, Means)
        spread = float(np.diff(found.linear(None), axis=0).std())
    errors = reach(LEVEL) * normal((1 + LEVEL) / 2)
    return gain, f"spread {spread:.2g}", (errors * spread / gain) ** 2


def print_connor(pool: multiprocessing.pool.Pool) -> None:
    """Connor's numbers for accuracy."""
    print("examples for accuracy, and the power there")
    print(f"{'the two differ on':18}" + "".join(f"{f'gain {gain:.3f}':>16}" for gain in SMALL))
    asked = [(differ, gain) for differ in DIFFER for gain in SMALL if gain < differ]
    found = dict(zip(asked, pool.starmap(counted, asked, chunksize=1), strict=True))
    for differ in DIFFER:
        cells = [found.get((differ, gain)) for gain in SMALL]
        words = ["" if cell is None else f"{cell[0]:,} ({cell[1]:.0%})" for cell in cells]
        print(f"{differ:<18.0%}" + "".join(f"{word:>16}" for word in words), flush=True)


def print_sizes(pool: multiprocessing.pool.Pool, pairs: int | None) -> None:
    """Formulas beside the gate."""
    print(
        f"{'metric':10} {'true gain':>9}  {'the two models':15} {'examples':>8} {'power':>6} pairs"
    )
    rows = pool.starmap(needed, [row[:3] for row in GAINS], chunksize=1)
    asked = [
        Asked(place, 0, math.ceil(row[2]), pairs or GAINS[place][3])
        for place, row in enumerate(rows)
    ]
    for one, (gain, what, _), found in zip(asked, rows, pool.imap(power, asked), strict=True):
        metric = GAINS[one.models or 0][0]
        print(
            f"{metric:10} {gain:9.2g}  {what:15} {one.examples:>8,} {found:>6.0%} {one.pairs}",
            flush=True,
        )


def print_price(pool: multiprocessing.pool.Pool, pairs: int) -> None:
    """What more rules and slices cost."""
    print(f"\npower, accuracy 0.85 against 0.89, {pairs} pairs")
    print(f"{'what has to pass':36}" + "".join(f"{f'n={n:,}':>9}" for n in COUNTS))
    asked = [Asked(None, place, n, pairs) for place in range(len(ALL)) for n in COUNTS]
    found = pool.imap(power, asked)
    for words, _ in ALL:
        print(f"{words:36}" + "".join(f"{next(found):>9.0%}" for _ in COUNTS), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="for every row; else by what it costs")
    given = parser.parse_args()
    started = time.perf_counter()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        print_connor(pool)
        print_sizes(pool, given.pairs)
        print_price(pool, given.pairs or 200)
    print(f"in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
