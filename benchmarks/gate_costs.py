"""Rules on times: how often a model that is just at its bound passes, and how often it is rejected.

    python benchmarks/gate_costs.py [--models 1000] [--requests 2000]

In brackets: where the times were taken for independent ones. 5% is what is meant, for each.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ctflow.gate.costs import limits, places

Floats = npt.NDArray[np.float64]
#: (random numbers, models, requests) -> times, shape (models, requests).
Times = Callable[[np.random.Generator, int, int], Floats]
SHARES = {"p50_ms": 0.5, "p99_ms": 0.99}
#: Models whose quantile is taken for the true one.
MANY = 6_000


def independent(rng: np.random.Generator, models: int, count: int) -> Floats:
    """Skewed, as times are."""
    return rng.lognormal(0, 0.5, (models, count))


def turns(rng: np.random.Generator, models: int, count: int) -> Floats:
    """Five very different requests, in turn."""
    cost = np.array([1.0, 2.0, 3.0, 5.0, 20.0])
    return np.asarray(cost[np.arange(count) % 5] * rng.lognormal(0, 0.3, (models, count)))


def runs(length: float) -> Times:
    """2% of the answers are slow, in runs of that many on average."""

    def made(rng: np.random.Generator, models: int, count: int) -> Floats:
        slow = np.zeros((models, count), dtype=bool)
        now = rng.random(models) < 0.02
        for place in range(count):
            slow[:, place] = now
            chance = rng.random(models)
            now = np.where(now, chance >= 1 / length, chance < 0.02 / 0.98 / length)
        return rng.lognormal(0, 0.2, slow.shape) + slow * rng.exponential(20, slow.shape)

    return made


def alike(correlation: float) -> Times:
    """Each answer correlates that much with the one before."""

    def made(rng: np.random.Generator, models: int, count: int) -> Floats:
        drawn = rng.standard_normal((models, count))
        for place in range(1, count):
            fresh = math.sqrt(1 - correlation**2) * drawn[:, place]
            drawn[:, place] = correlation * drawn[:, place - 1] + fresh
        return np.asarray(np.exp(0.5 * drawn))

    return made


KINDS: dict[str, Times] = {
    "independent": independent,
    "five requests in turn": turns,
    "slow ones in runs of 3": runs(3),
    "slow ones in runs of 10": runs(10),
    "each like the last (0.5)": alike(0.5),
    "each like the last (0.9)": alike(0.9),
}


def row(kind: str, name: str, models: int, count: int) -> str:
    """One kind of times, one quantile."""
    rng, share = np.random.default_rng(5), SHARES[name]
    bound = float(np.quantile(KINDS[kind](rng, MANY, 1_000), share))
    lower, upper = places(count, share)
    found = {"passed": [0, 0], "rejected": [0, 0], "without": [0, 0]}
    for times in KINDS[kind](rng, models, count):
        low, high, _ = limits(times.tolist(), share)
        ordered = np.sort(times)
        plain = None if upper is None else ordered[upper - 1]
        found["passed"][0] += high is not None and high <= bound
        found["passed"][1] += plain is not None and bool(plain <= bound)
        found["rejected"][0] += low is not None and low > bound
        found["rejected"][1] += lower is not None and bool(ordered[lower - 1] > bound)
        found["without"][0] += high is None
        found["without"][1] += plain is None
    cells = (f"{one / models:7.1%} ({other / models:.1%})" for one, other in found.values())
    return f"{kind:<26} {name:<8}" + "".join(f"{cell:>18}" for cell in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=2_000)
    asked = parser.parse_args()
    began = time.monotonic()
    print(f"{asked.models:,} models at their bound, {asked.requests:,} requests each")
    heads = "".join(f"{head:>18}" for head in ("passed", "rejected", "no upper limit"))
    print(f"{'times':<26} {'bound on':<8}{heads}")
    for kind in KINDS:
        for name in SHARES:
            print(row(kind, name, asked.models, asked.requests), flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
