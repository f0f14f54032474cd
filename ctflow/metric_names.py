"""The metrics that predictions give, by name: which there are, and what is known of each."""

from __future__ import annotations

import re

RIGHT_WRONG = ("accuracy", "error_rate", "precision_micro", "recall_micro", "f1_micro")
NUMERIC = ("mae", "mse", "rmse", "r2")
PROBABILISTIC = ("log_loss", "brier")
LOWER_BETTER = ("error_rate", "log_loss", "brier", "mae", "mse", "rmse")
#: Metrics that are 0 at best.
LOSSES = ("brier", "log_loss", "mae", "mse", "rmse")
BY_CLASS = re.compile(r"(precision|recall|f1)(?:_(.+))?", re.DOTALL)
_FIXED = {*RIGHT_WRONG, *NUMERIC, *PROBABILISTIC, "balanced_accuracy", "roc_auc", "score"}
_BOUNDED = {*RIGHT_WRONG, "balanced_accuracy", "brier", "roc_auc"}


def is_known(name: str) -> bool:
    """Whether a metric of this name is ever computed from predictions."""
    return name in _FIXED or BY_CLASS.fullmatch(name) is not None


def is_lower_better(name: str) -> bool:
    """Whether the metric of this name improves as it falls."""
    return name in LOWER_BETTER


def is_bounded(name: str) -> bool:
    """Whether two values of the metric differ by 1 at most (``brier`` of many classes: 2)."""
    return name in _BOUNDED or BY_CLASS.fullmatch(name) is not None
