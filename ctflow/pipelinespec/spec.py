"""The compiled package (KFP's PipelineSpec IR) as frozen dataclasses.

What each field means follows ``pipeline_spec.proto`` of Kubeflow Pipelines; ``spec_reader`` fills
them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ctflow.lib.quick import dataclass
from ctflow.model import Value


@dataclass(frozen=True)
class Parameter:
    """An input or output parameter's definition."""

    type: str
    optional: bool = False
    has_default: bool = False
    default: Value = None
    literals: tuple[Value, ...] = ()


@dataclass(frozen=True)
class ArtifactDef:
    """An input or output artifact's definition; ``type`` is the schema title."""

    type: str
    version: str = "0.0.1"
    optional: bool = False
    is_list: bool = False


@dataclass(frozen=True)
class Source:
    """Where a task's input comes from; exactly one of the ways.

    ``kind``: ``constant`` (``value``), ``input`` (``name`` of the parent's input), ``output``
    (``name`` of task ``task``), ``status`` (the final status of ``task``).
    """

    kind: str
    value: Value = None
    name: str = ""
    task: str = ""
    selector: str = ""


@dataclass(frozen=True)
class Retry:
    """How often and after what pauses (seconds) a failed task is tried again.

    ``longest`` is the time for all attempts together, in seconds: one that would begin later is not
    made. So Argo Workflows, which KFP runs on, takes the package's ``backoffMaxDuration``.
    """

    limit: int = 0
    pause: float = 0.0
    factor: float = 2.0
    longest: float = 3600.0


@dataclass(frozen=True)
class Iterator:
    """A loop over a parameter or an artifact list. One of ``items`` and ``input`` is given."""

    item: str
    items: tuple[Value, ...] | None = None
    input: str = ""
    artifacts: bool = False
    limit: int = 0


@dataclass(frozen=True)
class TaskSpec:
    """A task in a DAG."""

    key: str
    component: str
    title: str
    parameters: Mapping[str, Source]
    artifacts: Mapping[str, Source]
    needs: tuple[str, ...]
    condition: str = ""
    always: bool = False
    caching: bool = False
    cache_key: str = ""
    retry: Retry = Retry()
    iterator: Iterator | None = None


@dataclass(frozen=True)
class Selector:
    """An output of a DAG: ``name`` of subtask ``task``."""

    task: str
    name: str


@dataclass(frozen=True)
class Dag:
    """A DAG component's tasks, and which of their outputs are its own (the first that is there)."""

    tasks: Mapping[str, TaskSpec]
    parameters: Mapping[str, tuple[Selector, ...]]
    artifacts: Mapping[str, tuple[Selector, ...]]


@dataclass(frozen=True)
class Container:
    """A container executor. ``cpu`` in cores and ``memory`` in bytes are limits (0: none).

    ``deferred`` are limits that are parameters: ``cpu`` or ``memory`` -> a text with placeholders.
    """

    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]
    cpu: float = 0.0
    memory: int = 0
    accelerators: bool = False
    deferred: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """An importer executor. ``download``: what is imported has to lie on this machine."""

    uri: Source
    type: str
    metadata: Mapping[str, Value]
    download: bool = False


@dataclass(frozen=True)
class Component:
    """A component: a DAG, a container or an importer, and its interface."""

    name: str
    inputs: Mapping[str, Parameter]
    input_artifacts: Mapping[str, ArtifactDef]
    outputs: Mapping[str, Parameter]
    output_artifacts: Mapping[str, ArtifactDef]
    dag: Dag | None = None
    container: Container | None = None
    importer: Importer | None = None
    platform: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """The whole package. ``sdk`` names what compiled it, such as ``kfp-2.16.1``.

    ``ignored`` are the things that it says and that are not done here, in words.
    """

    name: str
    root: Component
    components: Mapping[str, Component]
    sdk: str = ""
    ignored: tuple[str, ...] = ()
