"""A run's tasks as the server tells them: one entry per node of its Argo workflow and attempt."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.kfp_server.parameters import pipeline_of
from tests.kfp_server.values import NOT_ENDED, Item


@dataclass
class Attempt:
    """One try of a container task; `node` is its id in the workflow."""

    state: str
    node: str


@dataclass
class Task:
    """A task of a pipeline, or the pipeline itself (`root`).

    `state` is empty until the task is reached; times are the server's, empty until known.
    """

    name: str
    path: str
    children: list[Task] = field(default_factory=list)
    is_pod: bool = False
    state: str = ""
    #: Of the task's driver while the task itself has not been reached.
    driver: str = ""
    #: The driver looks whether it has been done before.
    cached: bool = False
    started: str = ""
    ended: str = ""
    #: What it made was taken from an earlier run.
    hit: bool = False
    #: A container's tries; none where only the last is known.
    attempts: list[Attempt] = field(default_factory=list)

    def walk(self) -> Iterator[Task]:
        """This task and all inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


def plan(spec: Item) -> Task:
    """The tasks of a package, none reached yet."""
    pipeline = pipeline_of(spec)

    def tasks(component: Item, path: str) -> list[Task]:
        found = []
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            inner = pipeline.get("components", {}).get(task["componentRef"]["name"], {})
            inside = f"{path}/{name}"
            cached = bool(task.get("cachingOptions", {}).get("enableCache"))
            is_pod = "executorLabel" in inner
            found.append(Task(name, inside, tasks(inner, inside), is_pod, cached=cached))
        return found

    return Task("root", "root", tasks(pipeline["root"], "root"))


def full_name(workflow: str, path: str, name: str) -> str:
    """Argo's full name of a node: each part on the way to it with its first attempt."""
    *above, last = path.split("/")
    if name == workflow:
        return workflow
    parts = [*above, last, name] if name == "executor" else [*above, name]
    return workflow + "".join(f"(0).{part}" for part in parts)


def node(workflow: str, name: str) -> str:
    """A node's id: the workflow's name and FNV-1a, 32 bits, of the node's full name."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{value}"


def pod(workflow: str, task: Task) -> str:
    """The name of a container task's pod: a node's id with its template's name inside."""
    number = node(workflow, f"{full_name(workflow, task.path, 'executor')}(0)").rpartition("-")[2]
    return f"{workflow}-system-container-impl-{number}"


def details(run: Item, workflow: str, root: Task) -> list[Item]:
    """`task_details` of a run whose root has been reached."""
    entries = _pair(
        run, workflow, workflow, root, root.state, full_name(workflow, root.path, "root-driver")
    )
    for task in root.walk():
        if task.state:
            entries += _reached(run, workflow, task)
        elif task.driver:
            entries += _pair(run, workflow, f"{task.name}-driver", task, task.driver, "")
        elif root.state == "FAILED" and _has_reached_sibling(root, task):
            for name in (f"{task.name}-driver", task.name):
                entry = _entry(run, workflow, name, f"{task.path}/{name}", root, "")
                entry["state_history"] = [{"update_time": root.ended}]
                del entry["state"]
                entries.append({**entry, "start_time": root.ended, "end_time": root.ended})
    return sorted(entries, key=lambda entry: str(entry["task_id"]))


def _reached(run: Item, workflow: str, task: Task) -> list[Item]:
    after = full_name(workflow, task.path, task.name)
    found = _pair(run, workflow, f"{task.name}-driver", task, "SUCCEEDED", after)
    inner = full_name(workflow, task.path, "executor") if task.is_pod else ""
    if task.children:
        first = task.children[0]
        inner = full_name(workflow, first.path, f"{first.name}-driver")
    found += _pair(run, workflow, task.name, task, task.state, inner)
    if task.is_pod:
        found += _executor(run, workflow, task)
    if task.is_pod and task.cached and task.state == "SUCCEEDED":
        # What is noted for later runs: neither a name nor a state.
        entry = _entry(run, workflow, "", f"{task.path}/report", task, "")
        identity = zlib.crc32(f"{run['run_id']}{task.path}".encode())
        kept = ("run_id", "task_id", "create_time", "start_time", "end_time")
        found.append({**{key: entry[key] for key in kept}, "execution_id": str(identity)})
    return found


def _executor(run: Item, workflow: str, task: Task) -> list[Item]:
    """The container and its tries."""
    state = "SKIPPED" if task.hit else task.state
    whole, last = _pair(run, workflow, "executor", task, state, "")
    if not task.attempts:
        return [whole, last]
    whole["child_tasks"] = [{"pod_name": attempt.node} for attempt in task.attempts]
    tries = [
        _entry(run, workflow, f"executor({n})", f"{task.path}/executor({n})", task, attempt.state)
        for n, attempt in enumerate(task.attempts)
    ]
    return [whole, *tries]


def _has_reached_sibling(root: Task, task: Task) -> bool:
    parents = [found for found in root.walk() if task in found.children]
    return any(sibling.state for parent in parents for sibling in parent.children)


def _pair(run: Item, workflow: str, name: str, task: Task, state: str, after: str) -> list[Item]:
    """A node that Argo may try again and its first try."""
    path = f"{task.path}/{name}"
    whole = _entry(run, workflow, name, path, task, state)
    attempt = _entry(run, workflow, f"{name}(0)", f"{path}(0)", task, state)
    first = f"{full_name(workflow, task.path, name)}(0)"
    whole["child_tasks"] = [{"pod_name": node(workflow, first)}]
    if after:
        attempt["child_tasks"] = [{"pod_name": node(workflow, after)}]
    return [whole, attempt]


def _entry(run: Item, workflow: str, name: str, path: str, task: Task, state: str) -> Item:
    started = task.started or run["created_at"]
    history = [{"update_time": started, "state": "RUNNING"}]
    if state not in {"RUNNING", "PENDING"}:
        history.append({"update_time": task.ended or started, "state": state})
    return {
        "run_id": run["run_id"],
        "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run['run_id']}/{workflow}/{path}")),
        "display_name": name,
        "create_time": run["created_at"],
        "start_time": started,
        "end_time": task.ended or (NOT_ENDED if state in {"RUNNING", "PENDING"} else started),
        "state": state,
        "state_history": history,
    }
