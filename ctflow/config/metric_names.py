"""The metrics that predictions give, by name: which there are, and what is known of each."""

from __future__ import annotations

import re

RIGHT_WRONG = ("accuracy", "error_rate", "precision_micro", "recall_micro", "f1_micro")
NUMERIC = ("mae", "mse", "rmse", "r2", "mape")
PROBABILISTIC = ("log_loss", "brier")
RANKED = ("roc_auc", "roc_auc_ovr", "roc_auc_ovo", "average_precision")
AGREEMENT = ("mcc", "kappa")
#: Metrics that are 0 at best.
LOSSES = ("brier", "log_loss", "mae", "mse", "rmse", "mape", "ece")
BY_CLASS = re.compile(r"(precision|recall|f1)(?:_(.+))?", re.DOTALL)
TOP_K = re.compile(r"top_([1-9]\d{0,3})_accuracy")
PINBALL = re.compile(r"pinball_(0\.\d{1,4})")
NDCG = re.compile(r"ndcg(?:_([1-9]\d{0,3}))?")
#: Metrics that have no interval, and so are for bounds alone.
BOUNDS_ALONE = ("ece",)
_OTHER = ("balanced_accuracy", "score", *BOUNDS_ALONE)
_FIXED = {*RIGHT_WRONG, *NUMERIC, *PROBABILISTIC, *RANKED, *AGREEMENT, *_OTHER}
_BOUNDED = {*RIGHT_WRONG, *RANKED, *AGREEMENT, "balanced_accuracy", "brier"}


def is_known(name: str) -> bool:
    """Whether a metric of this name is ever computed from predictions."""
    return (
        name in _FIXED
        or BY_CLASS.fullmatch(name) is not None
        or TOP_K.fullmatch(name) is not None
        or PINBALL.fullmatch(name) is not None
        or is_of_queries(name)
    )


def is_of_queries(name: str) -> bool:
    """Whether the metric ranks the rows of each query, and is the mean over the queries."""
    return NDCG.fullmatch(name) is not None


def is_right_wrong(name: str) -> bool:
    """Whether the metric is the share of the examples that are right, or that are wrong."""
    return name in RIGHT_WRONG or TOP_K.fullmatch(name) is not None


def is_loss(name: str) -> bool:
    """Whether the metric is 0 at best."""
    return name in LOSSES or PINBALL.fullmatch(name) is not None


def is_mean_of_examples(name: str) -> bool:
    """Whether the metric is a mean over the examples, or the root of one."""
    is_mean = is_right_wrong(name) or is_loss(name) or name == "score"
    return is_mean and name not in BOUNDS_ALONE


def is_lower_better(name: str) -> bool:
    """Whether the metric of this name improves as it falls."""
    return name == "error_rate" or is_loss(name)


def is_bounded(name: str) -> bool:
    """Whether the metric is at most 1, and not below ``lowest`` (``brier`` of many classes: 2)."""
    if name in _BOUNDED or is_right_wrong(name) or is_of_queries(name):
        return True
    return BY_CLASS.fullmatch(name) is not None


def lowest(name: str) -> float:
    """The least value of a bounded metric."""
    return -1.0 if name in AGREEMENT else 0.0
