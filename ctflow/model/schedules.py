"""Schedules: what starts runs by itself. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from ctflow.lib.quick import dataclass
from ctflow.model.runs import Value


@dataclass(frozen=True)
class Schedule:
    """A schedule as ctflow.yaml has it.

    Attributes:
        cron: five fields or a short form; empty where it is an interval.
        every: seconds between two starts; 0 where it is a cron expression.
        catch_up: whether each missed time is made up for; else the newest one only.
        version: of the pipeline, by name; empty for the newest.
    """

    name: str
    cron: str = ""
    every: int = 0
    parameters: dict[str, Value] = field(default_factory=dict)
    enabled: bool = True
    catch_up: bool = False
    concurrency: int = 1
    version: str = ""

    @property
    def when(self) -> str:
        """When it starts runs, for people."""
        return self.cron or f"every {_length(self.every)}"


@dataclass(frozen=True)
class RecurringRun:
    """What a cluster has of a schedule.

    Attributes:
        settings: the digest of all that it was made with.
        enabled: whether it starts runs now.
        created: when it was made, as the server writes it; sorts by time.
    """

    id: str
    schedule: str
    settings: str
    enabled: bool
    created: str = ""


@dataclass(frozen=True)
class Times:
    """What this machine knows of a schedule.

    Attributes:
        since: from when on its times count.
        trigger: what its times follow from; where that changes, they count from then on.
        last: the newest time that a run was started for.
        ended: when that run ended; None while it is at work, or if it was killed.
        code: that run's exit code.
    """

    since: float
    trigger: str
    last: float | None = None
    ended: float | None = None
    code: int | None = None


SyncState = Literal[
    "created", "replaced", "removed", "enabled", "disabled", "duplicate removed", "unchanged"
]


@dataclass(frozen=True)
class ScheduleChange:
    """What became, or would become, of a schedule on a cluster."""

    name: str
    state: SyncState


def _length(total: int) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if total % size == 0:
            return f"{total // size}{unit}"
    return f"{total}s"
