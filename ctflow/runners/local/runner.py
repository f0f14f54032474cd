"""The embedded runner: runs compiled packages on this machine and keeps the record of the runs."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from ctflow.errors import CtflowError, Interrupted, OutsideError, RunFailed, StateError
from ctflow.lib.variables import handed_on
from ctflow.model import Run, RunState, Task, Value
from ctflow.pipelinespec.packages import load
from ctflow.pipelinespec.parameters import check_parameters, metrics_of, parameters_of
from ctflow.pipelinespec.spec import Pipeline
from ctflow.ports import (
    ContainerEngine,
    Environments,
    Event,
    RunRequest,
    Watch,
    Workspaces,
)
from ctflow.runners.local.abandoned_runs import ACTIVE, cancel_tasks, close_abandoned
from ctflow.runners.local.disk_limit import keep_bound, opened
from ctflow.runners.local.engine import Engine
from ctflow.runners.local.folders import held, lives, new_folder, restore, stop_holder, used
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.jobs import RunContext
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.plans import plan
from ctflow.runners.local.record import Record
from ctflow.runners.local.run_records import RunRecords
from ctflow.runners.local.submitted import Submitted, names_of, same_package, tagged_with

#: Seconds between two looks at what another process runs, and until it must have stopped.
_LOOK_AGAIN = 0.2
_PATIENCE = 60.0


class LocalRunner(RunRecords):
    """The ``Runner`` of this machine.

    Args:
        state: the project's local state (``.ctflow``).
        workspaces: finds the steps' folders and environments.
        environments: makes environments for lightweight Python components.
        slots: how many one-CPU tasks run at once; by default the CPUs that this process may use.
        containers: runs the steps in containers of their images, not as processes.
        bound: bytes that the runs' files may take; kept at the end of each run.
        pass_env: names of variables that tasks get besides the usual ones.
        packages: what to install instead of an image of Python components, by the image.
    """

    def __init__(
        self,
        state: Path,
        workspaces: Workspaces,
        environments: Environments,
        *,
        slots: int | None = None,
        containers: ContainerEngine | None = None,
        bound: int = 20 * 10**9,
        pass_env: Sequence[str] = (),
        packages: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(state)
        self._workspaces = workspaces
        self._environments = environments
        self._slots = slots
        self._containers = containers
        self._bound = bound
        self._pass_env = pass_env
        self._packages = packages or {}
        self._submitted: dict[str, Submitted] = {}

    # -- running ----------------------------------------------------------------------------------

    def run(self, request: RunRequest, watch: Watch) -> Run:
        """Run to the end. A failed step is a Run with state ``failed``, not an exception.

        Raises as ``submit`` and ``wait`` do.
        """
        return self.wait(self.submit(request, watch), watch)

    def submit(self, request: RunRequest, watch: Watch) -> str:
        """Put a run on record, ready to start; its id. ``wait``, in this process, runs it.

        Raises:
            ConfigError: the package, or a parameter, cannot be run.
            OutsideError: the disk is full, or the package index fails.
        """
        pipeline, digest = load(Path(request.package.path))
        parameters = parameters_of(pipeline.root, request)
        plans = self._plan(pipeline, watch)
        with ExitStack() as stack:
            record = stack.enter_context(self._recording())
            run_id, folder = stack.enter_context(new_folder(self._runs))
            close_abandoned(record, self._runs)
            run = Run(
                id=run_id,
                project=request.project,
                pipeline=request.package.pipeline or pipeline.name,
                package=request.package.digest or digest,
                state="running",
                created=time.time(),
                commit=request.commit,
                parameters=dict(parameters),
                images=request.package.images,
            )
            asked = {
                "package": asdict(replace(request.package, content=None)),
                "caching": request.caching,
            }
            number = record.add_run(run, asked)
            opened(record, run_id)
            record.commit()
            run_context = self._run_context(run_id, number, folder, pipeline, run)
            self._submitted[run_id] = Submitted(
                stack.pop_all(), record, run_context, pipeline, parameters, plans, request.caching
            )
        return run_id

    def wait(self, run_id: str, watch: Watch) -> Run:
        """The run when it has ended; one that was submitted here is run here, now.

        Raises:
            StateError: there is no such run.
            Interrupted: Ctrl-C or SIGTERM. What runs here is stopped, and recorded as canceled;
                what another process runs goes on.
            OutsideError: the disk is full.
        """
        asked = self._submitted.pop(run_id, None)
        if asked is None:
            return self._watched(run_id, watch)
        with asked.stack:
            tagged = tagged_with(watch, run_id)
            tagged(Event("note", "run", run_id))
            engine = Engine(
                asked.record, asked.run_context, asked.plans, tagged, caching=asked.caching,
                slots=self._slot_count(),
            )  # fmt: skip
            return self._execute(asked.record, engine, asked.run_context, asked.pipeline,
                                 asked.parameters)  # fmt: skip

    def _watched(self, run_id: str, watch: Watch) -> Run:
        """A run that another process runs, when it has ended. It is shown as a run here is."""
        shown: dict[str, str] = {}
        while True:
            run = self.get(run_id)
            if not shown:
                watch(Event("note", "run", run.id, run=run.id))
            for task in sorted(run.tasks, key=lambda task: task.started or math.inf):
                if shown.get(task.name) != task.state:
                    shown[task.name] = task.state
                    watch(Event("task", task.name, task=task, run=run.id))
            if run.state not in ACTIVE:
                return run
            time.sleep(_LOOK_AGAIN)

    def terminate(self, run_id: str) -> Run:
        """Stop a run, whichever process runs it; the run when it has ended.

        Raises:
            StateError: there is no such run, or it has ended.
            OutsideError: its process does not end, or belongs to somebody else.
        """
        run = self.get(run_id)
        if run.state not in ACTIVE:
            raise StateError(f"run {run.id} has ended: {run.state}", next="see `ctflow runs list`")
        if (asked := self._submitted.pop(run.id, None)) is not None:
            asked.stack.close()
            return self.get(run.id)
        folder = self._folder(run.id)
        stop_holder(folder)
        until = time.monotonic() + _PATIENCE
        while lives(folder):
            if time.monotonic() > until:
                raise OutsideError(
                    f"run {run.id} is still being stopped after {_PATIENCE:.0f} s",
                    next="check with `ctflow runs show`, or end its process yourself",
                )
            time.sleep(_LOOK_AGAIN)
        return self.get(run.id)

    def resume(self, run_id: str, watch: Watch) -> Run:
        """Go on with an interrupted or failed run from what has finished.

        Raises:
            StateError: no such run, it goes on already, or it has succeeded.
            ConfigError: its package, or a step that it needs, is no longer there.
        """
        with self._recording() as record:
            restore(record, self._runs)
            number, full = self._find(record, run_id)
            folder = self._folder(full)
            with held(folder) as free:
                if not free:
                    raise StateError(f"run {full} is still running", next="wait for its end")
                with record.writing():  # behind whoever prunes: from here on it stays
                    run = record.run(number)
                if run.state == "succeeded":
                    raise StateError(f"run {full} has succeeded, so there is nothing to resume")
                asked = record.request(number)
                pipeline = same_package(run, asked)
                parameters = check_parameters(pipeline.root, run.parameters)
                self._check_steps(run)
                plans = self._plan(pipeline, watch)
                finished = record.finished(number)
                opened(record, full)
                record.drop_tasks(number)
                record.set_run(number, "running", None, "", {})
                tagged = tagged_with(watch, full)
                tagged(Event("note", "run", full))
                run_context = self._run_context(full, number, folder, pipeline, run)
                engine = Engine(
                    record, run_context, plans, tagged, caching=bool(asked["caching"]),
                    slots=self._slot_count(), finished=finished,
                )  # fmt: skip
                return self._execute(record, engine, run_context, pipeline, parameters)

    def _check_steps(self, run: Run) -> None:
        """Raise StateError where a step of a run is not here any more as it was."""
        for image in run.images if self._containers is None else ():
            if self._workspaces.open(image.reference) is None:
                raise StateError(
                    f"the snapshot of step {image.step} that run {run.id} needs is missing",
                    cause="it was pruned, or the run was made with --engine",
                    next="run `ctflow build` if the step has not changed since; otherwise start a"
                    " new run",
                )

    def _plan(self, pipeline: Pipeline, watch: Watch) -> dict[str, Plan]:
        return plan(
            pipeline, self._workspaces, self._environments, watch, self._state, self._containers,
            self._packages,
        )  # fmt: skip

    def _execute(
        self, record: Record, engine: Engine, run_context: RunContext, pipeline: Pipeline,
        parameters: Mapping[str, Value],
    ) -> Run:  # fmt: skip
        number = run_context.number

        def graph(made: Engine) -> Graph:
            return Graph(pipeline, parameters, made.start, made.changed, run_context.names)

        try:
            with self._containers.guard(run_context.run) if self._containers else nullcontext():
                finished = engine.run(graph)
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, Interrupted))
            reason = "interrupted" if stopped else f"stopped: {error}"
            # On a full disk this may fail too; then the next reader finds the run abandoned.
            with contextlib.suppress(CtflowError, OSError):
                # A second Ctrl-C may have come before all tasks were written down as ended.
                cancel_tasks(record, number)
                record.set_run(number, "canceled", time.time(), reason, metrics_of(engine.tasks))
                record.commit()
                keep_bound(record, self._runs, run_context.run, self._bound)
            if stopped:
                raise Interrupted(
                    f"run {run_context.run} was interrupted",
                    next=f"continue it with `ctflow run --resume {run_context.run}`",
                ) from None
            raise
        failed = finished.failed
        state: RunState = "failed" if failed else "succeeded"
        error_text = "; ".join(f"{node.name}: {node.error}" for node in failed[:3])
        if len(failed) > 3:
            error_text += f" and {len(failed) - 3} more"
        record.set_run(number, state, time.time(), error_text, metrics_of(engine.tasks))
        record.commit()
        keep_bound(record, self._runs, run_context.run, self._bound)
        return record.run(number)

    # -- running one task again -------------------------------------------------------------------

    @contextmanager
    def _used(self, record: Record, run: Run) -> Iterator[None]:
        """See ``used``; a run that was cached as a whole gets the folder that it never needed."""
        if all(one.state == "cached" for one in run.tasks if not one.group):
            self._find(record, run.id)  # a run that was removed gets none
            self._folder(run.id).mkdir(parents=True, exist_ok=True)
        with used(self._folder(run.id)):
            yield

    def identified(self, run: Run, outputs: Sequence[str], made: Sequence[str] = ()) -> Run:
        """The run itself: its record has all digests."""
        return run

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Run one task of a finished run again with another input (see ``Runner``).

        Raises:
            RunFailed: the task fails on it.
            StateError: the run has no such task, or it reads no such artifact.
        """
        from ctflow.runners.local.rerun import score_again

        run = self._moved(run)
        with self._recording() as record, self._used(record, run):
            number, _ = self._find(record, run.id)
            asked = record.request(number)
            pipeline, _ = load(Path(asked["package"]["path"]))
            opened(record, run.id)
            record.commit()
            folder = self._folder(run.id) / "again"
            folder.mkdir(parents=True, exist_ok=True)
            plans = self._plan(pipeline, watch)
            run_context = self._run_context(run.id, number, folder, pipeline, run)
            with self._containers.guard(run.id) if self._containers else nullcontext():
                done: Task = score_again(
                    record, run_context, plans, pipeline, run, task, artifact, content, watch,
                    caching=bool(asked["caching"]),
                )  # fmt: skip
            record.commit()
        if done.state not in ("succeeded", "cached"):
            raise RunFailed(
                f"task {task} failed on {artifact} of the champion: {done.error}",
                next=f"see `ctflow runs logs {run.id} {task}`",
                details=self.last_log_lines(done),
            )
        return done

    # -- contexts ---------------------------------------------------------------------------------

    def _run_context(
        self, id: str, number: int, folder: Path, pipeline: Pipeline, run: Run
    ) -> RunContext:
        names = names_of(run, pipeline.name, folder)
        variables = handed_on(os.environ, self._pass_env)
        return RunContext(id, number, folder, pipeline.name, names, variables)

    def _slot_count(self) -> int:
        if self._slots is not None:
            return self._slots
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
