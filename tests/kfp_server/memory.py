"""A runner that runs nothing: a test says what becomes of each run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from tests.kfp_server import tasks
from tests.kfp_server.parameters import pipeline_of
from tests.kfp_server.store import move
from tests.kfp_server.values import Item


class MemoryRunner:
    """Keeps each run where the test put it."""

    def __init__(self, clock: Callable[[], str], new_id: Callable[[str], str]) -> None:
        self.clock, self.new_id = clock, new_id
        self._logs: dict[tuple[str, str], bytes] = {}

    def start(self, run: Item, spec: Item) -> None:
        name = pipeline_of(spec).get("pipelineInfo", {}).get("name", "pipeline")
        run["_workflow"] = f"{name}-{self.new_id('workflow')[:5]}"
        run["_root"] = tasks.plan(spec)

    def refresh(self, run: Item) -> None:
        """Nothing: `advance` and `finish` move a run."""

    def terminate(self, run: Item) -> None:
        """Nothing: `finish` ends it."""

    def retry(self, run: Item) -> None:
        """Nothing: the tasks stay as they were until `advance`."""

    def delete(self, run: Item) -> None:
        self._logs = {key: text for key, text in self._logs.items() if key[0] != run["run_id"]}

    def log(self, run: Item, pod: str) -> bytes | None:
        return self._logs.get((run["run_id"], pod))

    def write_log(self, run: Item, task: str, text: str) -> str:
        """Give a container task's pod a log; returns the pod's name."""
        found = next(one for one in run["_root"].walk() if one.name == task and one.is_pod)
        pod = tasks.pod(run["_workflow"], found)
        self._logs[run["run_id"], pod] = text.encode()
        return pod

    def advance(self, run: Item, states: Mapping[str, str]) -> None:
        """Set tasks' states; the run and what the tasks are in are RUNNING."""
        root: tasks.Task = run["_root"]
        for task in root.walk():
            if task.name in states:
                self._set(task, states[task.name])
            if f"{task.name}-driver" in states:
                task.driver = states[f"{task.name}-driver"]
                task.started = self.clock()
        for task in root.walk():
            if task is root or any(inner.state for inner in list(task.walk())[1:]):
                self._set(task, "RUNNING")
        if run["state"] != "CANCELING":
            move(run, "RUNNING", self.clock())
        self._tell(run)

    def finish(
        self, run: Item, state: str, failed: Collection[str], skipped: Collection[str]
    ) -> None:
        """End a run: SUCCEEDED has every task done, FAILED ends those that ran."""
        root: tasks.Task = run["_root"]
        inside_skipped = {
            id(inner) for task in root.walk() if task.name in skipped
            for inner in list(task.walk())[1:]
        }  # fmt: skip
        for task in root.walk():
            if task.name in failed:
                self._set(task, "FAILED")
            elif task.name in skipped:
                self._set(task, "SKIPPED")
            elif id(task) in inside_skipped:
                task.state = ""
            elif state == "SUCCEEDED":
                self._set(task, "SUCCEEDED")
            elif task.state in {"RUNNING", "PENDING"} or task is root:
                self._set(task, "FAILED")
        for task in root.walk():
            if any(inner.state == "FAILED" for inner in list(task.walk())[1:]):
                self._set(task, "FAILED")
        if run["state"] == "PENDING":
            move(run, "RUNNING", self.clock())
        move(run, state, self.clock())
        run["finished_at"] = self.clock()
        self._tell(run)

    def _set(self, task: tasks.Task, state: str) -> None:
        now = self.clock()
        task.state = state
        task.started = task.started or now
        task.ended = "" if state in {"RUNNING", "PENDING"} else now

    def _tell(self, run: Item) -> None:
        found = tasks.details(run, run["_workflow"], run["_root"])
        run["run_details"] = {"task_details": found}
