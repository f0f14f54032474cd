"""The gate's interval of a mean beside empirical likelihood and Gaffke's bound: level and power.

Usage: python benchmarks/gate_means.py [--pairs N] [--only METRIC]

Promoted at 95%, two-sided: by the gate; by Student's t with one whole imagined disaster, whatever
the number of examples; by empirical likelihood alone (Owen, Biometrika 75, 1988); by Gaffke's bound
(Learned-Miller and Thomas, arXiv 1905.06208, 2019; Phan and others, ICML 2021), whose
least possible value is the largest loss seen where a loss has no end. Rare disasters are equal
models too: 0.5% of the challenger's answers are certain and wrong. Seeded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from typing import Any, NamedTuple

import numpy as np
from _gate_models import Make, Pair, disasters, outliers, probabilities, table

from ctflow.gate.comparison import Paired
from ctflow.gate.intervals.likelihood import likelihood_interval
from ctflow.gate.intervals.significance import t_interval
from ctflow.gate.metrics.measures import Means
from ctflow.gate.metrics.scores import measure

LEVEL = 0.95
DRAWS = 1_000
SHARE, CERTAIN = 0.005, 1e-3


def log_disasters(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """As ``disasters``, for ``log_loss``: of 0.5% the true class has the probability 0.001."""
    y = rng.integers(0, 2, n)
    true = np.where(rng.random(n) < 0.85, 0.85, 0.15)
    usual = -(0.85 * np.log(0.85) + 0.15 * np.log(0.15))
    gain = SHARE * (-np.log(CERTAIN) - usual) / (1 - SHARE)
    ours = np.where(rng.random(n) < SHARE * (1 - better), CERTAIN, true * np.exp(gain))

    def model(sure: Any) -> Any:
        p = np.where(y == 1, sure, 1 - sure)
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(ours), model(true)


class Case(NamedTuple):
    """A metric and its models; ``sizes`` are of sets of examples, ``step`` how much is gained."""

    metric: str
    make: Make
    what: str
    step: float
    sizes: tuple[int, ...] = (50, 200, 1_000)


CASES = [
    *(Case(metric, make, what, step) for metric, make, what in (
        ("brier", probabilities, "two classes"), ("log_loss", probabilities, "two classes"),
        ("mse", outliers, "1% outliers"), ("mae", outliers, "1% outliers"),
    ) for step in (0.0, 1.0)),
    Case("brier", disasters, "rare disasters", 0.0, (200, 1_000, 2_000, 4_000)),
    Case("log_loss", log_disasters, "rare disasters", 0.0, (200, 1_000, 2_000, 4_000)),
]  # fmt: skip


def gaffke(gains: Any, worst: float, rng: np.random.Generator) -> float:
    """The lower limit of a mean whose values are no less than ``-worst``.

    Weights of a Dirichlet distribution are drawn, one of them for the least value there can be.
    """
    n = len(gains)
    found = []
    step = max(1, 2_000_000 // (n + 1))
    for first in range(0, DRAWS, step):
        weights = rng.standard_exponential((min(step, DRAWS - first), n + 1))
        sums = weights[:, :n] @ gains - worst * weights[:, n]
        found.append(sums / weights.sum(axis=1))
    return float(np.quantile(np.concatenate(found), (1 - LEVEL) / 2))


def passes(metric: str, pair: Pair, rng: np.random.Generator) -> list[bool]:
    """Whether the gate, t with a whole disaster, likelihood and Gaffke's bound show a gain."""
    found = measure(metric, pair)
    assert isinstance(found, Means)
    ours, theirs = found.linear(None)
    gains, worst = theirs - ours, found.imagined(None)
    n, differ = len(gains), int(found.differs(None).sum())
    mean = float(gains.mean())
    lows = (
        Paired(metric, *pair).compare(LEVEL, size=n).low,
        t_interval(gains, mean, differ, LEVEL, worst=worst)[0],
        likelihood_interval(gains, differ, LEVEL)[0],
        gaffke(gains, worst, rng),
    )
    return [low > 0 for low in lows]


def counts(task: tuple[int, int, int]) -> Any:
    """Of how many pairs each takes the challenger; the task: case, number of examples, pairs."""
    place, n, pairs = task
    case, rng = CASES[place], np.random.default_rng([place, n])
    return sum(np.array(passes(case.metric, case.make(rng, n, case.step), rng), int)
               for _ in range(pairs))  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--only", help="this metric alone")
    given = parser.parse_args()
    started = time.perf_counter()
    todo = [
        (place, n, given.pairs)
        for place, case in enumerate(CASES)
        for n in case.sizes
        if given.only in (None, case.metric)
    ]
    print(f"{'metric':10}{'models':18}{'gain':>6}{'n':>7}{'gate':>8}{'t, one':>8}{'likel.':>8}"
          f"{'Gaffke':>8}   of {given.pairs} pairs")  # fmt: skip
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for (place, n, pairs), found in zip(todo, pool.imap(counts, todo), strict=True):
            case = CASES[place]
            cells = "".join(f"{count / pairs:8.1%}" for count in found)
            gain = "yes" if case.step else "none"
            print(f"{case.metric:10}{case.what:18}{gain:>6}{n:>7}{cells}", flush=True)
    print(f"in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
