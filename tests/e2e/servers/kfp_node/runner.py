"""Runs packages as Argo workflows, and tells what has become of them."""

from __future__ import annotations

import json
import re
import traceback
from typing import Any

from tests.e2e.servers.kfp_node.cluster import Cluster, ClusterError
from tests.e2e.servers.kfp_node.metadata import Metadata
from tests.e2e.servers.kfp_node.pods import REPORT
from tests.e2e.servers.kfp_node.workflow import Compiler
from tests.kfp_server import tasks
from tests.kfp_server.errors import Refused
from tests.kfp_server.parameters import pipeline_of
from tests.kfp_server.store import move, random_id
from tests.kfp_server.values import Item, now

_STATES = {
    "": "PENDING", "Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED",
    "Failed": "FAILED", "Error": "FAILED", "Skipped": "SKIPPED", "Omitted": "",
}  # fmt: skip
#: Of several nodes of one task, as a loop makes them, the first of these is the task's state.
_ORDER = ("RUNNING", "PENDING", "FAILED", "SUCCEEDED", "SKIPPED")


class ArgoRunner:
    """Makes a workflow for each run and follows it."""

    def __init__(self, cluster: Cluster, metadata: Metadata) -> None:
        self.cluster, self.metadata = cluster, metadata

    def start(self, run: Item, spec: Item) -> None:
        self._submit(run, spec, retried=False)
        self.metadata.begin(run, pipeline_of(spec)["pipelineInfo"]["name"])

    def _submit(self, run: Item, spec: Item, *, retried: bool) -> None:
        pipeline = pipeline_of(spec)["pipelineInfo"]["name"]
        name = f"{re.sub('[^a-z0-9-]', '-', pipeline.lower())[:40]}-{random_id('workflow')[:5]}"
        compiler = Compiler(run, spec, retried)
        made = compiler.workflow(name)
        try:
            self.cluster.submit(made)
        except ClusterError as error:
            raise Refused(500, 13, f"InternalServerError: {error}") from None
        images = {one["name"]: one["container"]["image"] for one in made["spec"]["templates"]
                  if "container" in one}  # fmt: skip
        run.update(_workflow=name, _paths=compiler.paths, _images=images, _recorded=set())
        run["_pods"] = {}

    def refresh(self, run: Item) -> None:
        try:
            found = self.cluster.workflow(run["_workflow"])
        except ClusterError:
            traceback.print_exc()
            return
        status = found.get("status", {})
        ended = status.get("finishedAt")
        nodes = status.get("nodes") or {}
        self._record(run, nodes)
        root = self._tree(run, nodes)
        if root.state:
            details = tasks.details(run, run["_workflow"], root)
            run["run_details"] = {"task_details": details}
        state = _STATES[status.get("phase", "")]
        if run["state"] == "CANCELING":
            state = "FAILED" if ended else "CANCELING"
        elif state == "PENDING" and run["state"] == "RUNNING":
            state = "RUNNING"
        move(run, state, now())
        if ended:
            run["finished_at"] = ended

    def _tree(self, run: Item, nodes: dict[str, Any]) -> tasks.Task:
        """The package's tasks with what the workflow's nodes say of them."""
        root = tasks.plan(run["_spec"])
        by_path = {task.path: task for task in root.walk()}
        attempts = {
            child
            for node in nodes.values() if node["type"] == "Retry"
            for child in node.get("children", [])
        }  # fmt: skip
        for key, node in nodes.items():
            task = by_path.get(run["_paths"].get(node.get("templateName", ""), ""))
            if task is None or node["type"] in {"TaskGroup", "StepGroup"}:
                continue
            state = _STATES[node.get("phase", "")]
            if node["type"] == "Pod":
                run["_pods"][
                    f"{run['_workflow']}-{node['templateName']}-{key.rpartition('-')[2]}"
                ] = key
                task.attempts.append(tasks.Attempt(state, key))
            if key in attempts:
                continue
            _take(task, state, node)
            if state == "SUCCEEDED" and node["type"] == "Pod":
                task.hit = _report(node).get("cached", False)
        return root

    def _record(self, run: Item, nodes: dict[str, Any]) -> None:
        for key, node in nodes.items():
            if node["type"] != "Pod" or node.get("phase") != "Succeeded" or key in run["_recorded"]:
                continue
            report = _report(node)
            if not report:
                continue
            name = run["_paths"][node["templateName"]].rpartition("/")[2]
            image = run["_images"][node["templateName"]]
            self.metadata.task(run, name, name, image, report)
            run["_recorded"].add(key)

    def terminate(self, run: Item) -> None:
        self.cluster.shut_down(run["_workflow"])

    def retry(self, run: Item) -> None:
        """Run it anew; tasks that succeeded take what they stored."""
        before = run["_workflow"]
        self._submit(run, run["_spec"], retried=True)
        self.cluster.delete(before)

    def delete(self, run: Item) -> None:
        self.cluster.delete(run["_workflow"])

    def log(self, run: Item, pod: str) -> bytes | None:
        """A pod's log once the run has ended, as the real one; before that there is none."""
        if run["state"] in {"PENDING", "RUNNING", "CANCELING"} or pod not in run["_pods"]:
            return None
        try:
            return self.cluster.log(pod)
        except ClusterError:
            return None


def _take(task: tasks.Task, state: str, node: Item) -> None:
    """Note a node of a task that may have several."""
    if not state:
        return
    if not task.state or _ORDER.index(state) < _ORDER.index(task.state):
        task.state = state
    started, ended = node.get("startedAt") or "", node.get("finishedAt") or ""
    task.started = min(filter(None, (task.started, started)), default="")
    task.ended = max(task.ended, ended)
    if task.state in {"RUNNING", "PENDING"}:
        task.ended = ""


def _report(node: Item) -> Item:
    for one in node.get("outputs", {}).get("parameters", []):
        if one["name"] == REPORT:
            found: Item = json.loads(one.get("value") or "{}")
            return found
    return {}
