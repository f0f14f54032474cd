"""``Schedules`` in memory, for tests of the stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ctflow.model.schedules import RecurringRun, Schedule
from ctflow.ports.schedules import WantedSchedule


class FakeSchedules:
    """Recurring runs in memory.

    ``watch`` is called before each change: it may raise. ``settings`` stands for all that they are
    made with besides the schedule.
    """

    def __init__(self, *runs: RecurringRun) -> None:
        self.runs = {run.id: run for run in runs}
        self.settings = "new"
        self.watch: Callable[[str], None] = lambda what: None
        self.made = 0
        self.calls: list[str] = []

    def _call(self, what: str) -> None:
        self.watch(what)
        self.calls.append(what)

    def wanted(self, schedules: Sequence[Schedule], *, dry_run: bool) -> tuple[WantedSchedule, ...]:
        """Whatever is asked for."""
        return tuple(WantedSchedule(one, f"{self.settings} {one}", {}) for one in schedules)

    def existing(self) -> tuple[RecurringRun, ...]:
        """What is there."""
        return tuple(self.runs.values())

    def create(self, wanted: WantedSchedule) -> None:
        """Make it, not enabled."""
        self._call("create")
        self.made += 1
        name = f"made-{self.made}"
        self.runs[name] = RecurringRun(name, wanted.schedule.name, wanted.settings, False, "5")

    def set_enabled(self, run_id: str, enabled: bool) -> None:
        """Two of a schedule that start runs at the same time would start one twice."""
        self._call(f"{'enable' if enabled else 'disable'} {run_id}")
        if run_id in self.runs:
            self.runs[run_id] = replace(self.runs[run_id], enabled=enabled)
        at_work = [one.schedule for one in self.runs.values() if one.enabled]
        assert len(at_work) == len(set(at_work))

    def delete(self, run_id: str) -> None:
        """No error where it is gone."""
        self._call(f"delete {run_id}")
        self.runs.pop(run_id, None)
