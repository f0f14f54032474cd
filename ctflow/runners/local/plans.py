"""How each component's process is run here, decided before the first task starts.

A component whose image is one of the project's steps runs in that step's folder and environment; a
Python component also gets there what it needs besides (see ``python_components``). A lightweight
Python component on any other image runs in an environment made of the packages that it asks for.
Anything else is refused, with the way out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.lib.digests import digest_bytes
from ctflow.lib.quick import dataclass
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
    Workspace,
    Workspaces,
)
from ctflow.runners.local.base_images import Asked, asked
from ctflow.runners.local.process import TASK_VARIABLE
from ctflow.runners.local.python_components import (
    EXECUTOR_MODULE,
    SOURCE_FILE,
    check_function,
    environment_in,
    is_containerized,
    is_lightweight,
    requirements_of,
)
from ctflow.runners.local.volumes import IMAGES as VOLUME_IMAGES

#: Before a variable's name: it is for the container, not for the engine's own program.
CONTAINER_VARIABLE = "CTFLOW_CONTAINER_"
#: The variable that names a container's mounts: path in it -> folder here, as JSON.
MOUNTS = "CTFLOW_MOUNTS"


@dataclass(frozen=True)
class Plan:
    """How a component's process is started.

    Attributes:
        code: names everything of it that decides a result, for the cache.
        words: command and arguments, with placeholders.
        folder: where it runs; None: in the task's own folder.
        variables: the environment's variables.
        env: the package's own variables for the container.
        source: Python source to be written beside the task (lightweight components).
        step: the step's name, where it is one.
        packages: what a Python component installs, where it is no step.
        contained: the words run a container, which has mounts of its own.
        volumes: the folder of all volumes, for CreatePVC and DeletePVC, which run no process.
        deferred: makes the plan of one task whose image or limits are parameters.
        module: the words are ``python3 -m`` of this module, which a warm interpreter may run.
    """

    code: str
    words: tuple[str, ...]
    folder: Path | None
    variables: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    step: str | None = None
    packages: tuple[str, ...] = ()
    cpu: float = 0.0
    memory: int = 0
    platform: Platform = field(default_factory=Platform)
    contained: bool = False
    volumes: Path | None = None
    deferred: Callable[[Container], Plan] | None = None
    module: str = ""


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
    _tell_images(wanted, watch)
    for one in dict.fromkeys(one for _, one in wanted.values()):
        environment = environment_of(one, environments, watch)
        for name, (container, other) in wanted.items():
            if other == one:
                plans[name] = _lightweight(container, environment, other.requirements)
    plans = {name: replace(one, deferred=deferred.get(name)) for name, one in plans.items()}
    return _with_platforms(pipeline, plans, state, watch)


def environment_of(one: Asked, environments: Environments, watch: Watch) -> Environment:
    """The environment that a component asks for; raises as ``Environments.ensure`` does."""
    if one.python:
        return environments.ensure(one.requirements, watch, python=one.python)
    return environments.ensure(one.requirements, watch)


def _tell_images(wanted: Mapping[str, tuple[Container, Asked]], watch: Watch) -> None:
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
            return _python_in(container, workspace, environment)
        if is_lightweight(container):
            one = asked(component.name, container, packages)
            environment = environment_of(one, environments, watch)
            return _lightweight(container, environment, one.requirements)
    _check_container(component, container)
    if containers is not None:
        return _contained(container, containers, watch)
    return _container(component, container, workspace)


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


def _container(component: Component, container: Container, workspace: Workspace | None) -> Plan:
    if workspace is None:
        name = component.name.removeprefix("comp-")
        raise ConfigError(
            f"component {name} uses image {container.image}, which is not a step of this project",
            next="make it a step under steps/, run it with `--engine podman` (or docker), or the "
            "pipeline with `runner: kubeflow`",
        )
    return Plan(
        code=f"workspace:{workspace.key}",
        words=(*container.command, *container.args),
        folder=workspace.folder,
        variables=workspace.environment.variables,
        env=container.env,
        step=workspace.step,
        cpu=container.cpu,
        memory=container.memory,
    )


def _contained(container: Container, containers: ContainerEngine, watch: Watch) -> Plan:
    """A task in a container of its image; the engine holds it to its memory, not we."""
    image, cpu = container.image, container.cpu
    return Plan(
        code=f"image:{image}",
        words=(
            *containers.words(image, cpu, container.memory, watch),
            *container.command,
            *container.args,
        ),
        folder=None,
        variables={},
        env={f"{CONTAINER_VARIABLE}{name}": value for name, value in container.env.items()},
        step=image.partition("@")[0].rpartition("/")[2],
        packages=tuple(requirements_of(container).splitlines())
        if is_lightweight(container)
        else (),
        cpu=cpu,
        contained=True,
    )


def _lightweight(container: Container, environment: Environment, requirements: str) -> Plan:
    source = container.command[-1]
    digest = hashlib.sha256(source.encode()).hexdigest()
    words = (
        "python3", "-m", EXECUTOR_MODULE, "--component_module_path", SOURCE_FILE, *container.args
    )  # fmt: skip
    return Plan(
        code=f"python:{environment.key}:{digest}",
        words=words,
        folder=None,
        variables=environment.variables,
        packages=tuple(requirements.splitlines()),
        env={"_KFP_RUNTIME": "true", **container.env},
        source=source,
        cpu=container.cpu,
        memory=container.memory,
        module=EXECUTOR_MODULE,
    )


def _python_in(container: Container, workspace: Workspace, environment: Environment) -> Plan:
    """A Python component that runs in a step's folder."""
    found = _lightweight(container, environment, "")
    if is_containerized(container):
        # The step's file says `from kfp import dsl`, so that must be the whole kfp.
        words = (*container.command, *container.args)
        module = EXECUTOR_MODULE if words[1:3] == ("-m", EXECUTOR_MODULE) else ""
        found = replace(
            found, words=words, source="", env=container.env, code="python:", module=module
        )
    return replace(
        found,
        code=f"{found.code}:{workspace.key}:{environment.key}",
        folder=workspace.folder,
        step=workspace.step,
    )


def process_env(
    plan: Plan, own: Mapping[str, str], environ: Mapping[str, str], run: str, task: str
) -> dict[str, str]:
    """The variables of a task's process.

    Those of the caller that are handed on; then the environment's, then the package's own.
    """
    env = {
        # An engine's client needs what it is set up with; the container gets nothing of it.
        name: value
        for name, value in (os.environ if plan.contained else environ).items()
        if not name.startswith(("CTFLOW_", "GIT_"))
    }
    env["PYTHONUNBUFFERED"] = "1"
    env.update(plan.variables)
    env["CTFLOW_RUN"], env[TASK_VARIABLE] = run, task
    env.update(own)
    before = CONTAINER_VARIABLE if plan.contained else ""
    env.update({f"{before}{name}": value for name, value in plan.platform.secret_env.items()})
    return env
