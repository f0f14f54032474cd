"""Bounds on what serving costs: the model's size, and a quantile of the times that answers take.

A time is judged by limits of the quantile that suppose nothing of how times are distributed. Of n
times in order, the one at place s is at or above the q-quantile with probability at least
P(X <= s - 1), X binomial(n, q); the one at place r is at or below it with at least P(X >= r).
Source: Conover, Practical Nonparametric Statistics (3rd edition, 1999), section 3.2; Hahn and
Meeker, Statistical Intervals (1991), section 5.2. They hold for times that do not depend on each
other; where they do, n is what they count as (``dependence.py``). The requests are a few different
ones in turn: that makes the count of times below the quantile vary less than a binomial one
(Hoeffding, Annals of Mathematical Statistics 27, 1956), so that the limits are cautious.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ctflow.config.serving_costs import TIMES
from ctflow.gate.intervals.dependence import counts_as
from ctflow.gate.intervals.significance import binomial_tail
from ctflow.gate.reasons import reason
from ctflow.model import Decision, Estimate, Reason

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule

#: Of each limit by itself.
CONFIDENCE = 0.95
#: More requests are not timed: so many have limits of p99 where they count as a sixth, too.
MOST = 2_000
#: But for those that count as too few for any upper limit. By ``dependence.py`` a time counts as a
#: fiftieth at least: so many always have limits.
MOST_DEPENDENT = 20_000
#: Seconds for all timed requests, but for what a model that keeps to its bound may need.
SECONDS = 20.0
#: Seconds that even those are not to exceed.
SECONDS_MOST = 300.0
METHOD = "two one-sided 95% order-statistic limits; one client, one request at a time"


def least_requests(share: float) -> int:
    """The fewest times that have an upper limit of the ``share``-quantile: 1 - share^n >= 95%.

    With so many, it is the greatest of them. 299 for the 99th percentile.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(share))


@lru_cache(maxsize=64)
def places(count: int, share: float) -> tuple[int | None, int | None]:
    """The places, from 1, of the lower and the upper limit among ``count`` times in order.

    None: there is none. Each limit by itself is right with probability ``CONFIDENCE`` at least.
    """

    def chance(k: int) -> float:
        return binomial_tail(k, count, share)

    lower = bisect_right(range(count), 1 - CONFIDENCE, key=chance)
    upper = bisect_left(range(count), CONFIDENCE, key=chance) + 1
    return lower or None, upper if upper <= count else None


def limits(times: Sequence[float], share: float) -> tuple[float | None, float | None, int]:
    """(lower limit, upper limit, how many independent times these count as).

    Where they count as fewer, the limits leave out as large a part of the times as those of the
    fewer ones do.

    Args:
        times: in the order in which they were measured, at least one.
    """
    ordered, count, worth = sorted(times), len(times), counts_as(times, share)
    lower, upper = places(worth, share)
    high = None if upper is None else ordered[count - (worth - upper) * count // worth - 1]
    if lower is None:
        return None, high, worth
    above = -(-(worth - lower + 1) * count // worth)  # rounded up
    return ordered[max(count - above, 0)], high, worth


def wants_more(rules: Sequence[GateRule]) -> Callable[[Sequence[float], float], bool]:
    """What says whether another request is to be timed.

    It is told the times so far in milliseconds and the seconds they took in all. It ends after
    ``MOST`` requests, or up to ``MOST_DEPENDENT`` where slow answers come together so much that an
    upper limit takes more; or when the seconds are over; or as soon as so many times exceed a
    rule's ``max`` that it is a ``reject`` whatever follows. The seconds are ``SECONDS``, or more
    where a model that just keeps to ``max`` needs more for the requests that an upper limit takes.
    """
    shares = {TIMES[rule.metric] for rule in rules}
    needed = max(least_requests(TIMES[rule.metric]) for rule in rules)
    longest = max((rule.max or 0.0) * least_requests(TIMES[rule.metric]) for rule in rules) / 1000
    longest = min(longest, SECONDS_MOST)

    def more(times: Sequence[float], seconds: float) -> bool:
        if len(times) >= MOST and _say_enough(times, shares):
            return False
        if seconds >= SECONDS and (len(times) >= needed or seconds >= longest):
            return False
        return not any(_too_slow(times, TIMES[rule.metric], rule.max or 0.0) for rule in rules)

    return more


def _say_enough(times: Sequence[float], shares: Collection[float]) -> bool:
    """Whether as many times as these have an upper limit, or are all that are ever timed.

    Looked at once in ``MOST``: what follows is timed to the next one.
    """
    if len(times) >= MOST_DEPENDENT:
        return True
    if len(times) % MOST:
        return False
    return all(counts_as(times, share) >= least_requests(share) for share in shares)


def _too_slow(times: Sequence[float], share: float, high: float) -> bool:
    """Whether so many exceed the bound that the lower limit of ``MOST`` times would.

    So does the lower limit of fewer then, but for times that count as less.
    """
    if not times or times[-1] <= high:
        return False  # as it was before this one
    most = MOST - (places(MOST, share)[0] or 0) + 1
    if sum(1 for one in times if one > high) < most:
        return False
    lower = limits(times, share)[0]
    return lower is not None and lower > high


def size_reason(rule: GateRule, size: int) -> Reason:
    """The reason of a rule on the model's size in bytes."""
    if rule.max is not None and size > rule.max:
        return reason(rule, "reject", f"{rule.metric} {size:,}, above {_bound(rule.max)}")
    if rule.min is not None and size < rule.min:
        return reason(rule, "reject", f"{rule.metric} {size:,}, below {_bound(rule.min)}")
    said = [] if rule.min is None else [f"at least {_bound(rule.min)}"]
    said += [] if rule.max is None else [f"at most {_bound(rule.max)}"]
    return reason(rule, "promote", f"{rule.metric} {size:,}, {' and '.join(said)}")


def time_reason(rule: GateRule, times: Sequence[float], seconds: float) -> Reason:
    """The reason of a rule on a quantile of times.

    ``promote`` where its upper limit is at most ``max``; ``reject`` where its lower limit is above;
    else ``hold``.

    Args:
        times: in milliseconds, in the order in which they were measured, at least one.
        seconds: what they took in all.
    """
    share, high = TIMES[rule.metric], rule.max or 0.0
    ordered, count = sorted(times), len(times)
    value = quantile(ordered, share)
    lower, upper, worth = limits(times, share)
    method = METHOD if worth == count else f"{METHOD}; dependent, so counted as {worth:,}"
    found = None
    if lower is not None and upper is not None:
        found = Estimate(
            rule.metric, value, lower, upper, 2 * CONFIDENCE - 1, method, count
        )  # fmt: skip
    text = f"{rule.metric} {_time(value, high)}"
    asked = f"{count:,} requests on this machine"
    less = f", counted as {worth:,} as slow answers come together" if worth < count else ""
    level = f"{CONFIDENCE:.0%}"
    decision: Decision = "hold"
    if lower is not None and lower > high:
        decision = "reject"
        text += f" ({level} lower limit {_time(lower, high)}, {asked}{less}), above {high:g}"
    elif upper is None:
        text += (
            f" ({asked} in {seconds:.0f} s{less}; a {level} upper limit needs"
            f" {least_requests(share)}): not shown to be at most {high:g}"
        )
    elif upper <= high:
        decision = "promote"
        text += f" ({level} upper limit {_time(upper, high)}, {asked}{less}), at most {high:g}"
    else:
        ends = f"{_time(lower, high)} to " if lower is not None else "up to "
        text += f" ({level} limits {ends}{_time(upper, high)}, {asked}{less}): {high:g} is between"
    return reason(rule, decision, text, estimate=found)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least of the times that ``share`` of them are at or below: one of those measured."""
    # The rounding keeps 0.95 of 20 at 19, which is 19.000000000000004 in floats elsewhere.
    return ordered[max(math.ceil(round(share * len(ordered), 9)), 1) - 1]


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,g}"


def _time(value: float, limit: float) -> str:
    """Milliseconds with three figures, or as many as show on which side of the limit they are."""
    first = 0 if value >= 100 else 1 if value >= 10 else 2
    for decimals in range(first, 12):
        text = f"{value:.{decimals}f}"
        near = float(text)
        if (near > limit) == (value > limit) and (near < limit) == (value < limit):
            return text
    return repr(value)
