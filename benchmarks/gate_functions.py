"""How often equal models pass, and better ones, where a function of the project is the metric.

Usage: python benchmarks/gate_functions.py [--only NAME] [--pairs N]

Pairs of simulated models are judged by ``function_intervals``, which knows nothing of the function.
Here the functions are numpy's, asked in this process: the intervals are the same, and a thousand
pairs would take a day with a child process for each. ``resampling`` and ``jackknife`` are what
either interval alone would promote, ``naive`` the rule challenger above champion. Seeded: the same
figures each time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctflow.config.gate_metric import MetricOf
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.files.texts import Numbers
from ctflow.gate.function_intervals import LEAST_RESAMPLES, Samples, gain_interval
from ctflow.gate.intervals.significance import percentile_interval, t_interval
from ctflow.gate.metrics.functions import Function

SIZES = (50, 200, 1_000)
CONFIDENCE = 0.95
#: Columns of shape (samples, examples) -> values of shape (samples,).
Compute = Callable[[Mapping[str, Any]], Any]


def mean(rows: Mapping[str, Any]) -> Any:
    """A mean."""
    return rows["x"].mean(axis=1)


def f1(rows: Mapping[str, Any]) -> Any:
    """F1, of labels and answers that are 0 or 1."""
    hits = (rows["y"] * rows["answer"]).sum(axis=1)
    return 2 * hits / (rows["y"].sum(axis=1) + rows["answer"].sum(axis=1))


def trimmed(rows: Mapping[str, Any]) -> Any:
    """The mean without the lowest and the highest tenth."""
    ordered = np.sort(rows["x"], axis=1)
    cut = ordered.shape[1] // 10
    return ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)


def per_size(rows: Mapping[str, Any]) -> Any:
    """A ratio of two sums."""
    return rows["x"].sum(axis=1) / rows["size"].sum(axis=1)


def median(rows: Mapping[str, Any]) -> Any:
    """A median."""
    return np.median(rows["x"], axis=1)


def sharpe(rows: Mapping[str, Any]) -> Any:
    """A mean by the standard deviation."""
    return rows["x"].mean(axis=1) / rows["x"].std(axis=1)


def normal(rng: np.random.Generator, n: int, better: float) -> list[dict[str, Any]]:
    """Numbers with normal errors; better: by 0.15."""
    base = rng.normal(0, 1, n)
    return [{"x": base + rng.normal(step, 0.7, n)} for step in (0.15 * better, 0.0)]


def heavy(rng: np.random.Generator, n: int, better: float) -> list[dict[str, Any]]:
    """Profits of sales of very uneven sizes, of which 30% are made; better: 40%."""
    size = rng.lognormal(0, 1.2, n)
    shares = (0.3 + 0.1 * better, 0.3)
    return [{"x": size * (rng.random(n) < share) - 0.2, "size": size} for share in shares]


def answers(
    rng: np.random.Generator, n: int, better: float, positives: float = 0.2
) -> list[dict[str, Any]]:
    """Yes or no, 70% of the positives found and 6% false alarms; better: 80%.

    There are probabilities too, which differ everywhere and which the function does not look at.
    """
    y = rng.random(n) < positives

    said = []
    for found in (0.7 + 0.1 * better, 0.7):
        hit, alarm = rng.random(n) < found, rng.random(n) < 0.06
        said.append(np.where(y, hit, alarm).astype(float))
    return [
        {"y": y.astype(float), "answer": one, "p": 0.5 * one + 0.5 * rng.random(n)} for one in said
    ]


def rare(rng: np.random.Generator, n: int, better: float) -> list[dict[str, Any]]:
    """The same with 5% positives; better: 90% found."""
    return answers(rng, n, 2 * better, 0.05)


class Case(NamedTuple):
    """A function, the columns that it reads, and the models that it is of."""

    what: str
    compute: Compute
    reads: tuple[str, ...]
    make: Callable[[np.random.Generator, int, float], list[dict[str, Any]]]


CASES = {
    "mean": Case("normal errors", mean, ("x",), normal),
    "f1": Case("20% positives", f1, ("y", "answer"), answers),
    "rare-f1": Case("5% positives", f1, ("y", "answer"), rare),
    "profit": Case("mean profit, uneven sales", mean, ("x",), heavy),
    "trimmed": Case("trimmed mean profit, uneven sales", trimmed, ("x",), heavy),
    "per-size": Case("profit by size, uneven sales", per_size, ("x", "size"), heavy),
    "median": Case("normal errors", median, ("x",), normal),
    "sharpe": Case("mean by deviation, normal errors", sharpe, ("x",), normal),
}


class Asked:
    """Asks a function of numpy's in this process, many samples at a time."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __call__(
        self, function: str, timeout: float, columns: Mapping[str, Any], draws: Sequence[Any]
    ) -> list[float]:
        """See ``ctflow.ports.Calls``."""
        arrays = {name: np.array(columns[name]) for name in self._case.reads}
        found: list[float] = []
        first = 0
        while first < len(draws):
            last, size = first, len(draws[first])
            while (
                last < len(draws) and len(draws[last]) == size and (last - first) * size < 500_000
            ):
                last += 1
            rows = np.stack(draws[first:last])
            values = self._case.compute({name: array[rows] for name, array in arrays.items()})
            found += values.tolist()
            first = last
        return found


def judged(task: tuple[str, int, float, int]) -> tuple[bool, bool, bool, bool]:
    """Whether the gate, resampling alone, the jackknife alone and the naive rule promote a pair.

    task: the case's name, the number of examples, by how many steps it is better, the seed.
    """
    name, n, better, seed = task
    case, rng = CASES[name], np.random.default_rng(seed)
    calls = Asked(case)
    ids = [f"e{i:06}" for i in range(n)]
    pair = []
    for columns in case.make(rng, n, better):
        values = {key: Numbers(np.asarray(column, float)) for key, column in columns.items()}
        same = {"label": ["0"] * n, "prediction": ["0"] * n}
        pair.append(Predictions(ids, {**same, **values}, Path("p.csv"), calls=calls))
    of = MetricOf(function="steps/evaluate/metrics.py:f")
    with np.errstate(all="ignore"):
        samples = Samples(Function(of, pair), None, None, seed)
        low, *_ = gain_interval(samples, 1.0, CONFIDENCE, 0.0)
        gain = float(samples.values[0] - samples.values[1])
        informative = samples.informative
        if informative < 6:
            return low > 0, False, False, gain > 0
        parts = samples.parts[:, 0] - samples.parts[:, 1]
        drawn = samples.resampled(LEAST_RESAMPLES)
        resampled = percentile_interval(drawn[:, 0] - drawn[:, 1], informative, CONFIDENCE)[0]
        jackknife = t_interval(parts, gain, informative, CONFIDENCE)[0]
    return low > 0, resampled > 0, jackknife > 0, gain > 0


def shares(name: str, n: int, better: float, pairs: int, pool: Any) -> Any:
    """Of how many of the pairs each rule promotes the challenger, as shares."""
    tasks = [(name, n, better, 1_000 + pair) for pair in range(pairs)]
    return np.array(pool.map(judged, tasks)).mean(axis=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--equal", action="store_true", help="equal models alone")
    parser.add_argument("--pairs", type=int, default=60)
    given = parser.parse_args()
    print(f"{'':48}{'n':>6}  {'gate':>7} {'resampling':>10} {'jackknife':>9} {'naive':>6}")
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for better in (0.0,) if given.equal else (0.0, 1.0):
            for name in [given.only] if given.only else CASES:
                for n in SIZES:
                    label = f"{name}, {CASES[name].what}, {'better' if better else 'equal'}"
                    gate, resampled, left_out, naive = shares(name, n, better, given.pairs, pool)
                    row = f"{gate:7.1%} {resampled:10.1%} {left_out:9.1%} {naive:6.0%}"
                    print(f"{label:48}{n:>6}  {row}", flush=True)


if __name__ == "__main__":
    main()
