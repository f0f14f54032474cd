"""How often the gate lets a model through that is just at a bound, with and without a confidence.

Usage: python benchmarks/gate_bounds.py [--models N] [--only METRIC]. The bound of each case is
the value that its models have in truth, so a bound with ``confidence: 0.95`` is to pass at most
2.5% of them; a bound alone passes about half. 200 models have a standard error of 1.1 points at
2.5%. Seeded: the same figures each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from _gate_models import (
    KEY,
    SIZES,
    Pair,
    four_classes,
    groups,
    one_answer,
    outliers,
    probabilities,
    queries,
    ranking,
    rare_class,
    table,
    three_classes,
)

from ctflow.config.gate_rules import GateRule
from ctflow.config.metric_names import is_lower_better, is_of_queries
from ctflow.errors import CtflowError
from ctflow.gate import judge
from ctflow.gate.metrics.scores import measure

Make = Callable[[np.random.Generator, int], Pair]
#: On so many examples the true value is taken.
TRUTH = 200_000


def errors(rng: np.random.Generator, n: int) -> Pair:
    """Numbers with normal errors."""
    y = rng.normal(0, 1, n)
    return table(label=y, prediction=y), table(label=y, prediction=y + rng.normal(0, 1, n))


def overlapping(rng: np.random.Generator, n: int) -> Pair:
    """20% positives, whose scores are 2.5 standard deviations above the others'."""
    y = (rng.random(n) < 0.2).astype(int)
    p = 1 / (1 + np.exp(-(2.5 * y + rng.normal(0, 1, n) - 1.5)))
    model = table(label=y, prediction=(p > 0.5).astype(int), p_1=p)
    return model, model


CASES: list[tuple[str, Make, str, dict[str, str]]] = [
    ("accuracy", four_classes, "four classes", {}),
    *((m, rare_class, "5% positives", {}) for m in ("recall", "precision", "f1")),
    *((m, four_classes, "four classes", {}) for m in (
        "balanced_accuracy", "precision_macro", "f1_macro", "f1_weighted")),
    *((m, probabilities, "two classes", {}) for m in ("log_loss", "brier")),
    *((m, errors, "normal errors", {}) for m in ("mae", "mse", "rmse", "r2")),
    ("mse", outliers, "1% outliers", {}),
    ("roc_auc", ranking, "area 0.67", {}),
    ("roc_auc", overlapping, "area 0.96", {}),
    ("average_precision", ranking, "20% positives", {}),
    ("average_precision", overlapping, "20% positives, apart", {}),
    ("mcc", rare_class, "5% positives", {}),
    *((m, four_classes, "four classes", {}) for m in ("mcc", "kappa")),
    ("roc_auc_ovr", three_classes, "three classes", {}),
    ("roc_auc_ovo", three_classes, "three classes", {}),
    ("ndcg", queries, "queries", {"group": "who"}),
    ("ndcg_10", one_answer, "queries with one answer", {"group": "who"}),
    ("accuracy", groups, "groups of 20, not said", {}),
    ("accuracy", groups, "groups of 20, group: who", {"group": "who"}),
]  # fmt: skip


def passed(metric: str, make: Make, n: int, models: int, says: dict[str, str]) -> list[float]:
    """The shares of the models that a bound with a confidence lets through, and one without."""
    rng = np.random.default_rng(7)
    group, size = says.get("group"), TRUTH // 10 if is_of_queries(metric) else TRUTH
    true = make(np.random.default_rng(1), size)[1]
    truth = float(measure(metric, [true], group=group).values()[0])
    bound = {"max" if is_lower_better(metric) else "min": truth}
    sure = GateRule.model_validate(
        {"metric": metric, "predictions": KEY, "confidence": 0.95, **bound, **says}
    )
    asked = says if is_of_queries(metric) else {}
    point = GateRule.model_validate({"metric": metric, "predictions": KEY, **bound, **asked})
    counts = [0, 0]
    for _ in range(models):
        model = make(rng, n)[1]
        try:
            value = float(measure(metric, [model], group=group).values()[0])
            for place, rule in enumerate((sure, point)):
                verdict = judge(
                    project="benchmark", environment="staging", run="r-1", rules=[rule],
                    metrics={metric: value}, predictions={KEY: model}, champion=None,
                )  # fmt: skip
                counts[place] += verdict.decision == "promote"
        except CtflowError:
            continue  # such as no example of the positive class: nothing is promoted
    return [count / models for count in counts]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--only", help="this metric alone")
    given = parser.parse_args()
    models = given.models
    print(f"promoted of {models} models just at the bound: with a confidence, and (without)")
    print(f"{'metric':18} {'examples':26}" + "".join(f"{f'n={n}':>16}" for n in SIZES))
    for metric, make, what, says in CASES:
        if given.only not in (None, metric):
            continue
        cells = []
        for n in SIZES:
            sure, point = passed(metric, make, n, models, says)
            cells.append(f"{sure:7.1%} ({point:5.0%})")
        print(f"{metric:18} {what:26}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
