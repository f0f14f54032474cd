"""What the server holds, and what it is given: clock, ids, what runs runs, who may do what."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.kfp_server.access import Access
from tests.kfp_server.values import Item, now


class Runner(Protocol):
    """Runs packages. `run` is the server's record; keys that begin with `_` are the runner's."""

    def start(self, run: Item, spec: Item) -> None:
        """Begin a run of `spec`; raises Refused (code 12) for what cannot be run."""

    def refresh(self, run: Item) -> None:
        """Bring `state`, `finished_at` and `run_details` up to date through `move`."""

    def terminate(self, run: Item) -> None:
        """Ask for its end."""

    def retry(self, run: Item) -> None:
        """Run again what failed."""

    def delete(self, run: Item) -> None:
        """Forget a run, its pods too."""

    def log(self, run: Item, pod: str) -> bytes | None:
        """What the pod wrote, where it can be read."""


def random_id(kind: str) -> str:
    """An id as the server makes them, whatever it is for."""
    return str(uuid.uuid4())


@dataclass
class Store:
    """All the server's resources by id, in the order of their making."""

    runner: Runner
    access: Access
    clock: Callable[[], str] = now
    new_id: Callable[[str], str] = random_id
    pipelines: dict[str, Item] = field(default_factory=dict)
    versions: dict[str, Item] = field(default_factory=dict)
    experiments: dict[str, Item] = field(default_factory=dict)
    runs: dict[str, Item] = field(default_factory=dict)
    recurring: dict[str, Item] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Set when the server ends: what waits for ever then stops.
    ended: threading.Event = field(default_factory=threading.Event)


def move(run: Item, state: str, at: str) -> None:
    """Change a run's state and note it in its history.

    That somebody terminated it is noted only with the next change, as the server does.
    """
    if state == run["state"]:
        return
    if run["state"] == "CANCELING":
        run["state_history"].append({"update_time": at, "state": "CANCELING"})
    run["state"] = state
    run["state_history"].append({"update_time": at, "state": state})
