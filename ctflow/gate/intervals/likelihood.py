"""Empirical likelihood: limits of a mean that lean to the side on which the values are skewed.

Student's interval is as long on either side, and too short on that of rare large losses. Source:
Owen, Biometrika 75 (1988), 237-249: of all weights that give the values a mean, those are
taken that are likeliest; -2 log of their likelihood, by that of equal weights, is about chi-square.
"""

from __future__ import annotations

import math

import numpy as np

from ctflow.gate.files.predictions import Floats
from ctflow.gate.intervals.significance import student

_STEPS = 60


def likelihood_interval(
    values: Floats, informative: int, confidence: float, worst: float = 0.0
) -> tuple[float, float]:
    """Limits of a mean, two-sided at ``confidence``.

    The square of Student's t stands for chi-square, as Owen advises for small samples.

    Args:
        values: shape (n,).
        informative: how many of them are not 0: their number less 1 are the degrees of freedom.
        worst: above 0, each end is reckoned with one imagined value that is so far below (above) 0.
    """
    limit = student((1 + confidence) / 2, max(informative - 1, 1))
    return _lower(values, limit, worst), -_lower(-values, limit, worst)


def _lower(values: Floats, limit: float, worst: float) -> float:
    if worst:
        values = np.append(values, -worst)
    low, high = float(values.min()), float(values.mean())
    if not low < high:
        return low
    # The root of the ratio is nearly a line in the mean: a few secants, kept between two ends.
    before, off = high, -limit
    at = high - limit * float(values.std()) / math.sqrt(len(values))
    for _ in range(_STEPS):
        at = at if low < at < high else (low + high) / 2
        beyond = math.sqrt(max(ratio(values, at), 0.0)) - limit
        if abs(beyond) <= 1e-7:
            break
        low, high = (at, high) if beyond > 0 else (low, at)
        slope = (beyond - off) / (at - before)
        before, off, at = at, beyond, at - beyond / slope if math.isfinite(slope) else low
    return at


def ratio(values: Floats, mean: float) -> float:
    """-2 log of the likelihood ratio of a mean; infinite where no weights give it."""
    centred = values - mean
    least, most = float(centred.min()), float(centred.max())
    if least >= 0 or most <= 0:
        return 0.0 if least == most == 0 else float("inf")
    # The root of a falling function of the multiplier: Newton's steps, kept between its poles.
    n = len(values)
    low, high = (1 / n - 1) / most, (1 / n - 1) / least
    at = float(centred.mean() / (centred**2).mean())
    at = at if low < at < high else 0.0
    for _ in range(_STEPS):
        weights = 1 / (1 + at * centred)
        slope = float((centred * weights).sum())
        if slope > 0:
            low = at
        else:
            high = at
        moved = at + slope / float(((centred * weights) ** 2).sum())
        if not low < moved < high:
            moved = (low + high) / 2
        if abs(moved - at) <= 1e-12 * max(abs(low), abs(high)):
            break
        at = moved
    return float(2 * np.log1p(at * centred).sum())
