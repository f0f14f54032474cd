"""Runs packages on Kubeflow Pipelines. The server keeps the record of the runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, Interrupted, OutsideError, StateError
from ctflow.model import Artifact, Run, RunState, Task
from ctflow.pipelinespec.packages import load
from ctflow.pipelinespec.parameters import nearest, parameters_of
from ctflow.pipelinespec.spec import Pipeline
from ctflow.pipelinespec.spec_reader import parse
from ctflow.ports import Event, Pipelines, RunRequest, VersionRequest, Watch
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.logs import Logs
from ctflow.runners.kubeflow.parameters import check_exact
from ctflow.runners.kubeflow.reading import ENDED, run_of, state_of
from ctflow.runners.kubeflow.starting import RunSettings, start

#: Seconds between two looks at a run: the first ones, and at most.
_SOON, _LATER = 1.0, 10.0
#: For so many seconds a server that fails is asked again before the wait for a run gives up.
_PATIENCE = 600.0
#: For so many seconds a terminated run is waited for: its pods have some time to end.
_TERMINATION = 180.0
#: How many runs are looked through for one whose id begins so.
_SEARCHED = 1000
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: What a person answers who interrupts the wait: leave the run going, or terminate it.
Ask = Callable[[str], bool]


class KubeflowRunner:
    """The ``Runner`` of a KFP server.

    Args:
        project: for runs that were not made by ctflow.
        pipelines: where packages are uploaded before they run.
        settings: how runs are made.
        ask: asked on Ctrl-C, with a run's name, whether to terminate it; None: nobody is there.
        timeout: seconds that a run is waited for; None: until it ends.
        sleep: pauses, in seconds.
    """

    def __init__(
        self,
        kfp: Kfp,
        project: str,
        pipelines: Pipelines,
        settings: RunSettings,
        logs: Logs,
        *,
        ask: Ask | None = None,
        timeout: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kfp = kfp
        self._project = project
        self._pipelines = pipelines
        self._settings = settings
        self._logs = logs
        self._ask = ask
        self._timeout = timeout
        self._sleep = sleep
        self._package = lru_cache(maxsize=32)(self._load_package)

    # -- running ----------------------------------------------------------------------------------

    def run(self, request: RunRequest, watch: Watch) -> Run:
        """Submit and wait. Raises as ``submit`` and ``wait`` do."""
        return self.wait(self.submit(request, watch), watch)

    def submit(self, request: RunRequest, watch: Watch) -> str:
        """Upload the package if it is not there yet, and start one run of it; the run's id.

        Raises:
            ConfigError: the package, or a parameter, cannot be run.
            StateError: another package has the version's name, or the experiment is archived.
            OutsideError: the server is down or refuses.
        """
        pipeline, _ = load(Path(request.package.path))
        parameters = parameters_of(pipeline.root, request)
        check_exact(parameters)
        version = self._pipelines.upload(version_request(request))
        data = start(self._kfp, request, version, parameters, self._settings)
        run_id = str(data["run_id"])
        named = f"{data.get('display_name', '')}  {self._url(run_id)}"
        watch(Event("note", "run", run_id, run=run_id))
        watch(Event("note", "run", named.strip(), run=run_id))
        return run_id

    def wait(self, run_id: str, watch: Watch) -> Run:
        """The run when it has ended.

        A server that fails for a while is asked again. Raises as ``Runner`` says, and:
            OutsideError: the server fails for ten minutes, or the run does not end in time.
            Interrupted: Ctrl-C or SIGTERM. The run goes on, unless a person says otherwise.
        """
        shown: dict[str, tuple[str, int]] = {}
        began = failing = time.monotonic()
        pause = _SOON
        try:
            while True:
                try:
                    run = self._read(self._kfp.run(run_id))
                except ApiError as error:
                    if _lasting(error) or time.monotonic() - failing > _PATIENCE:
                        raise _gone(error, run_id) from None
                    watch(Event("note", "run", f"{error.fact}; asking again", run=run_id))
                else:
                    failing = time.monotonic()
                    _show(run, shown, watch)
                    if run.state in ENDED:
                        return run
                if self._timeout is not None and time.monotonic() - began > self._timeout:
                    raise OutsideError(
                        f"run {run_id} has not ended after {self._timeout:g} s; it goes on",
                        next=f"follow it with `ctflow runs wait {run_id}`",
                    )
                self._sleep(pause)
                pause = min(_LATER, pause * 1.3)
        except KeyboardInterrupt:
            raise self._interrupted(run_id) from None

    def _interrupted(self, run_id: str) -> Interrupted:
        if self._ask is not None and self._ask(run_id):
            self._kfp.act(run_id, "terminate")
            return Interrupted(
                f"run {run_id} is being terminated",
                next=f"see `ctflow runs show {run_id}`",
            )
        return Interrupted(
            f"stopped watching; run {run_id} goes on",
            next=f"follow it with `ctflow runs wait {run_id}`,"
            f" or end it with `ctflow runs cancel {run_id}`",
        )

    def terminate(self, run_id: str) -> Run:
        """Stop a run that goes on; the run when it has ended. Raises as ``Runner`` says."""
        run = self.get(run_id)
        if run.state in ENDED:
            raise StateError(f"run {run.id} has ended: {run.state}", next="see `ctflow runs list`")
        try:
            self._kfp.act(run.id, "terminate")
        except ApiError as error:
            # It ended, or was terminated, meanwhile: servers say that there is no such row.
            data = self._kfp.run(run.id)
            if state_of(data) not in ENDED and data.get("state") != "CANCELING":
                raise error from None
        began = time.monotonic()
        while True:
            data = self._kfp.run(run.id)
            if state_of(data) in ENDED:
                return self._read(data)
            if time.monotonic() - began > _TERMINATION:
                raise OutsideError(
                    f"run {run.id} is still being terminated after {_TERMINATION:.0f} s",
                    next=f"check with `ctflow runs show {run.id}`",
                )
            self._sleep(_SOON)

    def resume(self, run_id: str, watch: Watch) -> Run:
        """Run the failed tasks of a run again, in the same run; the run when it has ended.

        Raises:
            StateError: no such run, or one that has not failed.
        """
        run = self.get(run_id)
        if run.state not in ("failed", "canceled"):
            raise StateError(
                f"run {run.id} is {run.state}, and only a failed run can be retried",
                next="start a new one with `ctflow run`",
            )
        self._kfp.act(run.id, "retry")
        return self.wait(run.id, watch)

    # -- the record -------------------------------------------------------------------------------

    def get(self, run_id: str) -> Run:
        """A run, by its id, the beginning of it, its name, or ``latest``. Raises StateError."""
        return self._read(self._find(run_id))

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs of the project's experiment first, without their tasks."""
        found: list[Run] = []
        for data in self._all(min(limit, 200) if state is None else 200):
            if state is None or state_of(data) == state:
                found.append(run_of(_without_tasks(data), self._project, None, self._url_of(data)))
            if len(found) == limit:
                break
        return found

    def logs(self, run_id: str, task: str | None = None) -> Iterator[tuple[str, str]]:
        """(task name, line) of the logs that can be had, task after task. Raises StateError."""
        run = self.get(run_id)
        if task is not None and run.task(task) is None:
            names = [one.name for one in run.tasks if not one.group]
            raise StateError(
                f"run {run.id} has no task {task!r}", next=nearest(task, names, "a task")
            )
        for one in run.tasks:
            if one.log and (task is None or one.name == task or one.name.startswith(f"{task}.")):
                for line in self._logs.lines(run.id, one.log):
                    yield one.name, line

    def fetch(self, artifact: Artifact) -> Path:
        """Raises ConfigError: artifacts on a cluster are not read in this version."""
        raise ConfigError(
            f"the artifact {artifact.name} is on the cluster ({artifact.uri})",
            next="judge and promote inside the pipeline",
        )

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Raises StateError: a task of a cluster's run cannot be run again by itself."""
        raise StateError(
            f"run {run.id} is on a cluster, where no other model can be scored as it was"
        )

    # -- reading ----------------------------------------------------------------------------------

    def _all(self, page: int) -> Iterator[Json]:
        experiment = self._kfp.experiment(self._settings.experiment)
        if experiment is None:
            return iter(())
        return self._kfp.runs(experiment_id=str(experiment["experiment_id"]), page_size=page)

    def _find(self, run_id: str) -> Json:
        if _ID.fullmatch(run_id):
            try:
                return self._kfp.run(run_id)
            except ApiError as error:
                if error.status != 404:
                    raise
                raise _no_run(run_id) from None
        if run_id == "latest":
            for data in self._all(1):
                return self._kfp.run(str(data["run_id"]))
            raise StateError("there are no runs yet", next="start one with `ctflow run`")
        found = []
        for count, data in enumerate(self._all(200)):
            if str(data.get("run_id", "")).startswith(run_id) or data.get("display_name") == run_id:
                found.append(str(data["run_id"]))
            if count >= _SEARCHED:
                break
        if not found:
            raise _no_run(run_id)
        if len(found) > 1:
            raise StateError(
                f"{run_id!r} may be any of {', '.join(found[:5])}", next="write more of the id"
            )
        return self._kfp.run(found[0])

    def _read(self, data: Json) -> Run:
        return run_of(data, self._project, self._pipeline_of(data), self._url_of(data))

    def _pipeline_of(self, data: Json) -> Pipeline | None:
        """The package that a run runs; None where it cannot be had."""
        inline = data.get("pipeline_spec")
        if isinstance(inline, dict):
            return _parsed(inline)
        reference = data.get("pipeline_version_reference")
        if not isinstance(reference, dict) or "pipeline_version_id" not in reference:
            return None
        return self._package(
            str(reference.get("pipeline_id", "")), str(reference["pipeline_version_id"])
        )

    def _load_package(self, pipeline_id: str, version_id: str) -> Pipeline | None:
        try:
            version = self._kfp.get_version(pipeline_id, version_id)
        except ApiError as error:
            if error.status in (404, 500):  # it was removed; servers say either
                return None
            raise
        return _parsed(version.get("pipeline_spec"))

    def _url(self, run_id: str) -> str:
        return self._kfp.page(f"runs/details/{run_id}")

    def _url_of(self, data: Json) -> str:
        return self._url(str(data.get("run_id", "")))


def version_request(request: RunRequest) -> VersionRequest:
    """The version that a run is of."""
    from ctflow.model.versions import version_labels, version_name

    package = request.package
    return VersionRequest(package, version_name(package), version_labels(package))


def _parsed(spec: Any) -> Pipeline | None:
    if not isinstance(spec, dict):
        return None
    documents = (
        [spec["pipeline_spec"], spec["platform_spec"]] if "platform_spec" in spec else [spec]
    )
    try:
        return parse(documents, "the pipeline version")
    except ConfigError:
        return None  # of another compiler: the tasks are shown by KFP's names


def _show(run: Run, shown: dict[str, tuple[str, int]], watch: Watch) -> None:
    for task in run.tasks:
        seen: tuple[RunState | str, int] = (task.state, task.attempts)
        if shown.get(task.name) == seen:
            continue
        before = shown.get(task.name)
        shown[task.name] = seen
        if before is not None and task.attempts > max(1, before[1]):
            text = f"{task.name} is tried again, attempt {task.attempts}"
            watch(Event("note", "run", text, run=run.id))
        watch(Event("task", task.name, task=task, run=run.id))


def _lasting(error: ApiError) -> bool:
    """Whether asking again cannot help."""
    return error.status in (400, 401, 403, 404) or "certificate" in error.fact


def _gone(error: ApiError, run_id: str) -> Exception:
    if error.status == 404:
        return _no_run(run_id)
    return OutsideError(
        error.fact,
        cause=error.cause,
        next=f"the run goes on; follow it with `ctflow runs wait {run_id}`",
    )


def _no_run(run_id: str) -> StateError:
    return StateError(f"there is no run {run_id!r}", next="see `ctflow runs list`")


def _without_tasks(data: Json) -> Json:
    return {key: value for key, value in data.items() if key != "run_details"}
