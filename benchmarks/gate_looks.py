"""Over a hundred pushes: how often a model that is no better gets through, and what is gained.

    python benchmarks/gate_looks.py [--chains 300] [--examples 2000] [--pushes 100]

Each chain is a champion and a hundred challengers (``--pushes``), judged one after the other on the
same examples until one gets through. Equal ones are all as good as the champion; then one in ten
is two points better, the others equal. ``confirm`` splits the same examples into two halves. Models
err on the same hard examples, as models do (0.9 of what decides is shared).
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import NormalDist

import numpy as np

from ctflow.config.gate_rules import GateRule
from ctflow.gate.intervals.midp import mid_p, right_wrong
from ctflow.gate.looks import at_look, used_up
from ctflow.gate.reserved import reserved_rules

RIGHT, BETTER = 0.85, 0.87
SHARED = 0.9


def rule(**says: object) -> GateRule:
    """A rule on accuracy."""
    told = {"metric": "accuracy", "over": "champion", "predictions": "evaluate.predictions"}
    return GateRule.model_validate(told | says)


class Chain:
    """The answers of a champion and of its challengers: 1 where right, shape (models, examples)."""

    def __init__(
        self, rng: np.random.Generator, examples: int, improving: bool, pushes: int
    ) -> None:
        self.better = np.zeros(pushes + 1, dtype=bool)
        if improving:
            self.better[1:] = rng.random(pushes) < 0.1
        ease = rng.standard_normal(examples)
        noise = rng.standard_normal((pushes + 1, examples))
        drawn = SHARED * ease + math.sqrt(1 - SHARED**2) * noise
        equal, better = (NormalDist().inv_cdf(share) for share in (RIGHT, BETTER))
        limits = np.where(self.better, better, equal)
        self.right = drawn < limits[:, None]

    def shows(self, push: int, rows: slice, confidence: float) -> bool:
        """Whether the gate shows a gain of that challenger on those examples."""
        theirs, ours = self.right[0, rows], self.right[push, rows]
        better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        # Most are not: then there is no need of an interval.
        if better <= worse or mid_p(better, worse) >= 1 - confidence:
            return False
        p, low, _, _ = right_wrong(better, worse, len(ours), confidence)
        return low > 0 and p < 1 - confidence


def first_through(chain: Chain, said: GateRule) -> int:
    """The push whose model gets through first; 0: none does."""
    models, examples = chain.right.shape
    half = examples // 2
    asked_of_both = reserved_rules([said]).get(said.confirm or "", [])
    openings = 0
    for push in range(1, models):
        if not asked_of_both:
            asked = at_look(said, push)
            if chain.shows(push, slice(0, examples), asked.confidence):
                return push
        elif chain.shows(push, slice(0, half), said.confidence):
            openings += 1
            again = asked_of_both[0]
            if not used_up(again, openings) and chain.shows(
                push, slice(half, examples), at_look(again, openings).confidence
            ):
                return push
    return 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The gate over a hundred pushes.")
    parser.add_argument("--chains", type=int, default=300)
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--pushes", type=int, default=100)
    args = parser.parse_args()
    rules = {
        "neither": rule(),
        f"looks: {args.pushes}": rule(looks=args.pushes),
        "looks: auto": rule(looks="auto"),
        "confirm": rule(confirm="evaluate.reserved"),
        "confirm, looks: 5": rule(confirm="evaluate.reserved", looks=5),
        "confirm, looks: 10": rule(confirm="evaluate.reserved", looks=10),
        "confirm, looks: auto": rule(confirm="evaluate.reserved", looks="auto"),
    }
    started = time.perf_counter()
    print(f"{args.chains} chains of {args.pushes} pushes, {args.examples:,} examples in all\n")
    print(f"{'rule':<22}{'an equal one':>14}{'a better one':>14}{'an equal one first':>20}")
    for name, said in rules.items():
        rng = np.random.default_rng(1)
        equal = sum(
            first_through(Chain(rng, args.examples, False, args.pushes), said) > 0
            for _ in range(args.chains)
        )
        good = bad = 0
        for _ in range(args.chains):
            chain = Chain(rng, args.examples, True, args.pushes)
            if push := first_through(chain, said):
                good += bool(chain.better[push])
                bad += not chain.better[push]
        shares = [f"{count / args.chains:.1%}" for count in (equal, good, bad)]
        print(f"{name:<22}{shares[0]:>14}{shares[1]:>14}{shares[2]:>20}", flush=True)
    print(f"\nin {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
