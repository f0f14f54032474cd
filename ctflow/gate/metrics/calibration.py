"""Calibration: is a model right as often as it says?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.intervals.significance import bootstrap_rows
from ctflow.gate.metrics.measures import Bools, Indexes, pick, right_answers

#: Bins of equal width.
BINS = 15


class CalibrationError:
    """Expected calibration error, ``ece``: 0 at best, 1 at worst.

    The mean over the examples of how far the share of right answers in an example's bin is from
    the mean probability that the model gives its answers there. Source: Guo, Pleiss, Sun and
    Weinberger, Proceedings of Machine Learning Research 70 (2017), 1321-1330.

    It is above 0 for a calibrated model too, the more so the fewer examples there are, and on
    resamples it is higher yet: it has no interval here, and is for bounds alone.
    """

    def __init__(self, models: Sequence[Predictions]) -> None:
        self._right = right_answers(models)
        self._chances = [_of_answers(model) for model in models]

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        pairs = zip(self._right, self._chances, strict=True)
        return np.array([_error(pick(right, rows), pick(p, rows)) for right, p in pairs])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        right = [pick(one, rows) for one in self._right]
        chances = [pick(one, rows) for one in self._chances]

        def statistic(drawn: Indexes) -> Floats:
            return np.array(
                [[_error(r[d], p[d]) for r, p in zip(right, chances, strict=True)] for d in drawn]
            )

        return bootstrap_rows(len(right[0]), statistic, count, rng)

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        one, two = (pick(c, rows) for c in self._chances[:2])
        a, b = (pick(r, rows) for r in self._right[:2])
        return np.asarray((one != two) | (a != b))

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: nothing can be said."""
        return math.inf


def _of_answers(model: Predictions) -> Floats:
    """The probability that the model gives its own answer, shape (n,)."""
    answers, columns = model.classes("prediction"), model.probabilities
    found = np.zeros(len(answers))
    for name in answers.distinct:
        of = answers.equal(name)
        if name in columns:
            found[of] = model.numbers(columns[name])[of]
        elif len(columns) == 1 and len(answers.distinct) <= 2:
            found[of] = 1 - model.numbers(next(iter(columns.values())))[of]
        else:
            raise ConfigError(f"there is no column p_{shown(name)}")
    return found


def _error(right: Bools, chance: Floats) -> float:
    bins = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=right.astype(np.float64) - chance, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))
