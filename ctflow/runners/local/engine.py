"""Runs a graph's tasks as processes: slots, attempts, logs, results. One loop, one thread.

The loop sleeps until a process ends, prints, or a pause is over. What it changes in the record is
committed in one transaction before it sleeps.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ctflow.errors import CtflowError, OutsideError
from ctflow.lib.secrets import KNOWN
from ctflow.model import Task, TaskState
from ctflow.ports import Event, Watch
from ctflow.runners.local.attempts import prepare
from ctflow.runners.local.cache import Cache, key_of, marks_of
from ctflow.runners.local.deferred_settings import Done, settled
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.hashing import Hasher, Outputs
from ctflow.runners.local.inputs import with_defaults
from ctflow.runners.local.jobs import Job, RunContext, leave
from ctflow.runners.local.nodes import Node
from ctflow.runners.local.outputs import OutputError, unwritten
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.process import TASK_VARIABLE, Exit, Launcher, kill_marked
from ctflow.runners.local.record import Record
from ctflow.runners.local.run_events import RunEvents

#: Seconds that a task's processes have after SIGTERM, before SIGKILL.
GRACE = 5.0
_READ = 1 << 18


class Engine:
    """Executes one run."""

    def __init__(
        self,
        record: Record,
        run_context: RunContext,
        component_plans: Mapping[str, Plan],
        watch: Watch,
        *,
        caching: bool,
        slots: int,
        finished: Mapping[str, tuple[str, Task, str]] | None = None,
    ) -> None:
        self._record = record
        self._cache = Cache(record)
        self._run_context = run_context
        self._plans = component_plans
        self._watch = watch
        self._caching = caching
        self._slots = max(1, slots)
        self._free = self._slots
        self._finished = dict(finished or {})
        self._launcher = Launcher()
        self._selector = selectors.DefaultSelector()
        self._hasher = Hasher()
        self._selector.register(self._hasher.wake, selectors.EVENT_READ)
        self._queue: deque[Job] = deque()
        self._pauses: list[tuple[float, int, Job]] = []
        self._running: set[Job] = set()
        self._ended: deque[Job] = deque()
        self._jobs: dict[Node, Job] = {}
        self._tries = 0
        self._attempt = partial(
            prepare, run_context=run_context, environ=run_context.variables, watch=watch
        )
        self._events = RunEvents(record, run_context.number, self._jobs, watch)
        self.graph: Graph
        #: Name -> task, as last recorded.
        self.tasks = self._events.tasks

    # -- the loop -------------------------------------------------------------------------------

    def run(self, make_graph: Callable[[Engine], Graph]) -> Graph:
        """Run to the end.

        Whatever is raised meanwhile (Ctrl-C, a full disk), no process is left when this returns:
        the tasks are stopped and recorded as canceled first.
        """
        self.graph = make_graph(self)
        try:
            self.graph.begin()
            while not self.graph.done:
                self._launch()
                self._harvest()
                self._launch()
                self._sleep()
        except BaseException:
            self._stop()
            raise
        finally:
            self._launcher.close()
            self._selector.close()
            self._hasher.close()
        return self.graph

    def _sleep(self) -> None:
        """Keep what was written, and wait for something to happen."""
        if self._ended or not (self._running or self._pauses or self._hasher.busy):
            return
        for work in (self._prepare, self._record.commit):
            self._attend(0, self._over)  # a slot that is free by now waits for none of this
            if self._ended:
                return
            work()
        self._attend(self._patience(), self._over)
        now = time.monotonic()
        while self._pauses and self._pauses[0][0] <= now:
            self._queue.appendleft(heapq.heappop(self._pauses)[2])
        for job in self._running:
            if job.deadline is not None and job.deadline <= now and job.process is not None:
                job.deadline, job.timed_out = None, True
                job.process.stop(GRACE)

    def _patience(self) -> float | None:
        """Seconds until a pause or the time of a task is over; None: nothing is waited for."""
        moments = [job.deadline for job in self._running if job.deadline is not None]
        if self._pauses:
            moments.append(self._pauses[0][0])
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _attend(self, timeout: float | None, over: Callable[[Job], None]) -> None:
        """Read what was printed; call ``over`` for each task whose processes have all ended."""
        for ready, _ in self._selector.select(timeout):
            job: Job | None = ready.data
            if job is None or job.process is None:
                continue
            if ready.fd == job.process.output:
                self._read(job)
            elif job.exit is None:
                job.exit = job.process.result()
                self._selector.unregister(job.process.control)
                if job.exit.lost:
                    self._clear(job)
            if job.exit is not None and not job.printing:
                over(job)

    def _stop(self) -> None:
        """Stop all tasks and wait for their ends; a second interruption kills at once."""
        self._selector.unregister(self._hasher.wake)
        with contextlib.suppress(KeyboardInterrupt, CtflowError):
            for job in self._running:
                if job.process is not None:
                    job.process.stop(GRACE)
            deadline = time.monotonic() + GRACE + 5
            while self._running and time.monotonic() < deadline:
                self._attend(deadline - time.monotonic(), self._close)
        for job in list(self._running):
            self._close(job)
        self._launcher.close()
        for job in self._jobs.values():
            leave(job)
            if job.node.state == "running":
                job.ended = time.time()
                self.graph.finish(job.node, "canceled", error="stopped")
        self.graph.cancel()

    # -- from ready to running ------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """A task may run: take its result from the cache, or queue it."""
        parameters = with_defaults(node)
        plan = settled(self._plans, node, parameters, self._run_context)
        if isinstance(plan, Done):
            self.graph.finish(node, plan.state, plan.outputs, plan.artifacts, plan.error)
            return
        key = key_of(plan, parameters, frozenset(node.parameters), node.artifacts, node.spec)
        cost = min(self._slots, max(1, math.ceil(plan.cpu)))  # as far as there are that many
        job = Job(node, plan, key, parameters, cost=cost)
        self._jobs[node] = job
        if self._reuse(job):
            return
        job.node.state = "pending"
        self._queue.append(job)

    def _reuse(self, job: Job) -> bool:
        earlier = self._finished.get(job.node.name)
        if earlier is not None and earlier[0] == job.key.digest:
            _, task, marks = earlier
            if self._cache.usable(task, marks):
                job.started, job.ended = task.started, task.ended
                job.attempts, job.miss = task.attempts, task.cache_miss
                job.exit = Exit(task.exit_code)
                self._take(job, task, task.state, marks)
                return True
        if not self._caching or not job.node.spec.caching:
            return False
        found = self._cache.find(
            job.key,
            self._cache_name(job.node),
            self._run_context.run if self._run_context.number else "",
        )
        if isinstance(found, str):
            job.miss = found
            return False
        job.started = job.ended = time.time()
        self._take(job, found[0], "cached", found[1])
        return True

    def _take(self, job: Job, task: Task, state: TaskState, marks: str) -> None:
        job.marks, job.log_path = marks, task.log
        self.graph.finish(job.node, state, task.outputs, task.artifacts)

    def _cache_name(self, node: Node) -> str:
        return f"{self._run_context.pipeline}/{node.component.name}"

    def _launch(self) -> None:
        """Start what has a slot, in order; a wide task in front is waited for, not passed."""
        while self._queue and self._queue[0].cost <= self._free:
            job = self._queue.popleft()
            if job.node.state != "pending":
                continue
            self._free -= job.cost
            try:
                self._begin(job)
            except OutsideError:
                self._free += job.cost
                raise

    def _prepare(self) -> None:
        """Make the next tasks ready to start while they wait, so that no slot waits for that."""
        for job in itertools.islice(self._queue, self._slots):
            if job.command is None and job.node.state == "pending":
                job.command = self._attempt(job)

    def _begin(self, job: Job) -> None:
        job.process = self._launcher.start(job.command or self._attempt(job))
        job.command = None
        if timeout := job.plan.platform.timeout:
            job.deadline = time.monotonic() + timeout
        if job.started is None:
            job.started, job.begun = time.time(), time.monotonic()
        job.printing = True
        self._running.add(job)
        self._selector.register(job.process.output, selectors.EVENT_READ, job)
        self._selector.register(job.process.control, selectors.EVENT_READ, job)
        job.node.state = "running"
        self.changed(job.node)

    # -- from running to ended --------------------------------------------------------------------

    def _read(self, job: Job) -> bool:
        """Take in what was printed; whether there was anything."""
        assert job.process is not None  # noqa: S101 (it is running)
        assert job.log is not None  # noqa: S101
        try:
            data = os.read(job.process.output, _READ)
        except BlockingIOError:
            return False
        if data:
            job.log.write(data)
            return True
        self._selector.unregister(job.process.output)
        job.printing = False
        return False

    def _clear(self, job: Job) -> None:
        """A task's keeper was killed: end what it kept, and wait for no more output."""
        kill_marked({"CTFLOW_RUN": self._run_context.run, TASK_VARIABLE: job.node.name})
        while job.printing and self._read(job):
            pass
        if job.printing and job.process is not None:
            self._selector.unregister(job.process.output)
            job.printing = False

    def _close(self, job: Job) -> None:
        """Let go of the process and its slot."""
        process = job.process
        assert process is not None  # noqa: S101
        for descriptor in (process.output, process.control):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(descriptor)
        process.close()
        leave(job)
        job.process, job.printing = None, False
        self._running.discard(job)
        self._free += job.cost

    def _over(self, job: Job) -> None:
        """All processes of a task have ended: its slot is free before its outputs are looked at."""
        self._close(job)
        job.ended = time.time()
        self._ended.append(job)

    def _harvest(self) -> None:
        """Take in the results of the tasks that have ended."""
        while self._ended:
            self._take_in(self._ended.popleft())
        for job, found in self._hasher.done() if self._hasher.busy else ():
            self._accept(job, found)

    def _take_in(self, job: Job) -> None:
        assert job.exit is not None  # noqa: S101 (it has ended)
        if job.timed_out or not job.exit.good:
            why = f"it took longer than its timeout of {job.plan.platform.timeout:g} s"
            self._failed(job, why if job.timed_out else job.exit.text())
            return
        self._record.commit()  # hashing may take long: other runs must be able to write meanwhile
        if (found := self._hasher.take(job)) is not None:
            self._accept(job, found)

    def _accept(self, job: Job, found: Outputs | OutputError) -> None:
        """Write down a task's outputs, whole and hashed, and that it has succeeded."""
        if isinstance(found, OutputError):
            self._failed(job, str(found))
            return
        node, (outputs, artifacts) = job.node, found
        if nothing := ", ".join(unwritten(artifacts)):
            text = f"{node.name}: it wrote nothing to output artifact {nothing}"
            self._watch(Event("note", node.name, text))
        task = replace(
            self._events.task(node), state="succeeded", outputs=outputs, artifacts=artifacts
        )
        job.marks = marks_of(task)
        if node.spec.caching:
            self._cache.put(job.key, self._cache_name(node), self._run_context.run, task, job.marks)
        self.graph.finish(node, "succeeded", outputs, artifacts)

    def _failed(self, job: Job, reason: str) -> None:
        reason = KNOWN.mask(reason)
        retry = job.node.spec.retry
        if job.attempts <= retry.limit:
            again = time.monotonic() + retry.pause * retry.factor ** (job.attempts - 1)
            if job.begun is not None and again > job.begun + retry.longest:
                why = f"not tried again: all attempts may take {retry.longest:g} s"
                self.graph.finish(job.node, "failed", error=f"{reason}; {why}")
                return
            self._watch(Event("note", job.node.name, f"{job.node.name}: {reason}; trying again"))
            job.node.state = "pending"
            self._tries += 1
            heapq.heappush(self._pauses, (again, self._tries, job))
            return
        self.graph.finish(job.node, "failed", error=reason)

    def changed(self, node: Node) -> None:
        """Write down and show how a task stands now."""
        self._events.changed(node)
