"""From KFP's JSON of a run to a ``Run``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ctflow.model import Commit, Image, Run, RunState, Task, TaskState
from ctflow.pipelinespec.spec import Pipeline
from ctflow.runners.kubeflow import labels
from ctflow.runners.kubeflow.nodes import Entry, Found, Nodes, spots

_RUN_STATES: dict[str, RunState] = {
    "PENDING": "pending", "RUNNING": "running", "PAUSED": "running", "CANCELING": "running",
    "SUCCEEDED": "succeeded", "SKIPPED": "succeeded", "FAILED": "failed", "CANCELED": "canceled",
}  # fmt: skip
_TASK_STATES: dict[str, TaskState] = {
    "PENDING": "pending", "RUNNING": "running", "CANCELING": "running", "PAUSED": "running",
    "SUCCEEDED": "succeeded", "CACHED": "cached", "SKIPPED": "skipped", "FAILED": "failed",
    "CANCELED": "canceled",
}  # fmt: skip
ENDED = frozenset({"succeeded", "failed", "canceled"})


def moment(text: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for KFP's two ways to say "not yet"."""
    if not isinstance(text, str) or text.startswith(("1970-01-01T00:00:00", "0001-01-01")):
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def state_of(run: Mapping[str, Any]) -> RunState:
    """A run's state. One that was terminated ends as FAILED: its history tells the difference."""
    found = _RUN_STATES.get(str(run.get("state")), "running")
    if found == "failed":
        history = run.get("state_history")
        entries = history if isinstance(history, list) else []
        if any(isinstance(one, dict) and one.get("state") == "CANCELING" for one in entries):
            return "canceled"
    return found


def run_of(data: Mapping[str, Any], project: str, pipeline: Pipeline | None, url: str) -> Run:
    """A run, with its tasks where its details are given.

    Args:
        pipeline: the package that it runs; None: not known, tasks have the names that KFP gives.
    """
    said = labels.read(data.get("description"))
    state = state_of(data)
    reference = data.get("pipeline_version_reference")
    config = data.get("runtime_config")
    given = config.get("parameters") if isinstance(config, dict) else None
    error = data.get("error")
    message = error.get("message") if isinstance(error, dict) else ""
    details = data.get("run_details")
    return Run(
        id=str(data.get("run_id", "")),
        project=said.get("project", project),
        pipeline=pipeline.name if pipeline else said.get("pipeline", ""),
        package=said.get("package", ""),
        state=state,
        created=moment(data.get("created_at")) or 0.0,
        ended=moment(data.get("finished_at")) if state in ENDED else None,
        commit=Commit(said["commit"], said.get("branch") or None) if said.get("commit") else None,
        parameters=dict(given) if isinstance(given, dict) else {},
        images=images_of(pipeline) if pipeline else (),
        tasks=tasks_of(details, pipeline, state),
        error=str(message or ""),
        url=url,
        version=str(reference.get("pipeline_version_id", ""))
        if isinstance(reference, dict)
        else "",
        name=str(data.get("display_name", "")),
    )


def images_of(pipeline: Pipeline) -> tuple[Image, ...]:
    """The images that a package pins by digest; the last part of a name is the step's."""
    found: dict[str, Image] = {}
    for component in pipeline.components.values():
        reference = component.container.image if component.container else ""
        name, at, digest = reference.partition("@")
        if at:
            found.setdefault(reference, Image(name.rsplit("/", 1)[-1], reference, digest))
    return tuple(found[name] for name in sorted(found))


def tasks_of(details: Any, pipeline: Pipeline | None, run: RunState) -> tuple[Task, ...]:
    """The tasks of a run, in the package's order."""
    entries = details.get("task_details") if isinstance(details, dict) else None
    nodes = Nodes(entries)
    if pipeline is None:
        return tuple(_task(name, nodes.named(name), run) for name in nodes.names())
    found = []
    for spot in spots(pipeline):
        group = spot.component.dag is not None or spot.spec.iterator is not None
        above = ".".join(spot.keys[:-1])
        needs = tuple(f"{above}.{one}" if above else one for one in spot.spec.needs)
        image = spot.component.container.image if spot.component.container else ""
        step = image.partition("@")[0].rsplit("/", 1)[-1] if "@" in image else None
        found.append(_task(spot.path, nodes.find(spot), run, group=group, needs=needs, step=step))
    return tuple(found)


def _task(
    name: str, found: Found, run: RunState, *, group: bool = False, needs: tuple[str, ...] = (),
    step: str | None = None,
) -> Task:  # fmt: skip
    entry = found.entry
    state = _state(found, run)
    clock: Entry = found.executor or entry or {}
    return Task(
        name,
        state,
        step=step,
        started=moment(clock.get("start_time")) if state != "skipped" else None,
        ended=moment(clock.get("end_time")),
        attempts=len(found.pods),
        error="see its log" if state == "failed" and not group else "",
        needs=needs,
        group=group,
        log=found.pods[-1] if found.pods else "",
    )


def _state(found: Found, run: RunState) -> TaskState:
    if found.entry is None or not found.entry.get("state"):
        # A task that was never reached has no state.
        return "skipped" if run == "succeeded" else "canceled" if run in ENDED else "pending"
    state = _TASK_STATES.get(str(found.entry["state"]), "running")
    skipped = found.executor is not None and found.executor.get("state") == "SKIPPED"
    if state == "succeeded" and skipped:
        return "cached"
    if state == "failed" and run == "canceled":
        return "canceled"
    return state
