"""Schedule: ctflow.yaml's schedules -> a cluster's recurring runs, or runs on this machine.

A recurring run cannot be changed, so a change replaces it: the old one is disabled, the new one
made (disabled), the old one removed, the new one enabled. At no moment are two enabled, and after a
kill anywhere in between the next sync goes on from what is there. The order matters also because
a server makes up for the newest time since a recurring run was made, as soon as it is enabled: the
old one must not start runs any more when the new one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from ctflow.config.project import Project
from ctflow.config.schedules import LATEST
from ctflow.errors import CtflowError, StateError
from ctflow.lib.durations import seconds
from ctflow.lib.quick import dataclass
from ctflow.model.schedules import RecurringRun, Schedule, ScheduleChange, SyncState
from ctflow.ports.schedules import Schedules, WantedSchedule

#: How often what is there is looked at, before somebody else is taken to change it back.
_ROUNDS = 6


@dataclass(frozen=True)
class Action:
    """A call of the cluster. ``id``: of what is there; empty for ``create``."""

    kind: Literal["disable", "create", "delete", "enable"]
    schedule: str
    id: str = ""


def schedules_of(project: Project) -> tuple[Schedule, ...]:
    """The project's schedules, each with all the parameters that its runs are given."""
    return tuple(
        Schedule(
            name,
            one.cron or "",
            round(seconds(one.interval)) if one.interval else 0,
            {**project.parameters, **one.parameters},
            one.enabled,
            one.catch_up,
            one.concurrency,
            "" if one.version == LATEST else one.version,
        )
        for name, one in project.schedules.items()
    )


def plan(wanted: Sequence[WantedSchedule], there: Sequence[RecurringRun]) -> tuple[Action, ...]:
    """The calls up to the next look at what is there; none where all is as wanted."""
    actions: list[Action] = []
    for one in wanted:
        name = one.schedule.name
        own = [run for run in there if run.schedule == name]
        fitting = [run for run in own if run.settings == one.settings]
        if not fitting:
            actions += [Action("disable", name, run.id) for run in own if run.enabled]
            actions.append(Action("create", name))
            continue
        # Of several (two made it at the same time), all choose the same one.
        keep = min(fitting, key=lambda run: (run.created, run.id))
        actions += [Action("delete", name, run.id) for run in own if run is not keep]
        if keep.enabled != one.schedule.enabled:
            kind: Literal["enable", "disable"] = "enable" if one.schedule.enabled else "disable"
            actions.append(Action(kind, name, keep.id))
    names = {one.schedule.name for one in wanted}
    actions += [Action("delete", run.schedule, run.id) for run in there
                if run.schedule not in names]  # fmt: skip
    return tuple(actions)


def sync(
    port: Schedules, schedules: Sequence[Schedule], *, dry_run: bool = False
) -> tuple[ScheduleChange, ...]:
    """Make the cluster's recurring runs those of ``schedules``; what changed, for each.

    Raises as ``Schedules.wanted`` does, and:
        StateError: somebody else changes them at the same time, and to something else.
    """
    wanted = port.wanted(schedules, dry_run=dry_run)
    first = there = port.existing()
    done: list[Action] = []
    for _ in range(_ROUNDS):
        actions = plan(wanted, there)
        done += actions
        if dry_run or not actions:
            names = list(dict.fromkeys([*(one.schedule.name for one in wanted),
                                        *(run.schedule for run in first)]))  # fmt: skip
            return tuple(ScheduleChange(name, _state(name, wanted, first, done)) for name in names)
        _apply(port, wanted, actions)
        there = port.existing()
    raise StateError(
        "the recurring runs are not as ctflow.yaml has them, although they were made so",
        cause="another `ctflow schedule sync` with other settings is at work",
        next="run the same command again when it has ended",
    )


def _apply(port: Schedules, wanted: Sequence[WantedSchedule], actions: Sequence[Action]) -> None:
    by_name = {one.schedule.name: one for one in wanted}
    disabled: list[Action] = []
    for action in actions:
        if action.kind == "create":
            try:
                port.create(by_name[action.schedule])
            except CtflowError:
                # What was there goes on instead.
                for one in disabled:
                    if one.schedule == action.schedule:
                        with suppress(CtflowError):
                            port.set_enabled(one.id, True)
                raise
        elif action.kind == "delete":
            port.delete(action.id)
        else:
            if action.kind == "disable":
                disabled.append(action)
            port.set_enabled(action.id, action.kind == "enable")


def _state(
    name: str,
    wanted: Sequence[WantedSchedule],
    first: Sequence[RecurringRun],
    done: Sequence[Action],
) -> SyncState:
    kinds = {action.kind for action in done if action.schedule == name}
    if all(one.schedule.name != name for one in wanted):
        return "removed"
    if "create" in kinds:
        return "replaced" if any(run.schedule == name for run in first) else "created"
    if "enable" in kinds:
        return "enabled"
    if "disable" in kinds:
        return "disabled"
    return "duplicate removed" if "delete" in kinds else "unchanged"
