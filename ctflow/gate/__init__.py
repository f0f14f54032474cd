"""The gate: a run's metrics and predictions, and the champion's, to a verdict. All of it is pure.

``judge`` applies the rules. Below it, ``comparison`` is of two models and ``single`` of one; they
ask ``metrics`` for values, resamples and parts, and ``intervals`` whether those are more than
chance; ``files`` reads predictions. ``planning`` and ``plans`` say how many examples would do.
"""

from ctflow.gate.judge import Champion, judge

__all__ = ["Champion", "judge"]
