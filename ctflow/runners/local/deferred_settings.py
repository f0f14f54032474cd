"""A task that is ready to start: what only its inputs decide of how it runs, or what it is done by.

Its image, its limits and the names of its volumes, secrets and config maps may be parameters.
Importers, and the tasks that make and remove volumes, need no process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from dataclasses import replace as changed
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.quick import dataclass
from ctflow.model import TaskState, Value
from ctflow.pipelinespec.placeholders import Context, replace
from ctflow.pipelinespec.platform import VolumeError
from ctflow.pipelinespec.spec_reader import quantity
from ctflow.runners.local.importer import run_importer
from ctflow.runners.local.inputs import InputError, named
from ctflow.runners.local.jobs import RunContext
from ctflow.runners.local.nodes import Artifacts, Node
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.plans import on_platform
from ctflow.runners.local.volumes import run_volume_task


@dataclass(frozen=True)
class Done:
    """The end of a task for which no process is run."""

    outputs: dict[str, Value] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    error: str = ""

    @property
    def state(self) -> TaskState:
        """How it ended."""
        return "failed" if self.error else "succeeded"


def settled(
    plans: Mapping[str, Plan], node: Node, parameters: Mapping[str, Value], run_context: RunContext
) -> Plan | Done:
    """How a task runs that is ready to start, or its end, where it needs no process.

    A value that is no image, limit, volume, secret or config map that there can be here is a
    failure of the task.

    Args:
        plans: the components', by name.
        node: the task.
        parameters: its input parameters, with defaults.
        run_context: the run.
    """
    if node.component.importer is not None:
        artifacts, error = run_importer(node, run_context.names)
        return Done({}, artifacts, error)
    _make_workspace(parameters, run_context)
    plan = plans[node.component.name]
    container = node.component.container
    if plan.volumes is not None and container is not None:
        task = f"{run_context.run}-{node.name}"
        outputs, error = run_volume_task(container.image, task, parameters, plan.volumes)
        return Done(outputs, {}, error)
    try:
        if plan.deferred is not None:
            plan = _with_container(plan, node, parameters)
        return _with_names(plan, node) if plan.platform.settle is not None else plan
    except InputError as error:
        return Done(error=str(error))


def _make_workspace(parameters: Mapping[str, Value], run_context: RunContext) -> None:
    """Make the folder that a run's tasks share (KFP's workspace), if one knows of it."""
    workspace = run_context.names.get("workspace_path")
    if workspace and any(
        isinstance(value, str) and workspace in value for value in parameters.values()
    ):
        Path(workspace).mkdir(parents=True, exist_ok=True)


def _with_container(plan: Plan, node: Node, parameters: Mapping[str, Value]) -> Plan:
    container = node.component.container
    assert plan.deferred is not None  # noqa: S101 (the caller asked)
    assert container is not None  # noqa: S101
    context = Context({"inputs": {"parameterValues": parameters}})
    limits = {name: replace(text, context) for name, text in container.deferred.items()}
    image = replace(container.image, context)
    try:
        cpu = quantity(limits["cpu"]) if "cpu" in limits else container.cpu
        memory = int(quantity(limits["memory"])) if "memory" in limits else container.memory
    except ValueError:
        said = ", ".join(f"{name} {value!r}" for name, value in limits.items())
        raise InputError(f"its limit is not a quantity such as 2 or 500M: {said}") from None
    try:
        made = plan.deferred(changed(container, image=image, cpu=cpu, memory=memory))
    except (ConfigError, OutsideError) as error:  # the latter: an image that cannot be pulled
        raise InputError(str(error)) from None
    return on_platform(made, plan.platform)


def _with_names(plan: Plan, node: Node) -> Plan:
    assert plan.platform.settle is not None  # noqa: S101 (the caller asked)
    try:
        platform = plan.platform.settle(lambda source: named(node, source))
    except (ConfigError, VolumeError) as error:
        raise InputError(str(error)) from None
    return on_platform(plan, platform)
