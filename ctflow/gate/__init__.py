"""The gate: a run's metrics and predictions, and the champion's, to a verdict. All of it is pure.

``judge`` applies the rules; ``evidence`` reads predictions files; ``measures``, ``by_class``,
``areas`` and ``scores`` are the metrics that predictions give; ``comparison`` and ``significance``
say whether a gain is real.
"""

from ctflow.gate.judge import Champion, judge

__all__ = ["Champion", "judge"]
