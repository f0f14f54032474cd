"""Schedules on this machine: which times are due, and starting their runs one after another.

A time that has passed is written down before its run starts, so that no time is started twice,
however the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from ctflow.lib import cron
from ctflow.lib.quick import dataclass
from ctflow.model.schedules import Schedule, Times
from ctflow.ports.schedules import ScheduleRecord

#: Seconds before now: an hour, a day, a month, a year, ten.
_BACK = (3600.0, 86400.0, 32 * 86400.0, 367 * 86400.0, 3670 * 86400.0)


@dataclass(frozen=True)
class Started:
    """A run that was started for a time, and its exit code."""

    schedule: str
    at: float
    code: int


def next_time(schedule: Schedule, times: Times, after: float) -> float | None:
    """The first of its times after ``after``; intervals count from ``times.since``."""
    if schedule.cron:
        return cron.parse(schedule.cron).next(after)
    passed = (after - times.since) // schedule.every
    return float(times.since + (max(passed, 0) + 1) * schedule.every)


def due(schedule: Schedule, times: Times, now: float) -> float | None:
    """The time to start a run for now: the oldest missed one, or the newest without catch-up."""
    if not schedule.enabled:
        return None
    at = next_time(schedule, times, times.since if times.last is None else times.last)
    if at is None or at > now:
        return None
    if schedule.catch_up:
        return at
    if schedule.every:
        return float(times.since + (now - times.since) // schedule.every * schedule.every)
    for back in _BACK:
        # The newest is looked for near its place: a cron expression may have missed thousands.
        newest = next_time(schedule, times, max(now - back, at - 1))
        if newest is not None and newest <= now:
            break
    newest = at if newest is None else newest
    while (later := next_time(schedule, times, newest)) is not None and later <= now:
        newest = later
    return newest


def current(
    schedules: Sequence[Schedule], known: Mapping[str, Times], now: float
) -> dict[str, Times]:
    """The record for these schedules: what is new, or has changed, counts from now on."""
    found: dict[str, Times] = {}
    for one in schedules:
        trigger = f"{one.when}{'' if one.enabled else ' (disabled)'}"
        times = known.get(one.name)
        same = times is not None and times.trigger == trigger
        found[one.name] = times if times is not None and same else Times(now, trigger)
    return found


def run_due(
    schedules: Sequence[Schedule],
    record: ScheduleRecord,
    start: Callable[[Schedule, float], int],
    now: float,
    clock: Callable[[], float],
    most: int | None = None,
) -> tuple[Started, ...]:
    """Start what is due at ``now``, the oldest time first, one run after another.

    Args:
        start: starts a run for a time, waits for its end, and gives its exit code.
        clock: the time when a run has ended.
        most: how many runs to start; None: all.
    """
    known = record.times()
    times = current(schedules, known, now)
    if times != known:
        record.write(times)

    def waiting() -> tuple[float, Schedule] | None:
        found = ((due(one, times[one.name], now), one) for one in schedules)
        return min(((at, one) for at, one in found if at is not None),
                   key=lambda pair: (pair[0], pair[1].name), default=None)  # fmt: skip

    def runs() -> Iterator[Started]:
        while (one := waiting()) is not None:
            at, schedule = one
            begun = replace(times[schedule.name], last=at, ended=None, code=None)
            times[schedule.name] = begun
            record.write(times)
            code = start(schedule, at)
            times[schedule.name] = replace(begun, ended=clock(), code=code)
            record.write(times)
            yield Started(schedule.name, at, code)

    return tuple(islice(runs(), most))
