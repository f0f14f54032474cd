"""Schedules: the plan of a sync, kills and races in it, and what is due here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ctflow.config.settings import project_of
from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.model.schedules import RecurringRun, Schedule, Times
from ctflow.ports.schedules import WantedSchedule
from ctflow.stages.schedule import Action, plan, schedules_of, sync
from ctflow.stages.schedule.due import Started, due, next_time, run_due
from tests.contracts.fake_schedules import FakeSchedules


def wanted(name: str = "nightly", settings: str = "new", *, enabled: bool = True) -> WantedSchedule:
    return WantedSchedule(Schedule(name, "0 3 * * *", enabled=enabled), settings, {})


def there(
    made: str,
    settings: str = "new",
    *,
    enabled: bool = True,
    name: str = "nightly",
    created: str = "1",
) -> RecurringRun:
    return RecurringRun(made, name, settings, enabled, created)


def actions(*words: str) -> tuple[Action, ...]:
    return tuple(
        Action(kind, "nightly", run)  # type: ignore[arg-type]
        for kind, _, run in (word.partition(" ") for word in words)
    )


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        ([wanted()], [], ["create"]),
        ([wanted()], [there("a")], []),
        ([wanted()], [there("a", enabled=False)], ["enable a"]),
        ([wanted(enabled=False)], [there("a")], ["disable a"]),
        ([wanted(enabled=False)], [there("a", enabled=False)], []),
        # A change: the old one starts nothing any more before the new one is made.
        ([wanted()], [there("a", "old")], ["disable a", "create"]),
        ([wanted()], [there("a", "old", enabled=False)], ["create"]),
        # The second half of a change, also after a kill.
        ([wanted()], [there("a", "old", enabled=False), there("b", enabled=False)],
         ["delete a", "enable b"]),
        # Two jobs made it: both keep the older one, by id within a second.
        ([wanted()], [there("b", enabled=False), there("a", enabled=False)],
         ["delete b", "enable a"]),
        ([wanted()], [there("a", created="2"), there("b", created="1")], ["delete a"]),
        # Not wanted any more.
        ([], [there("a")], ["delete a"]),
        ([], [], []),
    ],
)  # fmt: skip
def test_the_plan(
    desired: list[WantedSchedule], observed: list[RecurringRun], expected: list[str]
) -> None:
    assert plan(desired, observed) == actions(*expected)


NIGHTLY = (Schedule("nightly", "0 3 * * *"),)
NEW = f"new {NIGHTLY[0]}"


def states(cluster: FakeSchedules, schedules: Sequence[Schedule] = NIGHTLY, **more: bool) -> str:
    return " ".join(one.state for one in sync(cluster, schedules, **more))


def test_a_sync_ends_as_wanted_and_the_next_changes_nothing() -> None:
    cluster = FakeSchedules()
    assert states(cluster, dry_run=True) == "created"
    assert cluster.calls == []
    assert states(cluster) == "created"
    assert states(cluster) == "unchanged"
    assert cluster.calls == ["create", "enable made-1"]
    cluster.settings = "other"
    assert states(cluster, dry_run=True) == "replaced"
    assert states(cluster) == "replaced"
    assert cluster.calls[2:] == ["disable made-1", "create", "delete made-1", "enable made-2"]
    assert states(cluster, ()) == "removed"
    assert cluster.runs == {}


@pytest.mark.parametrize("at", range(4))
def test_a_killed_sync_is_finished_by_the_next(at: int) -> None:
    cluster = FakeSchedules(there("a", "old"))

    def killed(what: str) -> None:
        if len(cluster.calls) == at:
            raise KeyboardInterrupt

    cluster.watch = killed
    with pytest.raises(KeyboardInterrupt):
        states(cluster)
    cluster.watch = lambda what: None
    states(cluster)
    assert [(run.settings, run.enabled) for run in cluster.runs.values()] == [(NEW, True)]
    assert states(cluster) == "unchanged"


@pytest.mark.parametrize("before", [(), (there("a", "old"),)])
@pytest.mark.parametrize("at", range(4))
def test_two_jobs_at_once_leave_one(at: int, before: tuple[RecurringRun, ...]) -> None:
    """The other job does all of its work before call number ``at`` of the first."""
    cluster = FakeSchedules(*before)

    def other(what: str) -> None:
        if len(cluster.calls) == at:
            cluster.watch = lambda what: None
            states(cluster)

    cluster.watch = other
    states(cluster)
    states(cluster)
    assert [(run.settings, run.enabled) for run in cluster.runs.values()] == [(NEW, True)]


def test_a_refused_schedule_leaves_the_old_one_at_work() -> None:
    cluster = FakeSchedules(there("a", "old"))

    def refuse(what: str) -> None:
        if what == "create":
            raise OutsideError("no")

    cluster.watch = refuse
    with pytest.raises(OutsideError, match="no"):
        states(cluster)
    assert [(run.id, run.enabled) for run in cluster.runs.values()] == [("a", True)]


def test_somebody_who_changes_it_back_is_named() -> None:
    class Undone(FakeSchedules):
        def existing(self) -> tuple[RecurringRun, ...]:
            return (there("a", "old", enabled=False),)

    cluster = Undone()
    with pytest.raises(StateError, match="another `ctflow schedule sync`"):
        states(cluster)


# -- the file -------------------------------------------------------------------------------------


def project(text: str) -> object:
    return project_of(f"project: tiny\n{text}", "ctflow.yaml")


def test_schedules_have_the_parameters_of_the_project_and_their_own() -> None:
    found = project_of(
        "project: tiny\nparameters: {a: 1, b: 2}\nschedules:\n"
        "  nightly: {cron: '0 3 * * *', parameters: {b: 3}, catch_up: true, concurrency: 2}\n"
        "  often: {interval: 1.5h, enabled: false, version: v1}\n",
        "ctflow.yaml",
    )
    assert schedules_of(found) == (
        Schedule("nightly", "0 3 * * *", 0, {"a": 1, "b": 3}, True, True, 2, ""),
        Schedule("often", "", 5400, {"a": 1, "b": 2}, False, False, 1, "v1"),
    )
    assert [one.when for one in schedules_of(found)] == ["0 3 * * *", "every 90m"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nightly: {}", "give either 'cron' or 'interval'"),
        ("nightly: {cron: '@daily', interval: 1h}", "give either"),
        ("nightly: {cron: '0 0 3 * * *'}", "five are wanted"),
        ("nightly: {interval: 0s}", "whole seconds"),
        ("nightly: {interval: 500ms}", "whole seconds"),
        ("nightly: {interval: daily}", "not a duration"),
        ("nightly: {interval: 1h, concurrency: 11}", "10"),
        ("nightly: {interval: 1h, concurrency: 0}", "1"),
        ("Nightly Run: {interval: 1h}", "a schedule's name"),
        ("nightly: {interval: 1h, catchup: true}", "catch_up"),
    ],
)
def test_what_a_schedule_may_not_say(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        project(f"schedules:\n  {text}\n")


# -- here -----------------------------------------------------------------------------------------


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


DAY = Schedule("day", "0 3 * * *")
HOUR = Schedule("hour", every=3600)
CATCH = replace(DAY, catch_up=True)
SINCE = at("2026-11-20 12:00")


@pytest.mark.parametrize(
    ("schedule", "last", "now", "expected"),
    [
        (DAY, None, "2026-11-21 02:59", None),
        (DAY, None, "2026-11-21 03:00", "2026-11-21 03:00"),
        (DAY, "2026-11-21 03:00", "2026-11-21 23:00", None),
        # Missed ones: the newest, or each of them.
        (DAY, "2026-11-21 03:00", "2026-11-25 04:00", "2026-11-25 03:00"),
        (DAY, None, "2036-11-25 02:00", "2036-11-24 03:00"),
        (CATCH, "2026-11-21 03:00", "2026-11-25 04:00", "2026-11-22 03:00"),
        (replace(DAY, enabled=False), None, "2026-11-25 04:00", None),
        (Schedule("m", "* * * * *"), None, "2026-11-25 04:00:30", "2026-11-25 04:00"),
        (Schedule("y", "0 0 29 2 *"), None, "2039-01-01", "2036-02-29"),
        # Intervals count from the start; a run that was late does not move the next ones.
        (HOUR, None, "2026-11-20 12:59:59", None),
        (HOUR, None, "2026-11-20 13:00", "2026-11-20 13:00"),
        (HOUR, "2026-11-20 13:00", "2026-11-20 16:30", "2026-11-20 16:00"),
        (replace(HOUR, catch_up=True), "2026-11-20 13:00", "2026-11-20 16:30", "2026-11-20 14:00"),
        # The clock was put back.
        (DAY, "2026-11-25 03:00", "2026-11-22 04:00", None),
    ],
)
def test_what_is_due(schedule: Schedule, last: str | None, now: str, expected: str | None) -> None:
    times = Times(SINCE, "", at(last) if last else None)
    assert due(schedule, times, at(now)) == (at(expected) if expected else None)


def test_intervals_are_exact() -> None:
    times = Times(1000.5, "")
    assert next_time(HOUR, times, 1000.5) == 4600.5
    assert next_time(HOUR, times, 4600.5) == 8200.5
    assert next_time(HOUR, times, 900.0) == 4600.5


class Record:
    def __init__(self) -> None:
        self.known: dict[str, Times] = {}

    def times(self) -> Mapping[str, Times]:
        return dict(self.known)

    def write(self, times: Mapping[str, Times]) -> None:
        self.known = dict(times)


def started(
    record: Record, schedules: Sequence[Schedule], now: str, code: int = 0, **more: int
) -> list[str]:
    def start(schedule: Schedule, when: float) -> int:
        # It is written down before it starts.
        assert record.known[schedule.name].last == when
        assert record.known[schedule.name].ended is None
        return code

    done = run_due(schedules, record, start, at(now), lambda: at(now) + 60, **more)
    assert all(isinstance(one, Started) and one.code == code for one in done)
    shown = [datetime.fromtimestamp(one.at, timezone.utc).strftime("%d-%H") for one in done]
    return [f"{one.schedule} {text}" for one, text in zip(done, shown, strict=True)]


def test_what_is_due_is_started_once_the_oldest_first() -> None:
    record = Record()
    schedules = (DAY, replace(CATCH, name="all"))
    assert started(record, schedules, "2026-11-20 12:00") == []
    assert started(record, schedules, "2026-11-22 03:30", 4) == [
        "all 21-03",
        "all 22-03",
        "day 22-03",
    ]
    assert record.known["day"] == Times(
        SINCE, "0 3 * * *", at("2026-11-22 03:00"), at("2026-11-22 03:31"), 4
    )
    assert started(record, schedules, "2026-11-22 03:30") == []
    # One at a time, so that ctflow.yaml is read again in between.
    assert started(record, schedules, "2026-11-24 04:00", most=1) == ["all 23-03"]


def test_a_time_whose_run_was_killed_is_not_started_again() -> None:
    record = Record()
    started(record, (DAY,), "2026-11-20 12:00")

    def killed(schedule: Schedule, when: float) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_due((DAY,), record, killed, at("2026-11-21 03:00"), lambda: 0.0)
    assert started(record, (DAY,), "2026-11-21 04:00") == []
    assert started(record, (DAY,), "2026-11-22 04:00") == ["day 22-03"]


def test_what_is_new_changed_or_enabled_counts_from_then_on() -> None:
    record = Record()
    assert started(record, (replace(DAY, enabled=False),), "2026-11-20 12:00") == []
    # It was disabled for two days: nothing was missed.
    assert started(record, (DAY,), "2026-11-22 12:00") == []
    assert started(record, (replace(DAY, cron="0 4 * * *"),), "2026-11-23 05:00") == []
    assert started(record, (replace(DAY, cron="0 4 * * *"),), "2026-11-24 05:00") == ["day 24-04"]
    # One that is gone is forgotten.
    assert started(record, (), "2026-11-24 05:00") == []
    assert record.known == {}


def test_the_record_survives(tmp_path: Path) -> None:
    from ctflow.agent.local_schedule import LocalSchedule

    mine = LocalSchedule(tmp_path, tmp_path / "state")
    assert mine.times() == {}
    times = {"day": Times(1.0, "0 3 * * *", 2.0, None, None)}
    mine.write(times)
    assert LocalSchedule(tmp_path, tmp_path / "state").times() == times
    with mine.working() as free, LocalSchedule(tmp_path, tmp_path / "state").working() as other:
        assert (free, other) == (True, False)
    with mine.working() as free:
        assert free
    for text in ("", "[]", '{"day": {"since": "x"}}'):
        (tmp_path / "state" / "schedules" / "times.json").write_text(text)
        with pytest.raises(StateError, match="remove it"):
            mine.times()
