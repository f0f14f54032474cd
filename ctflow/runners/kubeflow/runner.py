"""Runs packages on Kubeflow Pipelines. The server keeps the record of the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ctflow.errors import CtflowError, Interrupted, OutsideError, StateError
from ctflow.model import Artifact, Run, RunState, Task
from ctflow.pipelinespec.packages import load
from ctflow.pipelinespec.parameters import nearest, parameters_of
from ctflow.ports import Event, Pipelines, RunRequest, VersionRequest, Watch, ignore
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.logs import Logs
from ctflow.runners.kubeflow.outputs import RunOutputs, root_of
from ctflow.runners.kubeflow.parameters import check_exact
from ctflow.runners.kubeflow.reading import ENDED, run_of, state_of
from ctflow.runners.kubeflow.scoring import scored, scoring_spec, start_scoring
from ctflow.runners.kubeflow.server_runs import ServerRuns, no_run
from ctflow.runners.kubeflow.starting import RunSettings, start

#: Seconds between two looks at a run: the first ones, and at most.
_SOON, _LATER = 1.0, 10.0
#: For so many seconds a server that fails is asked again before the wait for a run gives up.
_PATIENCE = 600.0
#: For so many seconds a terminated run is waited for: its pods have some time to end.
_TERMINATION = 180.0

#: What a person answers who interrupts the wait: leave the run going, or terminate it.
Ask = Callable[[str], bool]


class KubeflowRunner:
    """The ``Runner`` of a KFP server.

    Args:
        project: for runs that were not made by ctflow.
        pipelines: where packages are uploaded before they run.
        settings: how runs are made.
        outputs: what their tasks wrote.
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
        outputs: RunOutputs,
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
        self._outputs = outputs
        self._runs = ServerRuns(kfp, project, settings.experiment)

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
        named = f"{data.get('display_name', '')}  {self._runs.url(run_id)}"
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
                    data = self._kfp.run(run_id)
                    run = self._runs.read(data)
                except ApiError as error:
                    if _lasting(error) or time.monotonic() - failing > _PATIENCE:
                        raise _gone(error, run_id) from None
                    watch(Event("note", "run", f"{error.fact}; asking again", run=run_id))
                else:
                    failing = time.monotonic()
                    _show(run, shown, watch)
                    if run.state in ENDED:
                        return self._with_outputs(run, data, watch)
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
                return self._runs.read(data)
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
        data = self._runs.find(run_id)
        return self._with_outputs(self._runs.read(data), data, ignore)

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs of the project's experiment first, without their tasks."""
        found: list[Run] = []
        metrics = self._outputs.metrics()
        for data in self._runs.all(min(limit, 200) if state is None else 200):
            if state is None or state_of(data) == state:
                run = run_of(_without_tasks(data), self._project, None, self._runs.url_of(data))
                found.append(replace(run, metrics=metrics(run)))
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

    # -- outputs ----------------------------------------------------------------------------------

    def _with_outputs(self, run: Run, data: Json, watch: Watch) -> Run:
        """The run with what its tasks wrote; as it is where that cannot be read, which is said."""
        try:
            return self._outputs.filled(run, self._runs.pipeline_of(data), root_of(data))
        except CtflowError as error:
            watch(Event("note", "run", f"outputs are not known: {error.message()}", run=run.id))
            return run

    def fetch(self, artifact: Artifact) -> Path:
        """A local copy of a run's artifact. Raises as ``Outputs`` says."""
        return self._outputs.fetch(artifact)

    def identified(self, run: Run, outputs: Sequence[str], made: Sequence[str] = ()) -> Run:
        """The run with the digests of outputs. Raises as ``Outputs`` says."""
        data = self._runs.find(run.id)
        pipeline = self._runs.pipeline_of(data)
        if any(run.artifact(one) is None for one in outputs):
            run = self._outputs.filled(run, pipeline, root_of(data))
        return self._outputs.identified(run, pipeline, outputs, made)

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Run one task of a run as a run of its own. Raises as ``Outputs`` says."""
        data = self._runs.find(run.id)
        documents = self._runs.documents_of(data)
        spec = scoring_spec(
            run, documents, task, artifact, self._outputs.placed(run, artifact, content)
        )
        started = start_scoring(self._kfp, run, task, spec, self._settings, root_of(data))
        watch(Event("note", "run", f"{task} of run {run.id} runs again as run {started}"))
        done = self.wait(started, ignore)
        return scored(done, task)


def version_request(request: RunRequest) -> VersionRequest:
    """The version that a run is of."""
    from ctflow.model.versions import version_labels, version_name

    package = request.package
    return VersionRequest(package, version_name(package), version_labels(package))


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
        return no_run(run_id)
    return OutsideError(
        error.fact,
        cause=error.cause,
        next=f"the run goes on; follow it with `ctflow runs wait {run_id}`",
    )


def _without_tasks(data: Json) -> Json:
    return {key: value for key, value in data.items() if key != "run_details"}
