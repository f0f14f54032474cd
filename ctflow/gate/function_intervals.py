"""Intervals of a metric that is a function of the project, of which nothing is known.

Two are made, and the hull of both taken, for each fails where the other holds. One is the
percentile bootstrap, which needs no derivative. The other is Student's interval of the function's
jackknife parts: what it says of all examples but some (one each, or a bundle where there are many)
tells how much these weigh. Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993),
chapters 11 and 13; Shao and Wu, The Annals of Statistics 17 (1989), 1176-1197, the jackknife that
leaves out several.

Asked often enough, a function of many rows would take hours: how often is bounded, by the number of
examples alone, so that the same predictions give the same verdict on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from ctflow.gate.files.predictions import Floats, Ints
from ctflow.gate.intervals.limits import mean_interval
from ctflow.gate.intervals.significance import (
    least_informative,
    percentile_interval,
    quantile_error,
    t_interval,
    unseen,
)
from ctflow.gate.metrics.functions import Function

#: So many parts at most: of more examples (or groups) several are left out together.
PARTS = 400
#: Resamples, to begin with and at most.
LEAST_RESAMPLES, MAX_RESAMPLES = 1_000, 8_000
#: Where there are so many rows to resample, it is fewer, but never fewer than the second.
MAX_ROWS, FEWEST = 50_000_000, 400
#: From so many single examples on, a disaster that is not there is imagined (see ``comparison``).
GUARDED = 1_000

Limits = tuple[float, float, str]


class Samples:
    """What a function says of resamples, and of all but some, of one set of examples.

    Args:
        rows: the examples, by their positions; None: all.
        groups: shape (n,), the group of each of all examples; None: each is by itself.
    """

    def __init__(
        self, measured: Function, rows: Ints | None, groups: Ints | None, seed: int
    ) -> None:
        self._measured = measured
        self._rows = measured.all(rows)
        self._seed = seed
        self.is_grouped = groups is not None
        #: The places in ``rows`` of each group.
        self._places: list[Ints] = []
        #: How many are drawn, or left out, each by itself: examples or groups.
        self.units = len(self._rows)
        if groups is not None:
            _, codes = np.unique(groups[self._rows], return_inverse=True)
            ends = np.cumsum(np.bincount(codes))[:-1]
            self._places = np.split(np.argsort(codes, kind="stable"), ends)
            self.units = len(self._places)
        self.values = measured.values(rows)
        self._drawn: Floats = np.zeros((0, len(self.values)))

    @cached_property
    def parts(self) -> Floats:
        """Each bundle's part in the value of each model, shape (bundles, models).

        Their mean is the value, and they vary as groups' sums do; NaN where the function is
        undefined without a bundle.
        """
        n, count = len(self._rows), len(self._bundles)
        left = self._both(lambda: (self._without(bundle) for bundle in self._bundles))
        others = n - np.array([len(bundle) for bundle in self._bundles])[:, None]
        with np.errstate(invalid="ignore"):
            found = (self.values - left) * others * count / n
            return np.asarray(self.values + found - found.mean(axis=0))

    @cached_property
    def informative(self) -> int:
        """How many bundles say anything: of one model, have another part than the commonest.

        Of two, those whose answers by the second model, put in the place of the first one's, change
        what the function says of it. What it is asked is then the same to the last bit, or is not.
        """
        if self._measured.is_joined:
            found = self._measured.ask(0, map(self._mixed, self._bundles))
            return int((found != self.values[0]).sum())
        parts = self.parts[:, 0] - (self.parts[:, 1] if len(self.values) > 1 else 0.0)
        spread = float(parts.max() - parts.min()) or 1.0
        rounded = np.round((parts - parts.min()) / spread, 9)
        return len(parts) - int(np.unique(rounded, return_counts=True)[1].max())

    def resampled(self, count: int) -> Floats:
        """The values of the first ``count`` resamples, shape (count, models)."""
        done = len(self._drawn)
        if done < count:
            more = self._both(lambda: self._draws([self._seed, done], count - done))
            self._drawn = np.concatenate([self._drawn, more])
        return self._drawn[:count]

    def first_count(self, confidence: float) -> int:
        """How many resamples to begin with: some twenty fall outside at each end, if affordable."""
        wanted = max(LEAST_RESAMPLES, math.ceil(40 / (1 - confidence)))
        return max(min(wanted, self._most), FEWEST)

    def may_double(self, count: int) -> bool:
        """Whether twice as many are not too many."""
        return 2 * count <= self._most

    @property
    def _most(self) -> int:
        return min(MAX_RESAMPLES, MAX_ROWS // len(self._rows))

    def _both(self, draws: Callable[[], Iterable[Ints]]) -> Floats:
        """Each model's values on the same draws, shape (draws, models)."""
        models = range(len(self.values))
        return np.stack([self._measured.ask(model, draws()) for model in models], axis=1)

    def _without(self, bundle: Ints) -> Ints:
        stays = np.ones(len(self._rows), np.bool_)
        stays[bundle] = False
        return self._rows[stays]

    def _mixed(self, bundle: Ints) -> Ints:
        """The examples, with the second model's answers to those of a bundle."""
        rows = self._rows.copy()
        rows[bundle] += self._measured.examples
        return rows

    @cached_property
    def _bundles(self) -> list[Ints]:
        """The units, or as many bundles of them as there may be parts, by chance."""
        order: Ints = np.arange(self.units)
        if self.units > PARTS:
            order = np.random.default_rng(self._seed).permutation(self.units)
        return [self._of(some) for some in np.array_split(order, min(PARTS, self.units))]

    def _draws(self, seed: Sequence[int], count: int) -> Iterator[Ints]:
        rng = np.random.default_rng(seed)
        for _ in range(count):
            yield self._rows[self._of(rng.integers(0, self.units, self.units))]

    def _of(self, units: Ints) -> Ints:
        """The places in ``rows`` of some units."""
        if not self.is_grouped:
            return units
        return np.concatenate([self._places[unit] for unit in units.tolist()])


def gain_interval(samples: Samples, sign: float, confidence: float, limit: float) -> Limits:
    """(low, high, method) of the gain of the first model over the second.

    Args:
        limit: what ``low`` is to reach: while it is too near for another seed to agree, resamples
            are doubled.
    """
    if why := _too_few(samples, confidence):
        return -math.inf, math.inf, why
    own = samples.parts
    gain = float(sign * (samples.values[0] - samples.values[1]))
    if not np.isfinite(own).all():
        return -math.inf, math.inf, "it is undefined where some of the examples are left out"
    parts = sign * (own[:, 0] - own[:, 1])
    informative, what = samples.informative, _what(samples)
    worst = float(own.max() - own.min())
    if informative < least_informative(confidence):
        slack = worst * unseen(informative, len(parts), confidence)
        method = f"the two differ in {informative} of {len(parts)} {what}, too few to resample"
        return min(gain - slack, 0.0), max(gain + slack, 0.0), method
    guarded = not samples.is_grouped and samples.units >= GUARDED
    low, high = t_interval(parts, gain, informative, confidence, worst=worst if guarded else 0.0)
    count = samples.first_count(confidence)
    while True:
        drawn = samples.resampled(count)
        gains = sign * (drawn[:, 0] - drawn[:, 1])
        ends = percentile_interval(gains, informative, confidence)
        error = quantile_error(gains, informative, confidence)
        if abs(ends[0] - limit) > 3 * error or not samples.may_double(count):
            break
        count *= 2
    method = f"paired bootstrap, {count} resamples (Monte Carlo error {error:.1g})"
    method += f" and Student's t of {len(parts)} {what} left out in turn"
    method += ", with one imagined disaster" if guarded else ""
    return min(low, ends[0]), max(high, ends[1]), method


def value_interval(samples: Samples, confidence: float) -> Limits:
    """(low, high, method) of one model's value."""
    if why := _too_few(samples, confidence):
        return -math.inf, math.inf, why
    parts = samples.parts[:, 0]
    if not np.isfinite(parts).all():
        return -math.inf, math.inf, "it is undefined where some of the examples are left out"
    informative, what = samples.informative, _what(samples)
    if informative < least_informative(confidence):
        method = f"{informative} of {len(parts)} {what} differ from the others, too few to tell"
        return -math.inf, math.inf, method
    low, high = mean_interval(parts, informative - 1, confidence)
    drawn = samples.resampled(samples.first_count(confidence))[:, 0]
    ends = percentile_interval(drawn, informative, confidence)
    method = f"bootstrap and Student's t of {len(parts)} {what} left out in turn"
    return min(low, ends[0]), max(high, ends[1]), method


def _too_few(samples: Samples, confidence: float) -> str:
    """Why nothing is asked: no function need stand having hardly an example; "" where it is."""
    if samples.units >= least_informative(confidence):
        return ""
    return f"{samples.units} {'groups' if samples.is_grouped else 'examples'}, too few to tell"


def _what(samples: Samples) -> str:
    """What the parts are of."""
    if samples.units > PARTS:
        return "bundles of groups" if samples.is_grouped else "bundles of examples"
    return "groups" if samples.is_grouped else "examples"
