"""How each component's process is run here, decided before the first task starts.

A component whose image is one of the project's steps runs in that step's folder and environment; a
Python component also gets there what it needs besides (see ``python_components``). A lightweight
Python component on any other image runs in an environment made of the packages that it asks for.
Anything else is refused, with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.lib.digests import digest_bytes
from ctflow.pipelinespec import cel
from ctflow.pipelinespec.placeholders import has_placeholder
from ctflow.pipelinespec.platform import Local, Platform, platform_of
from ctflow.pipelinespec.spec import Component, Container, Pipeline
from ctflow.pipelinespec.values import TASK_CONFIG
from ctflow.ports import (
    ContainerEngine,
    Environment,
    Environments,
    Event,
    Watch,
    Workspaces,
)
from ctflow.runners.local.base_images import Asked, asked
from ctflow.runners.local.plan_kinds import (
    CONTAINER_VARIABLE,
    Plan,
    contained_plan,
    container_plan,
    is_own,
    lightweight_plan,
    own_plan,
    python_in_plan,
)
from ctflow.runners.local.python_components import (
    check_function,
    environment_in,
    is_containerized,
    is_lightweight,
)
from ctflow.runners.local.volumes import IMAGES as VOLUME_IMAGES


def reachable(pipeline: Pipeline) -> Iterator[Component]:
    """The components that the pipeline's tasks name, each once."""
    seen = set()
    queue = [pipeline.root]
    while queue:
        component = queue.pop()
        if component.name in seen:
            continue
        seen.add(component.name)
        yield component
        if component.dag is not None:
            queue += [pipeline.components[task.component] for task in component.dag.tasks.values()]


def check(pipeline: Pipeline) -> None:
    """Refuse what has no meaning or cannot work, before anything starts.

    Raises:
        ConfigError: a condition that is no expression, a parameter of an unknown type.
    """
    for component in reachable(pipeline):
        for task in component.dag.tasks.values() if component.dag else ():
            selectors = [source.selector for source in task.parameters.values()]
            for expression in (task.condition, *selectors):
                if not expression:
                    continue
                try:
                    cel.parse(expression)
                except cel.ExpressionError as error:
                    raise ConfigError(
                        f"the condition of task {task.key} cannot be evaluated: {error}",
                        cause="KFP's compiler does not escape quotes and newlines in it",
                        next="compare with a value without them",
                    ) from None


def plan(
    pipeline: Pipeline,
    workspaces: Workspaces,
    environments: Environments,
    watch: Watch,
    state: Path,
    containers: ContainerEngine | None = None,
    packages: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Plan]:
    """The plans of all container components, by component name; with ``containers``, in those.

    Args:
        state: the project's local state, which holds the volumes and the secrets.
        packages: what to install instead of an image of Python components, by the image.

    Raises:
        ConfigError: an image that is no step of this project, an environment that cannot be had, a
            secret that is not there.
        OutsideError: the package index or the disk fails.
    """
    check(pipeline)
    plans: dict[str, Plan] = {}
    deferred: dict[str, Callable[[Container], Plan]] = {}
    wanted: dict[str, tuple[Container, Asked]] = {}
    instead = packages or {}
    for component in reachable(pipeline):
        name, container = component.name, component.container
        if container is None:
            continue
        if container.image in VOLUME_IMAGES:
            plans[name] = Plan("", (), None, {}, volumes=state / "volumes")
            continue
        if is_own(container):
            plans[name] = own_plan(container, state)
            continue
        make = partial(
            _planned, component, pipeline.sdk, workspaces, environments, watch, containers, instead
        )
        if container.deferred or has_placeholder(container.image):
            deferred[name] = make
        if has_placeholder(container.image):
            plans[name] = Plan("", (), None, {}, contained=containers is not None)
        elif (
            containers is None
            and is_lightweight(container)
            and workspaces.open(container.image) is None
        ):
            wanted[name] = (container, asked(name, container, instead))
        else:
            plans[name] = make(container)
    _note_unused_images(wanted, watch)
    for one in dict.fromkeys(one for _, one in wanted.values()):
        environment = environment_of(one, environments, watch)
        for name, (container, other) in wanted.items():
            if other == one:
                plans[name] = lightweight_plan(container, environment, other.requirements)
    plans = {name: replace(one, deferred=deferred.get(name)) for name, one in plans.items()}
    return _with_platforms(pipeline, plans, state, watch)


def environment_of(one: Asked, environments: Environments, watch: Watch) -> Environment:
    """The environment that a component asks for; raises as ``Environments.ensure`` does."""
    if one.python:
        return environments.ensure(one.requirements, watch, python=one.python)
    return environments.ensure(one.requirements, watch)


def _note_unused_images(wanted: Mapping[str, tuple[Container, Asked]], watch: Watch) -> None:
    """Say which images are not used."""
    images = dict.fromkeys(container.image for container, _ in wanted.values())
    if images:
        text = "without --engine, only the Python version of base images is used: " + ", ".join(
            images
        )
        watch(Event("note", "run", text))


def _planned(
    component: Component,
    sdk: str,
    workspaces: Workspaces,
    environments: Environments,
    watch: Watch,
    containers: ContainerEngine | None,
    packages: Mapping[str, Sequence[str]],
    container: Container,
) -> Plan:
    """How a component's container is run, whose image is known.

    Raises:
        ConfigError: as ``plan`` does.
    """
    workspace = workspaces.open(container.image)
    python = is_lightweight(container) or is_containerized(container)
    if python and containers is None:
        if workspace is not None:
            if is_containerized(container):
                check_function(component.name.removeprefix("comp-"), container, workspace)
            environment = environment_in(workspace, container, sdk, environments, watch)
            return python_in_plan(container, workspace, environment)
        if is_lightweight(container):
            one = asked(component.name, container, packages)
            environment = environment_of(one, environments, watch)
            return lightweight_plan(container, environment, one.requirements)
    _check_container(component, container)
    if containers is not None:
        return contained_plan(container, containers, watch)
    return container_plan(component, container, workspace)


def _with_platforms(
    pipeline: Pipeline, plans: dict[str, Plan], state: Path, watch: Watch
) -> dict[str, Plan]:
    local = Local(state)
    ignored = dict.fromkeys(pipeline.ignored)
    found = {}
    for name, one in plans.items():
        component = pipeline.components[name]
        platform = platform_of(name, component.platform, local)
        ignored.update(dict.fromkeys(platform.meaningless))
        if component.container is not None and component.container.accelerators:
            ignored["accelerators"] = None
        if any(parameter.type == TASK_CONFIG for parameter in component.inputs.values()):
            ignored["dsl.TaskConfig"] = None
        found[name] = on_platform(one, platform)
    if ignored:
        text = f"these settings are ignored on this machine: {', '.join(sorted(ignored))}"
        watch(Event("note", "run", text))
    return found


def on_platform(plan: Plan, platform: Platform) -> Plan:
    """The plan with what Kubernetes' settings add to it."""
    before = CONTAINER_VARIABLE if plan.contained else ""
    env = {f"{before}{name}": value for name, value in platform.env.items()}
    code = plan.code
    if platform.file_mounts:
        code += f":{digest_bytes(json.dumps(platform.file_mounts, sort_keys=True).encode())}"
    return replace(plan, code=code, env={**plan.env, **env}, platform=platform)


def _check_container(component: Component, container: Container) -> None:
    name = component.name.removeprefix("comp-")
    if not container.command:
        raise ConfigError(
            f"component {name} has no command",
            cause="KFP does not use the image's ENTRYPOINT",
            next="write `command=[...]` in its ContainerSpec",
        )
