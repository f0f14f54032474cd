"""Is the label among the classes that a model holds most likely?"""

from __future__ import annotations

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Predictions, shown
from ctflow.gate.metrics.measures import Bools


def among_best(model: Predictions, k: int) -> Bools:
    """Whether fewer than ``k`` other classes are as likely as the label or likelier; shape (n,).

    So a label that ties with others counts as the last of them: else a model that holds all
    classes as likely would be right.

    Raises:
        ConfigError: a label has no column ``p_<class>``, or there are no more than ``k``.
    """
    columns = model.probabilities
    if len(columns) <= k:
        raise ConfigError(
            f"there are {len(columns)} columns p_<class>, not more than {k}",
            next="write the probability of each class",
        )
    labels = model.classes("label")
    for name in labels.distinct:
        if name not in columns:
            raise ConfigError(f"there is no column p_{shown(name)}")
    chances = {name: model.numbers(column) for name, column in columns.items()}
    own = np.zeros(len(labels))
    for name in labels.distinct:
        of = labels.equal(name)
        own[of] = chances[name][of]
    others = np.zeros(len(labels), np.int64)
    for chance in chances.values():
        others += chance >= own
    return np.asarray(others <= k)  # the label itself is one of them
