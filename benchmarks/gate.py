"""What the gate promotes beside two other rules, and how long it takes.

Usage: python benchmarks/gate.py [--only METRIC] [--pairs N] [--times] [--runs N]

Pairs of simulated models of known quality are judged: equal ones, of which the gate says that it
promotes at most 2.5%, and ones whose challenger is better by a true gain, so that the share is the
power. ``naive`` is the rule that many scripts have, challenger above champion; ``textbook`` the
usual test of the metric at 95%, two-sided. In brackets are Wilson's 95% limits in percent. Seeded:
the same figures each time. ``--times`` prints the times alone: ``gate`` in a process with numpy
loaded, ``process`` as a whole new one.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _gate_models import CASES, KEY, SIZES, Case, Pair

from ctflow.config.gate_rules import GateRule
from ctflow.config.metric_names import is_of_queries
from ctflow.errors import CtflowError
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import read_predictions
from ctflow.gate.metrics.scores import measure, measure_of

#: On so many examples true gains are taken.
TRUTH = 200_000
LARGE = (100_000, 1_000_000)
CLASSES = 10


class Task(NamedTuple):
    """Some pairs of models to judge: by the place of the case and its step, and of the size."""

    case: int
    step: float
    size: int
    pairs: int


def judged(case: Case, pair: Pair) -> tuple[bool, bool, bool]:
    """Whether the gate, the naive rule and the textbook's test take the challenger."""
    from _gate_textbook import passes  # with scipy, which the gate does not need: see --once

    ours, theirs = pair
    rule = case.rule
    try:
        found = measure_of(rule, pair)
        plain = found if rule.weight is None else measure(rule.metric, pair)
        verdict = judge(
            project="benchmark", environment="staging", run="r-1", rules=[rule], metrics={},
            predictions={KEY: ours}, champion=Champion("sha256:old", {}, {KEY: theirs}),
        )  # fmt: skip
    except CtflowError:
        return False, False, False  # such as no example of the positive class
    challenger, champion = found.values()
    naive = challenger < champion if rule.falls else challenger > champion
    return verdict.decision == "promote", bool(naive), passes(case.test, plain, pair, rule.falls)


def counts(task: Task) -> tuple[int, ...]:
    """Of how many pairs each of the three takes the challenger."""
    case, rng = CASES[task.case], np.random.default_rng(5)
    with np.errstate(all="ignore"):
        rows = [
            judged(case, case.make(rng, SIZES[task.size], task.step)) for _ in range(task.pairs)
        ]
    return tuple(map(sum, zip(*rows, strict=True)))


def true_gain(case: Case, step: float) -> float:
    """By how much the challengers are better (worse: below 0), in the metric's unit.

    Of a sum: an example's part.
    """
    rule = case.rule
    size = TRUTH // 10 if is_of_queries(rule.metric) else TRUTH
    pair = case.make(np.random.default_rng(1), size, step)
    found = measure_of(rule, pair)
    challenger, champion = found.values()
    gain = float(challenger - champion) * (-1 if rule.falls else 1)
    return gain / TRUTH if rule.of and rule.of.sum else gain


def wilson(count: int, of: int) -> tuple[float, float]:
    """Limits of a share, 95% (Wilson, Journal of the American Statistical Association 22, 1927)."""
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (count + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(count * (of - count) / of + z * z / 4)
    return middle - half, middle + half


def share(count: int, of: int) -> str:
    """A share with its limits, for the table."""
    low, high = (100 * end for end in wilson(count, of))
    return f"{count / of:6.1%} ({max(low, 0):4.1f}-{high:5.1f})"


def tasks(only: str | None, pairs: int | None) -> Iterator[Task]:
    """What is to be judged, in the order of the table."""
    for place, case in enumerate(CASES):
        if only in (None, case.metric):
            for step in case.steps:
                for size in range(len(SIZES)):
                    yield Task(place, step, size, pairs or case.pairs[size])


def print_shares(only: str | None, pairs: int | None) -> None:
    """The table of what is promoted."""
    print(f"{'':36}{'n':>5} {'pairs':>5}  {'gate':20} {'naive':20} textbook")
    todo = list(tasks(only, pairs))
    shown: tuple[int, float] | None = None
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for task, found in zip(todo, pool.imap(counts, todo), strict=True):
            case = CASES[task.case]
            if shown is None or shown[0] != task.case:
                print(f"{case.metric}, {case.what}".rstrip(", ") + f" [{case.test}]")
            label = ""
            if shown != (task.case, task.step):
                gain = true_gain(case, task.step) if task.step else 0.0
                label = f"true gain {gain:+.2g}" if task.step else "equal models"
            shown = task.case, task.step
            cells = " ".join(share(count, task.pairs) for count in found)
            print(f"  {label:34}{SIZES[task.size]:>5} {task.pairs:>5}  {cells}", flush=True)


def write(path: Path, examples: int, accuracy: float, seed: int) -> None:
    """Predictions of a model of about that accuracy; the labels are the same for every seed."""
    labels = np.random.default_rng(0).integers(0, CLASSES, examples)
    rng = np.random.default_rng(seed)
    wrong = (labels + rng.integers(1, CLASSES, examples)) % CLASSES
    answers = np.where(rng.random(examples) < accuracy, labels, wrong)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,label,prediction\n")
        for number, (label, answer) in enumerate(
            zip(labels.tolist(), answers.tolist(), strict=True)
        ):
            file.write(f"example-{number},{label},{answer}\n")


def gate(folder: Path) -> str:
    """Read and judge accuracy and macro-F1 over the champion; the decision."""
    rules = [
        GateRule(metric=metric, over="champion", predictions=KEY)
        for metric in ("accuracy", "f1_macro")
    ]
    challenger, champion = (
        read_predictions(folder / f"{name}.csv") for name in ("challenger", "champion")
    )
    verdict = judge(
        project="benchmark", environment="staging", run="r-1", rules=rules, metrics={},
        predictions={KEY: challenger},
        champion=Champion("sha256:champion", {}, {KEY: champion}),
    )  # fmt: skip
    return verdict.decision


def seconds(folder: Path) -> tuple[float, float, str]:
    """One measurement: in this process, and in a new one."""
    start = time.perf_counter()
    decision = gate(folder)
    inside = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--once", str(folder)], check=True)
    return inside, time.perf_counter() - start, decision


def print_times(runs: int) -> None:
    """The table of times: two files are read, accuracy and macro-F1 judged over the champion."""
    print(f"{'examples':>10}  {'gate, s':>8}  {'process, s':>10}  decision   (median of {runs})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for examples in LARGE:
            write(folder / "challenger.csv", examples, 0.96, seed=1)
            write(folder / "champion.csv", examples, 0.94, seed=2)
            rows = [seconds(folder) for _ in range(runs)]
            inside = statistics.median(row[0] for row in rows)
            whole = statistics.median(row[1] for row in rows)
            print(f"{examples:>10}  {inside:>8.2f}  {whole:>10.2f}  {rows[0][2]}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="this metric alone")
    parser.add_argument("--pairs", type=int, help="for every case; else by what it costs")
    parser.add_argument("--times", action="store_true", help="the times alone")
    parser.add_argument("--runs", type=int, default=3, help="of which times are the median")
    parser.add_argument("--once", type=Path, help="only judge the two files of this folder")
    given = parser.parse_args()
    if given.once:
        gate(given.once)
        return
    start = time.perf_counter()
    if not given.times:
        print_shares(given.only, given.pairs)
    if given.only is None:
        print_times(given.runs)
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
