"""The control flow of a run: which task may start, with which inputs, and what its end means.

No processes here: ``Graph`` calls ``start`` for each task that may run now; the caller reports its
end to ``finish``. DAG components, loops, conditions and exit tasks are worked out inside. All moves
are made from one queue, so that neither deep nor wide pipelines nest calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ctflow.model import Artifact, TaskState, Value
from ctflow.pipelinespec.cel import ExpressionError
from ctflow.pipelinespec.spec import Iterator, Pipeline, Selector, TaskSpec
from ctflow.runners.local.inputs import InputError, holds, loop_items, names_of, resolve_inputs
from ctflow.runners.local.nodes import FINAL, GOOD, Artifacts, Node, Scope


class Graph:
    """A run's tasks and their states."""

    def __init__(
        self,
        pipeline: Pipeline,
        parameters: Mapping[str, Value],
        start: Callable[[Node], None],
        changed: Callable[[Node], None],
        names: Mapping[str, str] | None = None,
        artifacts: Mapping[str, tuple[Artifact, ...]] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._start = start
        self._changed = changed
        self._names = dict(names or {})
        self._moves: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._moving = False
        self._count = 0
        self.nodes: list[Node] = []
        assert pipeline.root.dag is not None  # noqa: S101 (spec.parse made sure)
        self.root = Scope(pipeline.root.dag, None, "", dict(parameters), dict(artifacts or {}))
        self.done = False
        self.canceled = False
        #: The pipeline's own outputs, once it is done.
        self.outputs: dict[str, Value] = {}
        self.artifacts: Artifacts = {}

    def begin(self) -> None:
        """Start the tasks that depend on nothing."""
        self._move(self._open, self.root)

    def finish(
        self,
        node: Node,
        state: TaskState,
        outputs: Mapping[str, Value] | None = None,
        artifacts: Mapping[str, tuple[Artifact, ...]] | None = None,
        error: str = "",
    ) -> None:
        """A task that was started has ended."""
        self._move(self._finish, node, state, dict(outputs or {}), dict(artifacts or {}), error)

    def cancel(self) -> None:
        """Start nothing more: what has not started yet ends as canceled."""
        self.canceled = True
        for node in list(self.nodes):
            if node.state == "pending":
                self._move(self._finish, node, "canceled", {}, {}, "")

    @property
    def failed(self) -> list[Node]:
        """The tasks that failed themselves, in order."""
        return [node for node in self.nodes if node.state == "failed" and not _explained(node)]

    def _reasons(self, producer: Node) -> list[str]:
        inside = producer.name + "."
        return [
            f"{node.name}: {node.error}"
            for node in self.failed
            if node is producer or node.name.startswith(inside)
        ]

    # -- moves ------------------------------------------------------------------------------

    def _move(self, function: Callable[..., None], *arguments: Any) -> None:
        self._moves.append((function, arguments))
        if self._moving:
            return
        self._moving = True
        try:
            while self._moves:
                function, arguments = self._moves.popleft()
                function(*arguments)
        finally:
            self._moving = False

    def _node(self, name: str, spec: TaskSpec, scope: Scope, loop: Node | None = None) -> Node:
        component = self._pipeline.components[spec.component]
        node = Node(name, spec, component, scope, self._count, loop=loop)
        self._count += 1
        self.nodes.append(node)
        return node

    def _open(self, scope: Scope) -> None:
        scope.left = len(scope.dag.tasks)
        for key, spec in scope.dag.tasks.items():
            scope.nodes[key] = self._node(scope.prefix + key, spec, scope)
        for node in scope.nodes.values():
            node.waiting = len(node.spec.needs)
            for need in node.spec.needs:
                scope.nodes[need].followers.append(node)
        for node in scope.nodes.values():
            self._changed(node)
            if node.waiting == 0:
                self._move(self._ready, node)
        if scope.left == 0:
            self._move(self._close, scope)

    def _ready(self, node: Node) -> None:
        if node.state != "pending":
            return
        if self.canceled:
            self._finish(node, "canceled", {}, {}, "")
            return
        before = [node.scope.nodes[need] for need in node.spec.needs]
        bad = next((other for other in before if other.state not in GOOD), None)
        if bad is not None and not node.spec.always:
            verb = {"failed": "failed", "canceled": "was canceled"}.get(bad.state, "was skipped")
            state: TaskState = "canceled" if bad.state == "canceled" else "skipped"
            self._finish(node, state, {}, {}, f"{bad.name} {verb}")
            return
        try:
            resolve_inputs(node, names_of(node, self._names), self._reasons)
            if node.spec.condition and not holds(node):
                self._finish(node, "skipped", {}, {}, f"not: {node.spec.condition}")
                return
            items = loop_items(node, names_of(node, self._names)) if node.loops else None
        except (InputError, ExpressionError) as error:
            self._finish(node, "failed", {}, {}, str(error))
            return
        if items is not None:
            self._iterate(node, items)
        else:
            self._run(node)

    def _run(self, node: Node) -> None:
        node.state = "running"
        if node.component.dag is None:
            self._start(node)
            return
        self._changed(node)
        parameters = dict(node.parameters)
        for name, definition in node.component.inputs.items():
            if parameters.get(name) is None:
                parameters[name] = definition.default
        node.inner = Scope(
            node.component.dag, node, node.name + ".", parameters, dict(node.artifacts)
        )
        self._move(self._open, node.inner)

    def _close(self, scope: Scope) -> None:
        state = _combined([node.state for node in scope.nodes.values()])
        outputs = {
            name: found
            for name, selectors in scope.dag.parameters.items()
            if (found := _first(scope, selectors, "outputs")) is not _MISSING
        }
        artifacts = {
            name: found
            for name, selectors in scope.dag.artifacts.items()
            if (found := _first(scope, selectors, "output_artifacts")) is not _MISSING
        }
        if scope.owner is not None:
            self._finish(scope.owner, state, outputs, artifacts, "")
            return
        self.outputs, self.artifacts = outputs, artifacts
        self.done = True

    def _finish(
        self, node: Node, state: TaskState, outputs: dict[str, Value], artifacts: Artifacts,
        error: str,
    ) -> None:  # fmt: skip
        if node.state in FINAL:
            return
        node.state, node.error = state, error
        node.outputs, node.output_artifacts = outputs, artifacts
        self._changed(node)
        if node.loop is not None:
            self._iteration_ended(node.loop)
            return
        for follower in node.followers:
            follower.waiting -= 1
            if follower.waiting == 0:
                self._move(self._ready, follower)
        node.scope.left -= 1
        if node.scope.left == 0:
            self._move(self._close, node.scope)

    # -- loops ------------------------------------------------------------------------------

    def _iterate(self, node: Node, items: list[Any]) -> None:
        iterator = node.spec.iterator
        assert iterator is not None  # noqa: S101
        node.state = "running"
        self._changed(node)
        if not items:
            self._loop_ended(node)
            return
        for index, item in enumerate(items):
            iteration = self._node(f"{node.name}.{index}", node.spec, node.scope, loop=node)
            iteration.parameters, iteration.artifacts = dict(node.parameters), dict(node.artifacts)
            _give(iteration, iterator, item)
            node.iterations.append(iteration)
            self._changed(iteration)
        self._next_iterations(node)

    def _next_iterations(self, node: Node) -> None:
        limit = (node.spec.iterator.limit if node.spec.iterator else 0) or len(node.iterations)
        while node.started < len(node.iterations) and node.started - node.ended < limit:
            iteration = node.iterations[node.started]
            node.started += 1
            if iteration.state == "pending":
                self._move(self._run, iteration)

    def _iteration_ended(self, node: Node) -> None:
        node.ended += 1
        if node.ended < len(node.iterations):
            self._next_iterations(node)
        else:
            self._loop_ended(node)

    def _loop_ended(self, node: Node) -> None:
        """All iterations are over: what each gave, as lists, is what the loop gives."""
        state = _combined([iteration.state for iteration in node.iterations])
        outputs: dict[str, Value] = {
            name: [one.outputs[name] for one in node.iterations if name in one.outputs]
            for name in node.component.outputs
        }
        artifacts: Artifacts = {
            name: tuple(
                artifact
                for one in node.iterations
                for artifact in one.output_artifacts.get(name, ())
            )
            for name in node.component.output_artifacts
        }
        self._finish(node, state, outputs, artifacts, "")


_MISSING: Any = object()


def _first(scope: Scope, selectors: tuple[Selector, ...], which: str) -> Any:
    """The first of the outputs that is there: with several, the branch that was taken."""
    for selector in selectors:
        found = getattr(scope.nodes[selector.task], which)
        if selector.name in found:
            return found[selector.name]
    return _MISSING


def _combined(states: list[TaskState]) -> TaskState:
    if "canceled" in states:
        return "canceled"
    return "failed" if "failed" in states else "succeeded"


def _give(iteration: Node, iterator: Iterator, item: Any) -> None:
    if iterator.artifacts:
        iteration.artifacts[iterator.item] = item
    else:
        iteration.parameters[iterator.item] = item


def _explained(node: Node) -> bool:
    """Whether its failure is only that of tasks inside it."""
    return node.group and not node.error
