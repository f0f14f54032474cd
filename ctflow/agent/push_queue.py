"""The queue of pushes: each job is one file, replaced as a whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from ctflow.lib.files import write_file
from ctflow.lib.locks import holding, taken
from ctflow.lib.quick import dataclass

JobKind = Literal["ct", "deploy"]
JobState = Literal["waiting", "running", "done", "superseded"]


@dataclass(frozen=True)
class Job:
    """One push's work. ``code`` is the command's exit code once it is done."""

    number: int
    kind: JobKind
    commit: str
    state: JobState
    created: float
    ended: float | None = None
    code: int | None = None
    #: The bare repository that was pushed to.
    repository: str = ""


class PushQueue:
    """The jobs of one project.

    Args:
        place: the folder of the queue; see ``ctflow.agent.local_trigger``.
    """

    def __init__(self, place: Path) -> None:
        self._place = place

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        folder = self._place / "jobs"
        found = []
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            try:
                found.append(Job(**json.loads(path.read_text(encoding="utf-8"))))
            except (ValueError, TypeError):
                continue  # not a file of ours: ours are replaced as a whole
        return found

    def busy(self) -> bool:
        """Whether a worker works."""
        self._place.mkdir(parents=True, exist_ok=True)
        return taken(self._place / "worker.lock")

    def log(self, job: Job) -> Path:
        """Where a job's output is kept."""
        return self._place / "logs" / f"{job.number:06}.log"

    @contextmanager
    def holding_lock(self, name: str) -> Iterator[int]:
        """Hold a lock; its descriptor, for those who shall hold it too."""
        with holding(self._place / name) as descriptor:
            yield descriptor

    def submit(self, kind: JobKind, commit: str, repository: str) -> Job:
        with self.holding_lock("queue.lock"):
            jobs = self.jobs()
            for job in jobs:
                if job.kind == kind and job.state == "waiting":
                    self.write(replace(job, state="superseded", ended=time.time()))
            number = jobs[-1].number + 1 if jobs else 1
            fresh = Job(number, kind, commit, "waiting", time.time(), repository=repository)
            self.write(fresh)
        return fresh

    def take(self) -> Job | None:
        """The oldest waiting job, now running."""
        with self.holding_lock("queue.lock"):
            job = next((one for one in self.jobs() if one.state == "waiting"), None)
            if job is not None:
                job = replace(job, state="running")
                self.write(job)
            return job

    def recover(self) -> None:
        """Jobs that a killed worker left: again, unless a newer one of their kind waits."""
        with self.holding_lock("queue.lock"):
            jobs = self.jobs()
            for job in jobs:
                if job.state == "running":
                    newer = any(
                        one.kind == job.kind and one.state == "waiting" and one.number > job.number
                        for one in jobs
                    )
                    self.write(replace(job, state="superseded" if newer else "waiting"))

    def write(self, job: Job) -> None:
        write_file(self._place / "jobs" / f"{job.number:06}.json", json.dumps(asdict(job)))
