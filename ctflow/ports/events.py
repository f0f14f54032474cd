"""What happens during long work, for whoever renders progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ctflow.lib.quick import dataclass
from ctflow.model import Task


@dataclass(frozen=True)
class Event:
    """Something that happened during long work, for whoever renders progress.

    ``kind`` ``log`` carries one line of a task's output in ``text``; ``task`` a task's new state;
    ``note`` a line for people. ``run`` is the id of the run that it belongs to, if any.
    """

    kind: Literal["task", "log", "note"]
    name: str = ""
    text: str = ""
    task: Task | None = None
    run: str = ""


Watch = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A Watch that shows nothing."""
