"""A run's tasks as the graph knows them: nodes, and the scopes (DAG instances) they are in."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctflow.model import Artifact, TaskState, Value
from ctflow.pipelinespec.spec import Component, Dag, TaskSpec

Artifacts = dict[str, tuple[Artifact, ...]]
FINAL = frozenset({"succeeded", "cached", "skipped", "failed", "canceled"})
GOOD = frozenset({"succeeded", "cached"})


@dataclass(eq=False)
class Scope:
    """One instance of a DAG: its inputs and its tasks."""

    dag: Dag
    owner: Node | None
    prefix: str
    parameters: dict[str, Value]
    artifacts: Artifacts
    nodes: dict[str, Node] = field(default_factory=dict)
    left: int = 0


@dataclass(eq=False)
class Node:
    """A task of a run. ``name`` is its path; ``item`` is set in the iterations of a loop."""

    name: str
    spec: TaskSpec
    component: Component
    scope: Scope
    order: int
    state: TaskState = "pending"
    waiting: int = 0
    followers: list[Node] = field(default_factory=list)
    parameters: dict[str, Value] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    output_artifacts: Artifacts = field(default_factory=dict)
    error: str = ""
    loop: Node | None = None
    iterations: list[Node] = field(default_factory=list)
    inner: Scope | None = None
    started: int = 0
    ended: int = 0

    @property
    def group(self) -> bool:
        """Whether it stands for other tasks: a DAG component or a loop."""
        return self.component.dag is not None or self.loops

    @property
    def loops(self) -> bool:
        """Whether it is the loop itself, not one of its iterations."""
        return self.spec.iterator is not None and self.loop is None
