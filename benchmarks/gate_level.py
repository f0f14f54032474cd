"""How often the gate promotes a challenger that is no better: pairs of equally good models.

Usage: python benchmarks/gate_level.py [--pairs N] [--only METRIC]. Both models of a pair are drawn
from the same simulation, so every promotion is a false one; the gate says at most 2.5%. ``naive``
is the rule that many scripts have, challenger above champion. 300 pairs have a standard error of
0.9 points at 2.5%. Seeded: the same figures each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctflow.errors import CtflowError
from ctflow.gate import Champion, judge
from ctflow.gate.predictions import Predictions
from ctflow.gate_rules import GateRule

KEY = "evaluate.predictions"
SIZES = (50, 200, 1_000)
Pair = tuple[Predictions, Predictions]
Make = Callable[[np.random.Generator, int], Pair]


def table(**columns: Any) -> Predictions:
    """Predictions of those columns, each of shape (n,)."""
    named = {name: [str(x) for x in column.tolist()] for name, column in columns.items()}
    return Predictions([f"e{i:05}" for i in range(len(named["label"]))], named, Path("p.csv"))


def rare_class(rng: np.random.Generator, n: int) -> Pair:
    """5% positives; each model finds 80% of them, and 97% of the negatives."""
    y = (rng.random(n) < 0.05).astype(int)

    def model() -> Predictions:
        right = np.where(y == 1, rng.random(n) < 0.8, rng.random(n) < 0.97)
        return table(label=y, prediction=np.where(right, y, 1 - y))

    return model(), model()


def probabilities(rng: np.random.Generator, n: int) -> Pair:
    """Two classes, as many of each, and noisy probabilities."""
    y = rng.integers(0, 2, n)

    def model() -> Predictions:
        p = 1 / (1 + np.exp(-((2 * y - 1) * 1.5 + rng.normal(0, 1.2, n))))
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(), model()


def ranking(rng: np.random.Generator, n: int) -> Pair:
    """20% positives, whose scores spread twice as wide as the negatives'."""
    y = (rng.random(n) < 0.2).astype(int)

    def model() -> Predictions:
        noise = rng.normal(0, 0.2, n) * np.where(y == 1, 2, 1)
        p = np.clip(0.4 + 0.2 * y + noise, 0, 1)
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(), model()


def three_classes(rng: np.random.Generator, n: int) -> Pair:
    """Three classes (60, 30, 10%), and noisy probabilities."""
    y = rng.choice(3, n, p=[0.6, 0.3, 0.1])

    def model() -> Predictions:
        weight = np.exp(rng.normal(0, 1, (n, 3)) + 2.0 * (np.arange(3) == y[:, None]))
        chance = weight / weight.sum(axis=1, keepdims=True)
        columns = {f"p_{j}": chance[:, j] for j in range(3)}
        return table(label=y, prediction=chance.argmax(axis=1), **columns)

    return model(), model()


def outliers(rng: np.random.Generator, n: int) -> Pair:
    """Numbers; 1% of the errors are ten times as large."""
    y = rng.normal(0, 1, n)

    def model() -> Predictions:
        wide = np.where(rng.random(n) < 0.01, 10, 1)
        return table(label=y, prediction=y + rng.normal(0, 1, n) * wide)

    return model(), model()


def disasters(rng: np.random.Generator, n: int) -> Pair:
    """The challenger is a little better, but certain and wrong on 0.5% of the examples."""
    share = 0.005
    y = rng.integers(0, 2, n)
    true = np.where(rng.random(n) < 0.85, 0.85, 0.15)
    gain = share * (1 - (0.85 * 0.15**2 + 0.15 * 0.85**2)) / (1 - share)
    better = 1 - np.sqrt(np.maximum((1 - true) ** 2 - gain, 0))
    ours = np.where(rng.random(n) < share, 0.0, better)

    def model(sure: Any) -> Predictions:
        p = np.where(y == 1, sure, 1 - sure)
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(ours), model(true)


def groups(rng: np.random.Generator, n: int) -> Pair:
    """Groups of 20 rows that are right or wrong together; the models differ in a fifth of them."""
    who = np.arange(n) // 20
    count = int(who[-1]) + 1
    y = rng.integers(0, 2, count)[who]
    wins = rng.choice([1, -1, 0], count, p=[0.1, 0.1, 0.8])[who]

    def model(loses: int) -> Predictions:
        answer = np.where(wins == loses, 1 - y, y)
        p = 0.15 + 0.7 * answer + rng.random(n) * 0.2 - 0.1
        return table(label=y, prediction=answer, p_1=p, who=who)

    return model(-1), model(1)


def purchases(rng: np.random.Generator, n: int) -> Pair:
    """Customers whose revenue is very uneven; each model wins 70% of it, at a margin of 30%."""
    size = np.exp(rng.normal(0, 1, n))

    def model() -> Predictions:
        won = rng.random(n) < 0.7
        profit = np.where(won, 0.3 * size, -0.1 * size)
        return table(label=won * 0, prediction=won * 0, profit=profit, revenue=size * won)

    return model(), model()


def waits(rng: np.random.Generator, n: int) -> Pair:
    """Waiting times with a long tail, which the two models share for the most part."""
    base = rng.normal(0, 1, n)

    def model() -> Predictions:
        wait = np.exp(base + rng.normal(0, 0.5, n))
        return table(label=wait * 0, prediction=wait * 0, wait=wait)

    return model(), model()


HIGHER = {"better": "higher"}
OWN: list[tuple[str, Make, str, dict[str, Any]]] = [
    ("cost", rare_class, "5% positives", {"of": {"cost": {1: {0: 100}, 0: {1: 5}}}}),
    ("profit", purchases, "a sum", {"of": {"sum": "profit"}, **HIGHER}),
    ("return", purchases, "a ratio", {"of": {"ratio": ["profit", "revenue"]}, **HIGHER}),
    ("wait_p50", waits, "the median", {"of": {"quantile": "wait", "at": 0.5}, "better": "lower"}),
    ("wait_p90", waits, "90th perc.", {"of": {"quantile": "wait", "at": 0.9}, "better": "lower"}),
]
CASES: list[tuple[str, Make, str, dict[str, Any]]] = [
    *((m, rare_class, "5% positives", {}) for m in (
        "accuracy", "recall", "balanced_accuracy", "precision", "f1", "f1_macro", "mcc", "kappa")),
    *((m, three_classes, "three classes", {}) for m in (
        "mcc", "kappa", "roc_auc_ovr", "top_2_accuracy")),
    *((m, probabilities, "", {}) for m in ("log_loss", "brier")),
    ("brier", disasters, "rare disasters", {}),
    *((m, outliers, "1% outliers", {}) for m in ("mse", "mae", "pinball_0.9")),
    ("roc_auc", ranking, "20% positives", {}),
    ("average_precision", ranking, "20% positives", {}),
    ("accuracy", groups, "groups of 20, not said", {}),
    *((m, groups, "groups of 20, group: who", {"group": "who"}) for m in (
        "accuracy", "balanced_accuracy", "brier", "roc_auc")),
    *OWN,
]  # fmt: skip


def share(metric: str, make: Make, n: int, pairs: int, says: dict[str, Any]) -> tuple[float, float]:
    """The share of the pairs that the gate promotes, and that the naive rule would."""
    rng = np.random.default_rng(5)
    rule = GateRule.model_validate(
        {"metric": metric, "over": "champion", "predictions": KEY, **says}
    )
    promoted = above = 0
    for _ in range(pairs):
        ours, theirs = make(rng, n)
        try:
            verdict = judge(
                project="benchmark", environment="staging", run="r-1", rules=[rule], metrics={},
                predictions={KEY: ours}, champion=Champion("sha256:old", {}, {KEY: theirs}),
            )  # fmt: skip
        except CtflowError:
            continue  # such as no example of the positive class: nothing is promoted
        found = verdict.reasons[0].comparison
        promoted += verdict.decision == "promote"
        above += found is not None and found.gain > 0
    return promoted / pairs, above / pairs


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--only", help="this metric alone")
    given = parser.parse_args()
    pairs = given.pairs
    print(f"promoted of {pairs} pairs of equal models: gate, and (naive)")
    print(f"{'metric':18} {'examples':26}" + "".join(f"{f'n={n}':>16}" for n in SIZES))
    for metric, make, what, says in CASES:
        if given.only not in (None, metric):
            continue
        cells = []
        for n in SIZES:
            gate, naive = share(metric, make, n, pairs, says)
            cells.append(f"{gate:7.1%} ({naive:5.0%})")
        print(f"{metric:18} {what:26}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
