"""What serving a model costs, by the names that rules call it: which there are, and what they take.

They are measured, on the model and on its server, and not computed from predictions.
"""

from __future__ import annotations

from collections.abc import Collection

#: The model's own size: the sum of its files.
BYTES = "bytes"
#: Shares of the answers, by the name of the time in milliseconds that they take at most.
TIMES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99}
COSTS = (BYTES, *TIMES)


def cost_fault(metric: str, said: Collection[str], low: float | None, high: float | None) -> str:
    """What is wrong with a rule on a cost, or "".

    Args:
        metric: one of ``COSTS``.
        said: the keys that the rule says.
        low, high: its ``min`` and ``max``.
    """
    if "over" in said:
        return f"{metric} is not compared with the champion: bound it with 'max'"
    if "confidence" in said:
        why = "is counted, not estimated" if metric == BYTES else "has its own limits, at 95%"
        return f"{metric} {why}: leave 'confidence' out"
    if "of" in said:
        return f"{metric} is what the gate measures itself: give a metric with 'of' another name"
    others = sorted(set(said) - {"metric", "min", "max"})
    if others:
        return f"{metric} is measured, not computed from predictions: leave '{others[0]}' out"
    if metric in TIMES and low is not None:
        return f"{metric} is a cost: 'min' says nothing of it, say 'max'"
    if low is None and high is None:
        return f"a rule on {metric} needs 'max'"
    if high is not None and high <= 0:
        return f"max {high:g}: no model has {metric} of 0 or below"
    return ""
