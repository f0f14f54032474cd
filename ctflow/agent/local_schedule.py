"""What this machine remembers of a project's schedules, and the command that a time starts.

Layout below ``<state>/schedules``: ``times.json`` (replaced as a whole), and ``lock``, held by the
one process that starts runs and by the run that it has started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ctflow.errors import StateError, UsageError
from ctflow.lib.files import write_file
from ctflow.lib.locks import lock
from ctflow.model import Value, from_json
from ctflow.model.schedules import Schedule, Times
from ctflow.ports import state_places


class LocalSchedule:
    """The ``ScheduleRecord`` of this machine, and its commands.

    Args:
        root: the project's folder.
        state: the project's local state.
    """

    def __init__(self, root: Path, state: Path) -> None:
        self._root = root
        self._state = state
        self._place = state_places(state)["schedules"]
        self._lock: int | None = None

    def times(self) -> Mapping[str, Times]:
        """By schedule. Raises StateError where somebody broke the file."""
        place = self._place / "times.json"
        try:
            data = json.loads(place.read_text(encoding="utf-8"))
            return {str(name): from_json(Times, one, name) for name, one in data.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, UsageError):
            raise StateError(
                f"{place} is not what ctflow wrote",
                next="remove it: times then count from now on",
            ) from None

    def write(self, times: Mapping[str, Times]) -> None:
        """Replace it all; it survives a power cut from here on."""
        data = {name: asdict(one) for name, one in times.items()}
        write_file(self._place / "times.json", json.dumps(data, indent=1), sync=True)

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Hold the right to start runs in the block; False where another process has it."""
        self._place.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self._place / "lock")
        try:
            yield self._lock is not None
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def start(self, schedule: Schedule, verb: str, settings: Sequence[str]) -> int:
        """Run ``ctflow run`` or ``ctflow ct`` for a schedule to its end; its exit code.

        Args:
            settings: words of ``--set``.
        """
        words = [sys.executable, "-m", "ctflow", verb, "-C", str(self._root)]
        given = {name: one for name, one in schedule.parameters.items() if one is not None}
        for name, value in given.items():
            words += ["-p", f"{name}={_word(value)}"]
        for word in (*settings, "runner=local"):
            words += ["--set", word]
        child = subprocess.Popen(
            words,
            env=os.environ | {"CTFLOW_STATE": str(self._state), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            # Where we are killed, nobody else starts a run until this one has ended.
            pass_fds=() if self._lock is None else (self._lock,),
        )
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


def _word(value: Value) -> str:
    """A value as ``-p`` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
