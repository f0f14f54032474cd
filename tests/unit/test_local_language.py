"""All of the control flow together, on random pipelines, against a recursive evaluator.

Nested pipelines with optional inputs, loops over constants, parameters and collected outputs,
conditions on loop items and outputs, OneOf, exit tasks, ignored failures, inputs passed down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow.pipelinespec.spec_reader import parse
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.inputs import with_defaults
from ctflow.runners.local.nodes import Node

#: How the final status of a task counts in the sum of its exit task.
STATUS = {"COMPLETE": 1, "FAILED": 2, "CANCELED": 3}
COMPARE = {"==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, ">=": int.__ge__}


@dataclass(frozen=True)
class Ref:
    """A value: ``("constant", 3)``, ``("input", "item")`` of the scope, ``("task", "t0")``."""

    where: str
    what: Any
    kind: str = "int"

    def spec(self) -> dict[str, Any]:
        """As a task's input."""
        if self.where == "constant":
            return {"runtimeValue": {"constant": self.what}}
        if self.where == "input":
            return {"componentInputParameter": self.what}
        return {"taskOutputParameter": {"producerTask": self.what, "outputParameterKey": "sum"}}


@dataclass
class Task:
    """A leaf, which sums its inputs, or a group of tasks; ``gives`` names the one it outputs."""

    name: str
    kind: str
    inputs: dict[str, Ref] = field(default_factory=dict)
    #: Inputs that may be missing, and their defaults (None: none).
    optional: dict[str, int | None] = field(default_factory=dict)
    constant: int = 0
    always: bool = False
    after: list[str] = field(default_factory=list)
    body: list[Task] = field(default_factory=list)
    gives: str = ""
    out: str = "int"
    condition: tuple[str, int] | None = None
    items: list[int] | None = None
    limit: int = 0
    status: str = ""

    @property
    def needs(self) -> set[str]:
        """The tasks beside it that it comes after."""
        found = {ref.what for ref in self.inputs.values() if ref.where == "task"}
        return found | set(self.after) | ({self.status} if self.status else set())


def scope(chance: Random, inputs: list[Ref], depth: int) -> list[Task]:
    """The tasks of one DAG, whose own inputs are ``inputs``; each may use those before it."""
    tasks: list[Task] = []
    kinds = ["leaf", "leaf", "if", "loop", "pipeline", "one-of", "exit"] if depth else ["leaf"]
    for number in range(chance.randint(1, 2 + depth)):
        known = [*inputs, *(Ref("task", one.name, one.out) for one in tasks)]
        kind = chance.choice(kinds)
        name = f"t{number}"
        if kind == "leaf":
            task = leaf(chance, name, known)
        else:
            task = group(chance, name, kind, known, depth)
        task.after = [one.name for one in tasks if chance.random() < 0.15]
        tasks.append(task)
        if kind == "exit":
            last = leaf(chance, f"x{number}", known)
            last.always, last.status = True, task.name
            tasks.append(last)
    return tasks


def leaf(chance: Random, name: str, known: list[Ref]) -> Task:
    task = Task(name, "leaf", constant=chance.randint(0, 3))
    for number in range(chance.randint(0, 2) if known else 0):
        task.inputs[f"i{number}"] = chance.choice(known)
        if chance.random() < 0.5:
            task.optional[f"i{number}"] = None
    if chance.random() < 0.5:  # one that nothing is given for
        task.optional["unset"] = chance.choice([None, 2])
    task.always = chance.random() < 0.25
    return task


def group(chance: Random, name: str, kind: str, known: list[Ref], depth: int) -> Task:
    task = Task(name, kind)
    for number in range(chance.randint(0, 2) if known else 0):
        task.inputs[f"g{number}"] = chance.choice(known)
    inside = [Ref("input", key, ref.kind) for key, ref in task.inputs.items()]
    numbers = [ref for ref in known if ref.kind == "int"] or [Ref("constant", 2)]
    if kind in ("if", "one-of"):
        task.inputs["v"] = chance.choice(numbers)
        inside.append(Ref("input", "v"))
        task.condition = (chance.choice(sorted(COMPARE)), chance.randint(0, 4))
    if kind == "loop":
        lists = [ref for ref in known if ref.kind == "flat"]
        if lists and chance.random() < 0.7:
            task.inputs["items"] = chance.choice(lists)
        else:
            task.items = [chance.randint(0, 4) for _ in range(chance.randint(0, 3))]
        task.limit = chance.randint(0, 2)
        inside.append(Ref("input", "item"))
    if kind == "pipeline":
        task.optional["x"] = chance.choice([None, 1, 3])
        if chance.random() < 0.5:
            task.inputs["x"] = chance.choice([*numbers, Ref("constant", 4)])
        inside.append(Ref("input", "x"))
    if kind == "one-of":
        branches(chance, task, inside, depth)
        return task
    task.body = scope(chance, inside, depth - 1)
    last = chance.choice(task.body)
    task.gives = last.name
    task.out = {"int": "flat"}.get(last.out, "deep") if kind == "loop" else last.out
    return task


def branches(chance: Random, task: Task, inside: list[Ref], depth: int) -> None:
    """Two conditions of which one holds, as dsl.If and dsl.Else make them."""
    assert task.condition is not None
    operator, bound = task.condition
    opposite = {"==": "!=", "!=": "==", "<": ">=", ">=": "<"}[operator]
    for name, word in (("yes", operator), ("no", opposite)):
        branch = Task(name, "if", condition=(word, bound))
        branch.inputs = {ref.what: ref for ref in inside}
        branch.body = scope(chance, inside, depth - 1)
        branch.body.append(leaf(chance, "last", inside))
        branch.gives = "last"
        task.body.append(branch)
    task.condition, task.gives = None, "yes no"


class Package:
    """The PipelineSpec of a random pipeline."""

    def __init__(self, tasks: list[Task]) -> None:
        self.components: dict[str, Any] = {}
        self.data = {
            "root": {
                "dag": self.dag(tasks),
                "inputDefinitions": {"parameters": {"p": {"parameterType": "NUMBER_INTEGER"}}},
            },
            "components": self.components,
            "deploymentSpec": {"executors": {"exec": {"container": {"image": "x"}}}},
        }

    def dag(self, tasks: list[Task]) -> dict[str, Any]:
        return {"tasks": {task.name: self.task(task) for task in tasks}}

    def task(self, task: Task) -> dict[str, Any]:
        name = f"comp-{len(self.components)}"
        self.components[name] = {}  # taken, before what is inside takes one
        self.components[name] = component = self.component(task)
        spec: dict[str, Any] = {
            "componentRef": {"name": name},
            "dependentTasks": sorted(task.needs),
            "inputs": {"parameters": {key: ref.spec() for key, ref in task.inputs.items()}},
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"} if task.always else {},
        }
        if task.kind == "leaf":
            spec["inputs"]["parameters"]["constant"] = Ref("constant", task.constant).spec()
        if task.status:
            status = {"taskFinalStatus": {"producerTask": task.status}}
            spec["inputs"]["parameters"]["status"] = status
        if task.condition is not None:
            operator, bound = task.condition
            spec["triggerPolicy"]["condition"] = (
                f"int(inputs.parameter_values['v']) {operator} {bound}"
            )
        if task.kind == "loop":
            items = {"inputParameter": "items"} if task.items is None else {"raw": str(task.items)}
            spec["parameterIterator"] = {"itemInput": "item", "items": items}
            spec["iteratorPolicy"] = {"parallelismLimit": task.limit}
            component["inputDefinitions"]["parameters"]["item"] = {
                "parameterType": "NUMBER_INTEGER"
            }
        return spec

    def component(self, task: Task) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            key: {"parameterType": "NUMBER_INTEGER" if ref.kind == "int" else "LIST"}
            for key, ref in task.inputs.items()
        }
        for key, default in task.optional.items():
            one = inputs.setdefault(key, {"parameterType": "NUMBER_INTEGER"})
            one["isOptional"] = True
            if default is not None:
                one["defaultValue"] = default
        kind = "NUMBER_INTEGER" if task.out == "int" else "LIST"
        found: dict[str, Any] = {
            "inputDefinitions": {"parameters": inputs},
            "outputDefinitions": {"parameters": {"sum": {"parameterType": kind}}},
        }
        if task.kind == "leaf":
            inputs["constant"] = {"parameterType": "NUMBER_INTEGER"}
            if task.status:
                inputs["status"] = {"parameterType": "TASK_FINAL_STATUS", "isOptional": True}
            return {**found, "executorLabel": "exec"}
        chosen = [{"producerSubtask": name, "outputParameterKey": "sum"}
                  for name in task.gives.split()]  # fmt: skip
        output = (
            {"valueFromOneof": {"parameterSelectors": chosen}}
            if task.kind == "one-of"
            else {"valueFromParameter": chosen[0]}
        )
        return {**found, "dag": {**self.dag(task.body), "outputs": {"parameters": {"sum": output}}}}


def flat(value: Any) -> int:
    """The sum of a value, whatever lists it is in."""
    return sum(map(flat, value)) if isinstance(value, list) else int(value)


def leaf_ends(total: int) -> tuple[str, int | None]:
    """What a leaf does with its sum: some fail."""
    return ("failed", None) if total % 7 == 6 else ("succeeded", total)


class Reference:
    """Evaluates a pipeline in order; ``states`` are by path."""

    def __init__(self, tasks: list[Task], p: int) -> None:
        self.states: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.state = self.scope(tasks, {"p": p}, "")

    def scope(self, tasks: list[Task], inputs: Mapping[str, Any], prefix: str) -> str:
        for task in tasks:
            self.states[prefix + task.name] = self.task(task, inputs, prefix)
        ends = [self.states[prefix + task.name] for task in tasks]
        return "failed" if "failed" in ends else "succeeded"

    def task(self, task: Task, inputs: Mapping[str, Any], prefix: str) -> str:
        before = {self.states[prefix + need] for need in task.needs}
        if before - {"succeeded"} and not task.always:
            return "skipped"
        given: dict[str, Any] = dict(task.optional)
        for key, ref in task.inputs.items():
            value = self.value(ref, inputs, prefix)
            if value is not None:
                given[key] = value
            elif key not in task.optional:
                return "failed"
        path = prefix + task.name
        if task.kind == "leaf":
            total = task.constant + sum(flat(one) for one in given.values() if one is not None)
            if task.status:
                total += STATUS[
                    {"succeeded": "COMPLETE", "failed": "FAILED", "skipped": "CANCELED"}[
                        self.states[prefix + task.status]
                    ]
                ]
            state, self.values[path] = leaf_ends(total)
            return state
        if task.condition is not None:
            operator, bound = task.condition
            if not COMPARE[operator](given["v"], bound):
                return "skipped"
        if task.kind == "loop":
            return self.loop(task, given, path)
        state = self.scope(task.body, given, path + ".")
        found = [self.values.get(f"{path}.{name}") for name in task.gives.split()]
        self.values[path] = next((one for one in found if one is not None), None)
        return state

    def loop(self, task: Task, given: Mapping[str, Any], path: str) -> str:
        items = given["items"] if task.items is None else task.items
        ends, collected = [], []
        for index, item in enumerate(items):
            inner = f"{path}.{index}"
            self.states[inner] = self.scope(task.body, {**given, "item": item}, inner + ".")
            ends.append(self.states[inner])
            value = self.values.get(f"{inner}.{task.gives}")
            if value is not None:
                collected.append(value)
        self.values[path] = collected
        return "failed" if "failed" in ends else "succeeded"

    def value(self, ref: Ref, inputs: Mapping[str, Any], prefix: str) -> Any:
        if ref.where == "constant":
            return ref.what
        return inputs.get(ref.what) if ref.where == "input" else self.values.get(prefix + ref.what)


def play(tasks: list[Task], p: int, chance: Random) -> Graph:
    """Run a pipeline's graph, its leaves ending in a random order."""
    running: list[Node] = []
    active: dict[Node, int] = {}

    def changed(node: Node) -> None:
        if node.loop is not None:
            active[node.loop] = sum(one.state == "running" for one in node.loop.iterations)
            limit = node.loop.spec.iterator.limit if node.loop.spec.iterator else 0
            assert not limit or active[node.loop] <= limit

    graph = Graph(parse([Package(tasks).data]), {"p": p}, running.append, changed)
    graph.begin()
    while running:
        node = running.pop(chance.randrange(len(running)))
        given = with_defaults(node)
        status = given.pop("status", None)
        total = sum(flat(value) for value in given.values() if value is not None)
        if status is not None:
            total += STATUS[status["state"]]
        state, value = leaf_ends(total)
        if state == "failed":
            graph.finish(node, "failed", error="its sum")
        else:
            graph.finish(node, "succeeded", {"sum": value})
    assert graph.done
    return graph


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_pipelines_give_what_the_reference_gives(seed: int) -> None:
    chance = Random(seed)
    p = chance.randint(0, 5)
    tasks = scope(chance, [Ref("input", "p")], 2)
    graph = play(tasks, p, chance)
    reference = Reference(tasks, p)
    assert {node.name: node.state for node in graph.nodes} == reference.states
    assert bool(graph.failed) is ("failed" in reference.states.values())
    given = {node.name: node.outputs.get("sum") for node in graph.nodes if node.loop is None}
    # A group that fails may still have given something, which nobody reads.
    ended = {name for name, state in reference.states.items() if state == "succeeded"}
    wanted = {name: reference.values.get(name) for name in ended & given.keys()}
    assert {name: given[name] for name in wanted} == wanted


def _all(tasks: list[Task], depth: int = 0) -> list[tuple[Task, int]]:
    found = []
    for task in tasks:
        found += [(task, depth), *_all(task.body, depth + 1)]
    return found


def test_the_random_pipelines_have_every_construct_in_every_state() -> None:
    """What the generator makes is counted, so that none of the above is only claimed."""
    seen: set[str] = set()

    for seed in range(400):
        chance = Random(seed)
        p = chance.randint(0, 5)
        tasks = scope(chance, [Ref("input", "p")], 2)
        states = Reference(tasks, p).states
        for path, state in states.items():
            task = _at(tasks, path)
            if task is None:
                continue
            seen.add(f"{task.kind} {state}")
            seen.update(_words(task, state))
        for task, depth in _all(tasks):
            if task.kind == "loop" and any(one.kind == "loop" for one, _ in _all(task.body)):
                seen.add("loop in loop")
            if depth and task.kind == "pipeline":
                seen.add("pipeline inside")

    assert {f"{kind} {state}" for kind in ("leaf", "if", "loop", "pipeline", "exit", "one-of")
            for state in ("succeeded", "failed", "skipped")} <= seen  # fmt: skip
    assert seen >= {
        "exit task after failed", "exit task after succeeded", "ignored failure", "limited loop",
        "condition on an item", "condition on an output", "loop over an output", "loop in loop",
        "pipeline inside", "default taken", "optional given", "list of lists",
    }  # fmt: skip


def _at(tasks: list[Task], path: str) -> Task | None:
    """The task at a path; None: an iteration of a loop."""
    name, _, rest = path.partition(".")
    task = next(one for one in tasks if one.name == name)
    if not rest:
        return task
    if task.kind == "loop":
        _, _, rest = rest.partition(".")
    return _at(task.body, rest) if rest else None


def _words(task: Task, state: str) -> set[str]:
    found = set()
    ran = state in ("succeeded", "failed")
    if task.status and ran:
        found.add("exit task after " + ("failed" if state == "failed" else "succeeded"))
    if task.always and not task.status and ran and task.needs:
        found.add("ignored failure")
    if task.kind == "loop" and ran:
        found |= {"limited loop"} if task.limit else set()
        found |= {"loop over an output"} if task.items is None else set()
        found |= {"list of lists"} if task.out == "deep" else set()
    if task.condition and task.inputs["v"].where == "task":
        found.add("condition on an output")
    if task.condition and task.inputs["v"].what == "item":
        found.add("condition on an item")
    if task.kind == "pipeline" and ran:
        found.add("optional given" if "x" in task.inputs else "default taken")
    return found
