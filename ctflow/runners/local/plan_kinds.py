"""How a component of each kind runs here: as a step's process, in a container, as Python."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path

from ctflow import __version__
from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass
from ctflow.pipelinespec.platform import Platform
from ctflow.pipelinespec.spec import Component, Container
from ctflow.ports import (
    ContainerEngine,
    Environment,
    Watch,
    Workspace,
)
from ctflow.runners.local.process import TASK_VARIABLE
from ctflow.runners.local.python_components import (
    EXECUTOR_MODULE,
    SOURCE_FILE,
    is_containerized,
    is_lightweight,
    requirements_of,
)

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


def container_plan(component: Component, container: Container, workspace: Workspace | None) -> Plan:
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


def own_plan(container: Container, state: Path) -> Plan:
    """A task of ``ctflow.components``: ctflow itself, on the project whose run it is."""
    return Plan(
        code=f"ctflow:{__version__}",
        words=(sys.executable, "-m", "ctflow", *container.command[1:], *container.args),
        folder=None,
        # All of the caller's: it logs in to git and to the model store, as the caller would.
        variables={**os.environ, "CTFLOW_TASK_ROOT": str(state.parent)},
        env=container.env,
        cpu=container.cpu,
        memory=container.memory,
    )


def is_own(container: Container) -> bool:
    """Whether it is a task of ``ctflow.components``."""
    return container.command[:2] == ("ctflow", "task")


def contained_plan(container: Container, containers: ContainerEngine, watch: Watch) -> Plan:
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


def lightweight_plan(container: Container, environment: Environment, requirements: str) -> Plan:
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


def python_in_plan(container: Container, workspace: Workspace, environment: Environment) -> Plan:
    """A Python component that runs in a step's folder."""
    found = lightweight_plan(container, environment, "")
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
