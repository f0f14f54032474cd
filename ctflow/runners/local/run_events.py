"""How a run's tasks stand, as it goes: written into the record, and shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from ctflow.model import Task
from ctflow.ports import Event, Watch
from ctflow.runners.local.jobs import Job
from ctflow.runners.local.nodes import FINAL, Node
from ctflow.runners.local.record import Record


class RunEvents:
    """The tasks of one run.

    Args:
        record: where they are written; the caller commits.
        number: the run's in the record; 0: its tasks are shown only.
        jobs: node -> its job, for the tasks that have one; filled in by the engine.
        watch: gets every change.
    """

    def __init__(self, record: Record, number: int, jobs: Mapping[Node, Job], watch: Watch) -> None:
        self._record = record
        self._number = number
        self._jobs = jobs
        self._watch = watch
        self._times: dict[Node, tuple[float, float | None]] = {}
        #: Name -> task, as last recorded.
        self.tasks: dict[str, Task] = {}

    def changed(self, node: Node) -> None:
        """Write down and show how a task stands now."""
        if node.state == "pending":
            return
        if node not in self._jobs and node.state != "skipped":
            now = time.time()
            started, _ = self._times.get(node, (now, None))
            self._times[node] = (started, now if node.state in FINAL else None)
        task = self.task(node)
        self.tasks[node.name] = task
        job = self._jobs.get(node)
        key, marks = (job.key.digest, job.marks) if job else ("", "")
        if self._number:
            self._record.put_task(self._number, node.order, task, key, marks)
        self._watch(Event("task", node.name, task=task))

    def task(self, node: Node) -> Task:
        """A task as it stands now."""
        job = self._jobs.get(node)
        inside = node.loop is not None  # an iteration waits for what its loop waits for
        needs = () if inside else tuple(node.scope.prefix + need for need in node.spec.needs)
        task = Task(
            name=node.name,
            state=node.state,
            error=node.error,
            inputs=dict(job.parameters if job else node.parameters),
            input_artifacts=dict(node.artifacts),
            outputs=dict(node.outputs),
            artifacts=dict(node.output_artifacts),
            needs=needs,
            group=node.group,
        )
        if job is None:
            started, ended = self._times.get(node, (None, None))
            return replace(task, started=started, ended=_later(started, ended))
        return replace(
            task,
            step=job.plan.step,
            packages=job.plan.packages,
            started=job.started,
            ended=_later(job.started, job.ended),
            exit_code=job.exit.code if job.exit else None,
            attempts=job.attempts,
            cache_miss=job.miss,
            log=job.log_path,
            made_of=dict(job.key.parts),
        )


def _later(started: float | None, ended: float | None) -> float | None:
    """The end; the start where the clock was set back in between."""
    return ended if started is None or ended is None else max(started, ended)
