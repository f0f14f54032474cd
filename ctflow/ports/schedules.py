"""Schedules: on a cluster, and what this machine remembers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ctflow.lib.quick import dataclass
from ctflow.model.schedules import RecurringRun, Schedule, Times


@dataclass(frozen=True)
class WantedSchedule:
    """A schedule as a cluster would make it.

    Attributes:
        settings: the digest of all that it is made with.
        request: for whoever made this.
    """

    schedule: Schedule
    settings: str
    request: Mapping[str, Any]


class Schedules(Protocol):
    """What starts runs by itself on a cluster; only what ctflow made for this project."""

    def wanted(self, schedules: Sequence[Schedule], *, dry_run: bool) -> tuple[WantedSchedule, ...]:
        """The schedules, checked, with what the cluster knows them by.

        Raises:
            ConfigError: a parameter does not fit, or there is no such version.
            StateError: the pipeline was never uploaded, or the experiment is archived.
            OutsideError: the server is down or refuses.
        """
        ...

    def existing(self) -> tuple[RecurringRun, ...]:
        """What is there. Raises OutsideError."""
        ...

    def create(self, wanted: WantedSchedule) -> None:
        """Make it, not enabled yet. Raises OutsideError."""
        ...

    def set_enabled(self, run_id: str, enabled: bool) -> None:
        """Let it start runs, or not; no error where it is gone. Raises OutsideError."""
        ...

    def delete(self, run_id: str) -> None:
        """Remove it; no error where it is gone. Raises OutsideError."""
        ...


class ScheduleRecord(Protocol):
    """When this machine started what."""

    def times(self) -> Mapping[str, Times]:
        """By schedule."""
        ...

    def write(self, times: Mapping[str, Times]) -> None:
        """Replace it all; it survives a power cut from here on."""
        ...
