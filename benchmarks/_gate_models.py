"""Simulated models of known quality, and the cases that the benchmarks of the gate judge with them.

Each simulation draws the predictions of two models on the same examples: the challenger's, then
the champion's. ``better`` says by how much the challenger is truly better, in steps of each
simulation's own: 0 for equal models, 1 for a gain that is worth showing, below 0 for a worse one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ctflow.config.gate_rules import GateRule
from ctflow.gate.files.predictions import Predictions
from ctflow.gate.files.texts import Numbers, Texts

KEY = "evaluate.predictions"
SIZES = (50, 200, 1_000)
Pair = tuple[Predictions, Predictions]
#: How many pairs of models are judged, for each of ``SIZES``: by what one judgement costs.
FORMULA, RESAMPLED, RANKED = (400, 400, 400), (160, 80, 50), (60, 40, 24)


class Make(Protocol):
    """A simulation: predictions of a challenger and of a champion on ``n`` examples."""

    def __call__(self, rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
        """Draw the two."""
        ...


def table(**columns: Any) -> Predictions:
    """Predictions of those columns, each of shape (n,)."""
    named = {name: _texts(np.asarray(column)) for name, column in columns.items()}
    return Predictions([f"e{i:05}" for i in range(len(named["label"]))], named, Path("p.csv"))


def _texts(column: Any) -> Numbers | Texts:
    """A column as a reader of files holds it."""
    if column.dtype.kind == "f":
        return Numbers(column)
    distinct, codes = np.unique(column, return_inverse=True)
    return Texts([str(value) for value in distinct.tolist()], codes.astype(np.int32))


def rare_class(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """5% positives; each model finds 80% of them, and 97% of the negatives; better: 95 and 99%."""
    y = (rng.random(n) < 0.05).astype(int)

    def model(step: float) -> Predictions:
        found, kept = 0.8 + 0.15 * step, 0.97 + 0.02 * step
        right = np.where(y == 1, rng.random(n) < found, rng.random(n) < kept)
        return table(label=y, prediction=np.where(right, y, 1 - y))

    return model(better), model(0.0)


def four_classes(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Four classes of 40 to 10%; 85% of the answers are right; better: 89%."""
    y = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])

    def model(step: float) -> Predictions:
        right = rng.random(n) < 0.85 + 0.04 * step
        return table(label=y, prediction=np.where(right, y, (y + rng.integers(1, 4, n)) % 4))

    return model(better), model(0.0)


def probabilities(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Two classes, as many of each, and noisy probabilities; better: with more of a signal."""
    y = rng.integers(0, 2, n)

    def model(step: float) -> Predictions:
        signal = 1.5 + 0.5 * step
        p = 1 / (1 + np.exp(-((2 * y - 1) * signal + rng.normal(0, 1.2, n))))
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(better), model(0.0)


def weighted(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """The same, with very uneven weights (lognormal)."""
    pair = probabilities(rng, n, better)
    weight = Numbers(np.exp(rng.normal(0, 1, n)))
    ours, theirs = (Predictions(m.ids, {**m.columns, "weight": weight}, m.path) for m in pair)
    return ours, theirs


def ranking(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """20% positives, whose scores spread twice as wide as the negatives'; better: further apart."""
    y = (rng.random(n) < 0.2).astype(int)

    def model(step: float) -> Predictions:
        noise = rng.normal(0, 0.2, n) * np.where(y == 1, 2, 1)
        p = np.clip(0.4 + (0.2 + 0.12 * step) * y + noise, 0, 1)
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(better), model(0.0)


def three_classes(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Three classes (60, 30, 10%), and noisy probabilities; better: with more of a signal."""
    y = rng.choice(3, n, p=[0.6, 0.3, 0.1])

    def model(step: float) -> Predictions:
        signal = 2.0 + 0.5 * step
        weight = np.exp(rng.normal(0, 1, (n, 3)) + signal * (np.arange(3) == y[:, None]))
        chance = weight / weight.sum(axis=1, keepdims=True)
        columns = {f"p_{j}": chance[:, j] for j in range(3)}
        return table(label=y, prediction=chance.argmax(axis=1), **columns)

    return model(better), model(0.0)


def outliers(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Numbers; 1% of the errors are ten times as large; better: all are 15% smaller."""
    y = rng.normal(0, 1, n)

    def model(step: float) -> Predictions:
        wide = np.where(rng.random(n) < 0.01, 10, 1)
        return table(label=y, prediction=y + rng.normal(0, 1 - 0.15 * step, n) * wide)

    return model(better), model(0.0)


def disasters(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """The challenger gains a little, but is certain and wrong on 0.5% of the examples.

    better: on fewer, by that share of them.
    """
    share = 0.005
    y = rng.integers(0, 2, n)
    true = np.where(rng.random(n) < 0.85, 0.85, 0.15)
    gain = share * (1 - (0.85 * 0.15**2 + 0.15 * 0.85**2)) / (1 - share)
    improved = 1 - np.sqrt(np.maximum((1 - true) ** 2 - gain, 0))
    ours = np.where(rng.random(n) < share * (1 - better), 0.0, improved)

    def model(sure: Any) -> Predictions:
        p = np.where(y == 1, sure, 1 - sure)
        return table(label=y, prediction=(p > 0.5).astype(int), p_1=p)

    return model(ours), model(true)


def groups(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Groups of 20 rows that are right or wrong together; the models differ in a fifth of them.

    The challenger wins in half of those; better: in nine of ten.
    """
    who = np.arange(n) // 20
    count = int(who[-1]) + 1
    y = rng.integers(0, 2, count)[who]
    wins = rng.choice([1, -1, 0], count, p=[0.1 + 0.08 * better, 0.1 - 0.08 * better, 0.8])[who]

    def model(loses: int) -> Predictions:
        answer = np.where(wins == loses, 1 - y, y)
        p = 0.15 + 0.7 * answer + rng.random(n) * 0.2 - 0.1
        return table(label=y, prediction=answer, p_1=p, who=who)

    return model(-1), model(1)


def series(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """A number every 12 hours, whose errors last for a day or so; better: they are 25% smaller.

    Errors follow ``e[t] = 0.6 e[t-1] + noise``: half of one is left after 16 hours.
    """
    y = rng.normal(0, 1, n)
    at = np.datetime64("2024-01-01T00") + np.arange(n) * np.timedelta64(12, "h")

    def model(step: float) -> Predictions:
        noise = rng.normal(0, 1 - 0.25 * step, n)
        error = np.zeros(n)
        for t in range(n):
            error[t] = (0.6 * error[t - 1] if t else 0) + noise[t]
        return table(label=y, prediction=y + error, at=np.datetime_as_string(at, unit="m"))

    return model(better), model(0.0)


def purchases(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Customers whose revenue is very uneven, at a margin of 30%.

    Each model wins 70% of them; better: 80%.
    """
    size = np.exp(rng.normal(0, 1, n))

    def model(step: float) -> Predictions:
        won = rng.random(n) < 0.7 + 0.1 * step
        profit = np.where(won, 0.3 * size, -0.1 * size)
        return table(label=won * 0, prediction=won * 0, profit=profit, revenue=size * won)

    return model(better), model(0.0)


def waits(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """Waiting times with a long tail, which the two models share for the most part.

    better: all are 14% shorter.
    """
    base = rng.normal(0, 1, n)

    def model(step: float) -> Predictions:
        wait = np.exp(base + rng.normal(0, 0.5, n) - 0.15 * step)
        return table(label=np.zeros(n, int), prediction=np.zeros(n, int), wait=wait)

    return model(better), model(0.0)


def queries(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """``n`` queries of 5 to 20 rows of relevance 0 to 3, of which a tenth have no relevant row.

    Scores are the relevance with noise, in steps of a half, so that some tie; better: less noise.
    """
    sizes = rng.integers(5, 21, n)
    who = np.repeat(np.arange(n), sizes)
    y = rng.choice(4, len(who), p=[0.6, 0.2, 0.15, 0.05]) * (rng.random(n) > 0.1)[who]

    def model(step: float) -> Predictions:
        score = np.round(2 * (y + rng.normal(0, 1.5 - 0.2 * step, len(who)))) / 2
        return table(label=y, prediction=np.zeros(len(who), int), score=score, who=who)

    return model(better), model(0.0)


def one_answer(rng: np.random.Generator, n: int, better: float = 0.0) -> Pair:
    """``n`` queries of 20 rows, one of them relevant, whose score is higher; better: more so."""
    who = np.repeat(np.arange(n), 20)
    y = (np.arange(len(who)) % 20 == 0).astype(int)

    def model(step: float) -> Predictions:
        score = rng.normal(0, 1, len(who)) + (1.8 + 0.25 * step) * y
        return table(label=y, prediction=np.zeros(len(who), int), score=score, who=who)

    return model(better), model(0.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A metric, models to judge by it, and the test of a textbook for it.

    Attributes:
        says: what the rule says besides.
        test: ``McNemar``, ``t``, ``DeLong`` or ``bootstrap``: see ``_gate_textbook``.
        pairs: how many pairs of models, for each of ``SIZES``.
        steps: how much better the challengers are; 0 for equal models.
    """

    metric: str
    make: Make
    what: str
    test: str
    pairs: tuple[int, int, int] = RESAMPLED
    says: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: tuple[float, ...] = (0.0, 1.0)

    @property
    def rule(self) -> GateRule:
        """The rule over the champion."""
        return GateRule.model_validate(
            {"metric": self.metric, "over": "champion", "predictions": KEY, **self.says}
        )


_RARE, _THREE, _RANK = "5% positives", "three classes", "20% positives"
_WHO = {"group": "who"}


def _own(metric: str, make: Make, what: str, test: str, better: str = "", **of: Any) -> Case:
    says = {"of": of, **({"better": better} if better else {})}
    return Case(metric, make, what, test, says=says)


CASES = [
    Case("accuracy", rare_class, _RARE, "McNemar", FORMULA),
    # A quarter of a step is one point: what a rule without a test lets pass of worse models.
    Case("accuracy", four_classes, "four classes", "McNemar", FORMULA, steps=(0.0, 1.0, -0.25)),
    Case("recall", rare_class, _RARE, "McNemar", FORMULA),
    Case("balanced_accuracy", rare_class, _RARE, "bootstrap", FORMULA),
    *(Case(m, rare_class, _RARE, "bootstrap") for m in (
        "precision", "f1", "f1_macro", "mcc", "kappa")),
    *(Case(m, three_classes, _THREE, "bootstrap") for m in ("mcc", "kappa")),
    Case("roc_auc_ovr", three_classes, _THREE, "bootstrap", RANKED),
    Case("roc_auc_ovo", three_classes, _THREE, "bootstrap", RANKED),
    Case("top_2_accuracy", three_classes, _THREE, "McNemar", FORMULA),
    *(Case(m, probabilities, "two classes", "t") for m in ("log_loss", "brier")),
    Case("brier", disasters, "rare disasters", "t", steps=(0.0,)),
    *(Case(m, outliers, "1% outliers", "t") for m in ("mse", "mae", "pinball_0.9")),
    Case("roc_auc", ranking, _RANK, "DeLong", RANKED),
    Case("average_precision", ranking, _RANK, "bootstrap", RANKED),
    Case("accuracy", groups, "groups of 20, not said", "McNemar", FORMULA),
    Case("accuracy", groups, "groups of 20, group: who", "McNemar", FORMULA, _WHO),
    *(Case(m, groups, "groups of 20, group: who", t, RESAMPLED, _WHO) for m, t in (
        ("balanced_accuracy", "bootstrap"), ("brier", "t"), ("roc_auc", "DeLong"))),
    Case("mae", series, "a series, blocks not said", "t"),
    Case("mae", series, "a series, block: 7d", "t", RESAMPLED, {"group": "at", "block": "7d"}),
    Case("ndcg", queries, "queries", "t", RESAMPLED, _WHO),
    Case("ndcg_10", one_answer, "queries with one answer", "t", RESAMPLED, _WHO),
    *(Case(m, weighted, "uneven weights", t, RESAMPLED, {"weight": "weight"}) for m, t in (
        ("accuracy", "McNemar"), ("brier", "t"))),
    _own("cost", rare_class, _RARE, "t", cost={"1": {"0": 100}, "0": {"1": 5}}),
    _own("profit", purchases, "a sum", "t", "higher", sum="profit"),
    _own("return", purchases, "a ratio", "bootstrap", "higher", ratio=["profit", "revenue"]),
    _own("wait_p50", waits, "the median", "bootstrap", "lower", quantile="wait", at=0.5),
    _own("wait_p90", waits, "90th percentile", "bootstrap", "lower", quantile="wait", at=0.9),
]  # fmt: skip
