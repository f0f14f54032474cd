"""Takes in the outputs of ended tasks; large ones in threads, so that the event loop goes on."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctflow.model import Value
from ctflow.pipelinespec.placeholders import local_path
from ctflow.runners.local.jobs import Job
from ctflow.runners.local.outputs import Artifacts, OutputError, collect

#: Bytes up to which hashing takes less time than it is worth to hand over.
SMALL = 4 << 20
_THREADS = 2

Outputs = tuple[dict[str, Value], Artifacts]


class Hasher:
    """Collects outputs. ``wake`` is readable when something that was handed over is done.

    The threads end with the process: an interrupted run need not wait for the rest of a large file.
    """

    def __init__(self) -> None:
        self.wake, self._bell = os.pipe()
        os.set_blocking(self.wake, False)
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: deque[tuple[Job, Outputs | BaseException]] = deque()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        #: How many jobs were handed over and not taken back.
        self.busy = 0

    def take(self, job: Job) -> Outputs | OutputError | None:
        """The outputs, or what is wrong; None: they are large, ``done`` has them later."""
        if _small(job.message["outputs"]):
            try:
                return _collect(job)
            except OutputError as error:
                return error
        self.busy += 1
        if len(self._threads) < _THREADS:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._waiting.put(job)
        return None

    def done(self) -> list[tuple[Job, Outputs | OutputError]]:
        """What has come since: the outputs, or what is wrong with them. Raises what else failed."""
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            return []
        found: list[tuple[Job, Outputs | OutputError]] = []
        while self._done:
            job, result = self._done.popleft()
            self.busy -= 1
            if isinstance(result, BaseException) and not isinstance(result, OutputError):
                raise result
            found.append((job, result))
        return found

    def close(self) -> None:
        """Take nothing back any more."""
        for _ in self._threads:
            self._waiting.put(None)
        with self._lock:
            self._closed = True
            os.close(self.wake)
            os.close(self._bell)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            result: Outputs | BaseException
            try:
                result = _collect(job)
            except BaseException as error:  # noqa: BLE001 (raised again by `done`)
                result = error
            with self._lock:
                if self._closed:
                    return
                self._done.append((job, result))
                os.write(self._bell, b".")


def _collect(job: Job) -> Outputs:
    # What a container writes elsewhere than to its task's folder is not on this machine.
    shared = Path(job.folder) if job.plan.contained else None
    return collect(job.node.component, job.message, shared)


def _small(outputs: Mapping[str, Any]) -> bool:
    """Whether all that is to be hashed is little, wherever it lies."""
    left = SMALL
    for path in _paths(outputs):
        left -= _length(path, left)
        if left < 0:
            return False
    return True


def _paths(outputs: Mapping[str, Any]) -> Iterator[str]:
    """The output artifacts: where they were expected, and where the task says that they are."""
    for expected in (outputs.get("artifacts") or {}).values():
        yield local_path(expected["artifacts"][0]["uri"])
    file = outputs.get("outputFile") or ""
    try:
        yield file  # to be read as well
        with open(file, "rb") as stream:  # noqa: PTH123 (on the way of each task)
            said = json.loads(stream.read(SMALL))["artifacts"]
        for some in said.values():
            for one in some["artifacts"]:
                yield one.get("custom_path") or local_path(one["uri"])
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return  # none, or not as it should be: whoever collects the outputs says so


def _length(path: str, enough: int) -> int:
    """Bytes of a file, or of the files below a folder, counted until they are more than enough."""
    try:
        total = os.stat(path).st_size  # noqa: PTH116
        if os.path.isdir(path):  # noqa: PTH112
            for folder, _, names in os.walk(path):
                for name in names:
                    total += os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118
                    if total > enough:
                        return total
    except (OSError, TypeError, ValueError):
        return 0  # not there, or no path: whoever collects the outputs says so
    return total
