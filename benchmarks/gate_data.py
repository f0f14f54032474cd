"""Rules on drift: how often data passes whose populations are just as far apart as `max` says.

    python benchmarks/gate_data.py [--pairs 500]

2.5% is what is meant, for passing and for a reject each; of bounds of 0.05, 0.1 and 0.25 (KS: 0.2)
the least and the most are printed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ctflow.gate.data import BINS
from ctflow.gate.intervals.drift import Distribution, binned, edges_of, ks, psi
from ctflow.gate.intervals.significance import bisect
from ctflow.gate.summaries import MOST_STEPS

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
SIZES = ((100, 100), (1000, 1000), (10_000, 500))
NORMAL = NormalDist()


@dataclass(frozen=True)
class Pair:
    """Two populations of a family, ``value`` apart."""

    before: Draw
    after: Draw


def shares_psi(p: Floats, q: Floats) -> float:
    """The index of two distributions over bins."""
    return float(np.sum((p - q) * np.log(p / q)))


def normal_psi(shift: float, scale: float) -> float:
    """That of the standard normal's deciles and another normal's."""
    edges = [(NORMAL.inv_cdf(k / BINS) - shift) / scale for k in range(1, BINS)]
    after = np.diff([0.0, *map(NORMAL.cdf, edges), 1.0])
    return shares_psi(np.full(BINS, 1 / BINS), after)


def normal_ks(shift: float, scale: float) -> float:
    """The distance of the standard normal and another."""
    points = np.linspace(-8, 8, 8001).tolist()
    return max(abs(NORMAL.cdf(x) - NORMAL.cdf((x - shift) / scale)) for x in points)


def inverse(of: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a rising function has the value."""
    return bisect(lambda x: value - of(x), low, high)


def shifted(distance: Callable[[float, float], float], value: float) -> Pair:
    """Normal, and moved."""
    shift = inverse(lambda x: distance(x, 1.0), value, 0.0, 4.0)
    return Pair(lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(shift, 1, n))


def spread(distance: Callable[[float, float], float], value: float) -> Pair:
    """Normal, and wider."""
    scale = inverse(lambda x: distance(0.0, x), value, 1.0, 20.0)
    return Pair(lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(0, scale, n))


#: Shares of five categories, of which the last one grows.
FIVE = np.array([0.4, 0.3, 0.2, 0.07, 0.03])


def grown(share: float) -> Floats:
    """The five, with another share of the last."""
    return np.append(FIVE[:-1] * (1 - share) / (1 - FIVE[-1]), share)


def categories(value: float) -> Pair:
    """Five categories."""
    share = inverse(lambda x: shares_psi(FIVE, grown(x)), value, 0.03, 0.9)
    return Pair(
        lambda rng, n: rng.multinomial(n, FIVE).astype(float),
        lambda rng, n: rng.multinomial(n, grown(share)).astype(float),
    )


def binary(value: float) -> Pair:
    """0 or 1."""
    return Pair(
        lambda rng, n: (rng.random(n) < 0.3).astype(float),
        lambda rng, n: (rng.random(n) < 0.3 + value).astype(float),
    )


def limits(metric: str, name: str, before: Floats, after: Floats) -> tuple[float, float]:
    """The interval that the gate gives."""
    if name == "categories":
        found = psi(before.astype(np.int64), after.astype(np.int64), 0.95)
        return found.low, found.high
    reference = Distribution.of(np.sort(before)).thinned(MOST_STEPS)
    numbers = Distribution.of(np.sort(after))
    if metric == "ks":
        distance = ks(reference, numbers, 0.95)
        return distance.low, distance.high
    edges = edges_of(reference, BINS)
    found = psi(binned(reference, edges), binned(numbers, edges), 0.95)
    return found.low, found.high


CASES: dict[str, dict[str, Callable[[float], Pair]]] = {
    "psi": {
        "moved": lambda value: shifted(normal_psi, value),
        "wider": lambda value: spread(normal_psi, value),
        "categories": categories,
    },
    "ks": {
        "moved": lambda value: shifted(normal_ks, value),
        "wider": lambda value: spread(normal_ks, value),
        "binary": binary,
    },
}
BOUNDS = {"psi": (0.05, 0.1, 0.25), "ks": (0.05, 0.1, 0.2)}


@cache
def pair_of(metric: str, name: str, value: float) -> Pair:
    """Two populations that far apart."""
    return CASES[metric][name](value)


def measured(metric: str, name: str, n: int, m: int, pairs: int) -> tuple[list[float], list[float]]:
    """The shares that pass, and that are rejected, for each bound."""
    passed, rejected = [], []
    for value in BOUNDS[metric]:
        pair = pair_of(metric, name, value)
        rng = np.random.default_rng([n, m, math.floor(value * 1000)])
        found = [
            limits(metric, name, pair.before(rng, n), pair.after(rng, m)) for _ in range(pairs)
        ]
        passed.append(sum(high <= value for _, high in found) / pairs)
        rejected.append(sum(low > value for low, _ in found) / pairs)
    return passed, rejected


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500)
    pairs = parser.parse_args().pairs
    start = time.monotonic()
    print("| populations |", " | ".join(f"{n:,} and {m:,} rows" for n, m in SIZES), "|")
    print("| --- |" + " --- |" * len(SIZES))
    for metric, cases in CASES.items():
        for name in cases:
            cells = []
            for n, m in SIZES:
                passed, rejected = measured(metric, name, n, m, pairs)
                cells.append(f"{_span(passed)} (rejected {_span(rejected)})")
            print(f"| `{metric}`, {name} |", " | ".join(cells), "|", flush=True)
    print(f"{pairs} pairs, {time.monotonic() - start:.0f} s")


def _span(shares: list[float]) -> str:
    low, high = (f"{100 * one:.1f}%" for one in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
