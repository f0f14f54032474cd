"""The embedded runner: runs compiled packages on this machine and keeps the record of the runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, CtflowError, Interrupted, RunFailed, StateError
from ctflow.lib.variables import handed_on
from ctflow.model import Run, RunState, Task, Value
from ctflow.pipelinespec.packages import load
from ctflow.pipelinespec.spec import Pipeline
from ctflow.ports import (
    ContainerEngine,
    Environments,
    Event,
    RunRequest,
    Watch,
    Workspaces,
    state_places,
)
from ctflow.runners.local.abandoned_runs import bury, bury_all, cancel_tasks
from ctflow.runners.local.disk_limit import keep_bound, opened
from ctflow.runners.local.engine import Engine
from ctflow.runners.local.folders import held, new_folder, restore, used
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.jobs import Place
from ctflow.runners.local.logs import last_lines, lines_of
from ctflow.runners.local.parameters import check_parameters, metrics_of, nearest
from ctflow.runners.local.plans import Plan, plan
from ctflow.runners.local.prune import Pruned, prune
from ctflow.runners.local.record import Record


class LocalRunner:
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
        self._state = state
        self._workspaces = workspaces
        self._environments = environments
        self._slots = slots
        self._containers = containers
        self._bound = bound
        self._pass_env = pass_env
        self._packages = packages or {}

    # -- running ----------------------------------------------------------------------------------

    def run(self, request: RunRequest, watch: Watch) -> Run:
        """Run to the end. A failed step is a Run with state ``failed``, not an exception.

        Raises:
            ConfigError: the package, or a parameter, cannot be run; before the first task.
            Interrupted: Ctrl-C or SIGTERM; the tasks are stopped and the run is recorded.
            OutsideError: the disk is full, or the package index fails.
        """
        pipeline, digest = load(Path(request.package.path))
        parameters = check_parameters(pipeline.root, request.parameters)
        plans = self._plan(pipeline, watch)
        with self._recording() as record, new_folder(self._runs) as (run_id, folder):
            bury_all(record, self._runs)
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
            watch(Event("note", "run", run_id))
            place = self._place(run_id, number, folder, pipeline, run)
            engine = Engine(
                record, place, plans, watch, caching=request.caching, slots=self._slot_count()
            )
            return self._execute(record, number, engine, place, pipeline, parameters)

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
                    raise StateError(f"run {full} is going on", next="wait for its end")
                with record.writing():  # behind whoever prunes: from here on it stays
                    run = record.run(number)
                if run.state == "succeeded":
                    raise StateError(f"run {full} has succeeded; there is nothing to go on with")
                asked = record.request(number)
                pipeline = _same_package(run, asked)
                parameters = check_parameters(pipeline.root, run.parameters)
                self._check_steps(run)
                plans = self._plan(pipeline, watch)
                finished = record.finished(number)
                opened(record, full)
                record.drop_tasks(number)
                record.set_run(number, "running", None, "", {})
                watch(Event("note", "run", full))
                place = self._place(full, number, folder, pipeline, run)
                engine = Engine(
                    record, place, plans, watch, caching=bool(asked["caching"]),
                    slots=self._slot_count(), finished=finished,
                )  # fmt: skip
                return self._execute(record, number, engine, place, pipeline, parameters)

    def _check_steps(self, run: Run) -> None:
        """Raise StateError where a step of a run is not here any more as it was."""
        for image in run.images if self._containers is None else ():
            if self._workspaces.open(image.reference) is None:
                raise StateError(
                    f"step {image.step} is not here any more as run {run.id} needs it",
                    cause="its snapshot was pruned, or the run was made with --engine",
                    next="run `ctflow build` if the step has not changed since; else start a new"
                    " run",
                )

    def _plan(self, pipeline: Pipeline, watch: Watch) -> dict[str, Plan]:
        return plan(
            pipeline, self._workspaces, self._environments, watch, self._state, self._containers,
            self._packages,
        )  # fmt: skip

    def _execute(
        self, record: Record, number: int, engine: Engine, place: Place, pipeline: Pipeline,
        parameters: Mapping[str, Value],
    ) -> Run:  # fmt: skip
        def graph(made: Engine) -> Graph:
            return Graph(pipeline, parameters, made.start, made.changed, place.names)

        try:
            with self._containers.guard(place.run) if self._containers else nullcontext():
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
                keep_bound(record, self._runs, place.run, self._bound)
            if stopped:
                raise Interrupted(
                    f"run {place.run} was interrupted",
                    next=f"go on with `ctflow run --resume {place.run}`",
                ) from None
            raise
        failed = finished.failed
        state: RunState = "failed" if failed else "succeeded"
        error_text = "; ".join(f"{node.name}: {node.error}" for node in failed[:3])
        if len(failed) > 3:
            error_text += f" and {len(failed) - 3} more"
        record.set_run(number, state, time.time(), error_text, metrics_of(engine.tasks))
        record.commit()
        keep_bound(record, self._runs, place.run, self._bound)
        return record.run(number)

    # -- reading ----------------------------------------------------------------------------------

    def get(self, run_id: str) -> Run:
        """A recorded run, by its id, a unique prefix of it, or ``latest``.

        Raises:
            StateError: none or several of them.
        """
        with self._recording() as record:
            restore(record, self._runs)
            number, _ = self._find(record, run_id)
            return bury(record, number, record.run(number), self._runs)

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs first, without their tasks."""
        if not self._record().exists:
            return []
        with self._recording() as record:
            bury_all(record, self._runs)
            return [run for _, run in record.runs(limit, (state,) if state else ())]

    def logs(self, run_id: str, task: str | None = None) -> Iterator[tuple[str, str]]:
        """(task name, line) of the kept logs, task after task.

        Raises:
            StateError: no such run or task.
        """
        run = self.get(run_id)
        if task is not None and run.task(task) is None:
            names = [one.name for one in run.tasks if not one.group]
            raise StateError(
                f"run {run.id} has no task {task!r}", next=nearest(task, names, "a task")
            )
        for one in run.tasks:
            if one.log and (task is None or one.name == task or one.name.startswith(f"{task}.")):
                for line in lines_of(Path(one.log)):
                    yield one.name, line

    def last_log_lines(self, task: Task, count: int = 10) -> tuple[str, ...]:
        """The last lines that a task printed."""
        return last_lines(Path(task.log), count) if task.log else ()

    def prune(self, keep: int, size: int | None = None, *, dry_run: bool = False) -> Pruned:
        """Remove all but the newest ``keep`` runs, and what is over ``size`` bytes of files."""
        with self._recording() as record:
            return prune(record, self._runs, keep, size, dry_run=dry_run)

    # -- running one task again -------------------------------------------------------------------

    @contextmanager
    def _used(self, record: Record, run: Run) -> Iterator[None]:
        """See ``used``; a run that was cached as a whole gets the folder that it never needed."""
        if all(one.state == "cached" for one in run.tasks if not one.group):
            self._find(record, run.id)  # a run that was removed gets none
            self._folder(run.id).mkdir(parents=True, exist_ok=True)
        with used(self._folder(run.id)):
            yield

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Run one task of a finished run again with another input (see ``Runner``).

        Raises:
            RunFailed: the task fails on it.
            StateError: the run has no such task, or it reads no such artifact.
        """
        from ctflow.runners.local.rerun import score_again

        with self._recording() as record, self._used(record, run):
            number, _ = self._find(record, run.id)
            asked = record.request(number)
            pipeline, _ = load(Path(asked["package"]["path"]))
            opened(record, run.id)
            record.commit()
            folder = self._folder(run.id) / "again"
            folder.mkdir(parents=True, exist_ok=True)
            plans = self._plan(pipeline, watch)
            place = self._place(run.id, number, folder, pipeline, run)
            with self._containers.guard(run.id) if self._containers else nullcontext():
                done: Task = score_again(
                    record, place, plans, pipeline, run, task, artifact, content, watch,
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

    # -- places -----------------------------------------------------------------------------------

    def _place(self, id: str, number: int, folder: Path, pipeline: Pipeline, run: Run) -> Place:
        names = _names(run, pipeline.name, folder)
        variables = handed_on(os.environ, self._pass_env)
        return Place(id, number, folder, pipeline.name, names, variables)

    def _slot_count(self) -> int:
        if self._slots is not None:
            return self._slots
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def _record(self) -> Record:
        return Record(state_places(self._state)["record"])

    @contextmanager
    def _recording(self) -> Iterator[Record]:
        record = self._record()
        try:
            yield record
        finally:
            record.close()

    @property
    def _runs(self) -> Path:
        return state_places(self._state)["runs"]

    def _folder(self, run_id: str) -> Path:
        return self._runs / run_id

    def _find(self, record: Record, run_id: str) -> tuple[int, str]:
        if not record.exists:
            raise StateError("there are no runs yet", next="start one with `ctflow run`")
        if run_id == "latest":
            found = [latest] if (latest := record.latest()) else []
        else:
            found = record.find(run_id) or record.find(f"r-{run_id}")
        if not found:
            raise StateError(f"there is no run {run_id!r}", next="see `ctflow runs list`")
        if len(found) > 1:
            raise StateError(
                f"{run_id!r} may be any of {', '.join(name for _, name in found)}",
                next="write more of the id",
            )
        return found[0]


def _same_package(run: Run, asked: Mapping[str, Any]) -> Pipeline:
    """The pipeline that a run executes; StateError where its package is not what it was."""
    try:
        pipeline, digest = load(Path(asked["package"]["path"]))
    except ConfigError as error:
        raise StateError(
            f"the package of run {run.id} is gone or damaged",
            cause=error.fact,
            next="start a new run, or `ctflow compile` if nothing has changed since",
        ) from None
    if digest != run.package:
        raise StateError(f"the package of run {run.id} is not what it was", next="start a new run")
    return pipeline


def _names(run: Run, pipeline: str, folder: Path) -> dict[str, str]:
    """What KFP's placeholders about the run say."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.created))
    return {
        "pipeline_job_name": run.id,
        "pipeline_job_resource_name": f"{pipeline}-{run.id}",
        "pipeline_job_uuid": run.id,
        "pipeline_task_name": "",
        "pipeline_task_uuid": "",
        "pipeline_root": str(folder),
        "pipeline_job_create_time_utc": created,
        "pipeline_job_schedule_time_utc": created,
        "workspace_path": str(folder / "workspace"),
    }
