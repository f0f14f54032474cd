"""The control flow on random pipelines, against an evaluator that is as simple as can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow.pipelinespec.spec_reader import parse
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.nodes import Node

#: What a task of the random pipelines does with the sum of its inputs.
FAILS_AT = 7


def leaf(needs: list[str], constant: int, *, always: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        f"from-{need}": {"taskOutputParameter": {"producerTask": need, "outputParameterKey": "sum"}}
        for need in needs
    }
    parameters["constant"] = {"runtimeValue": {"constant": float(constant)}}
    trigger = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"} if always else {}
    return {"inputs": {"parameters": parameters}, "triggerPolicy": trigger}


@st.composite
def dags(draw: st.DrawFn, depth: int = 2) -> list[dict[str, Any]]:
    """Tasks of a DAG, each after those it needs: leaves, conditions and loops."""
    tasks: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 5))):
        kinds = ["leaf", "leaf", "if", "loop"] if depth else ["leaf"]
        kind = draw(st.sampled_from(kinds))
        task: dict[str, Any] = {
            "name": f"t{number}",
            "kind": kind,
            "constant": draw(st.integers(0, 4)),
            "always": kind == "leaf" and draw(st.booleans()),
            "needs": [other["name"] for other in tasks if draw(st.booleans())],
        }
        if kind != "leaf":
            task["inside"] = draw(dags(depth=depth - 1))
            task["limit"] = draw(st.integers(0, 2))
            task["bound"] = draw(st.integers(-1, 5))
        tasks.append(task)
    return tasks


class Package:
    """The PipelineSpec of a random DAG."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.components: dict[str, Any] = {}
        root = {"dag": self.dag(tasks)}
        self.data = {
            "root": root,
            "components": self.components,
            "deploymentSpec": {"executors": {"exec": {"container": {"image": "x"}}}},
        }

    def dag(self, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        return {"tasks": {task["name"]: self.task(task) for task in tasks}}

    def task(self, task: dict[str, Any]) -> dict[str, Any]:
        name = f"comp-{len(self.components)}"
        inputs = {f"from-{need}": {"parameterType": "NUMBER_INTEGER", "isOptional": True}
                  for need in task["needs"]}  # fmt: skip
        inputs["constant"] = {"parameterType": "NUMBER_INTEGER"}
        component: dict[str, Any] = {"inputDefinitions": {"parameters": inputs}}
        self.components[name] = component
        spec = leaf(task["needs"], task["constant"], always=task["always"])
        spec["componentRef"] = {"name": name}
        component["outputDefinitions"] = {
            "parameters": {"sum": {"parameterType": "NUMBER_INTEGER"}}
        }
        if task["kind"] == "leaf":
            component["executorLabel"] = "exec"
            return spec
        component["dag"] = self.dag(task["inside"])
        last = task["inside"][-1]["name"]
        component["dag"]["outputs"] = {"parameters": {"sum": {"valueFromParameter": {
            "producerSubtask": last, "outputParameterKey": "sum"}}}}  # fmt: skip
        if task["kind"] == "if":
            spec["triggerPolicy"] = {
                "condition": f"int(inputs.parameter_values['constant']) > {task['bound']}"
            }
        else:
            inputs["item"] = {"parameterType": "NUMBER_INTEGER"}
            items = list(range(task["constant"]))
            spec["parameterIterator"] = {"itemInput": "item", "items": {"raw": str(items)}}
            spec["iteratorPolicy"] = {"parallelismLimit": task["limit"]}
            # A loop gives a list, which no sum can be made of: it gives nothing on.
            component["outputDefinitions"] = {"parameters": {}}
            del component["dag"]["outputs"]
        return spec


def reference(
    tasks: list[dict[str, Any]], prefix: str = ""
) -> tuple[dict[str, str], Mapping[str, int | None], str]:
    """(state by task, sum by task, the DAG's state): recursion, in order, no queue."""
    states: dict[str, str] = {}
    sums: dict[str, int | None] = {}
    for task in tasks:
        name = task["name"]
        path = prefix + name
        before = [states[prefix + need] for need in task["needs"]]
        sums[name] = None
        if not task["always"] and any(state != "succeeded" for state in before):
            states[path] = "skipped"
            continue
        if task["kind"] == "leaf":
            known = [value for need in task["needs"] if (value := sums[need]) is not None]
            total = sum(known) + task["constant"]
            states[path] = "failed" if total >= FAILS_AT else "succeeded"
            sums[name] = total if total < FAILS_AT else None
        elif task["kind"] == "if":
            if task["constant"] <= task["bound"]:
                states[path] = "skipped"
                continue
            inside, values, state = reference(task["inside"], path + ".")
            states |= inside
            states[path] = state
            sums[name] = values[task["inside"][-1]["name"]]
        else:
            ends = []
            for index in range(task["constant"]):
                inside, _, state = reference(task["inside"], f"{path}.{index}.")
                states |= inside
                states[f"{path}.{index}"] = state
                ends.append(state)
            states[path] = "failed" if "failed" in ends else "succeeded"
    direct = [states[prefix + task["name"]] for task in tasks]
    return states, sums, "failed" if "failed" in direct else "succeeded"


@settings(max_examples=150, deadline=None)
@given(dags(), st.randoms(use_true_random=False))
def test_random_pipelines_end_as_the_reference_says(
    tasks: list[dict[str, Any]], random: Any
) -> None:
    """In whatever order the running tasks end, the states are the same."""
    running: list[Node] = []
    most: dict[Node, int] = {}

    def start(node: Node) -> None:
        running.append(node)

    def changed(node: Node) -> None:
        if node.loop is not None:
            active = sum(one.state == "running" for one in node.loop.iterations)
            most[node.loop] = max(most.get(node.loop, 0), active)

    graph = Graph(parse([Package(tasks).data]), {}, start, changed)
    graph.begin()
    while running:
        node = running.pop(random.randrange(len(running)))
        total = sum(node.parameters.values())
        if total >= FAILS_AT:
            graph.finish(node, "failed", error="too large")
        else:
            graph.finish(node, "succeeded", {"sum": total})
    assert graph.done
    states, _, state = reference(tasks)
    assert {node.name: node.state for node in graph.nodes} == states
    assert bool(graph.failed) is (state == "failed" or "failed" in states.values())
    for loop, active in most.items():
        limit = loop.spec.iterator.limit if loop.spec.iterator else 0
        assert not limit or active <= limit


@settings(max_examples=50, deadline=None)
@given(dags(), st.randoms(use_true_random=False))
def test_canceled_pipelines_come_to_an_end(tasks: list[dict[str, Any]], random: Any) -> None:
    running: list[Node] = []
    graph = Graph(parse([Package(tasks).data]), {}, running.append, lambda node: None)
    graph.begin()
    for _ in range(random.randrange(3)):
        if running:
            node = running.pop()
            graph.finish(node, "succeeded", {"sum": 1})
    over = graph.done
    for node in running:
        graph.finish(node, "canceled")
    graph.cancel()
    assert graph.done
    if not over:
        assert {node.state for node in graph.nodes} & {"canceled"}
    started = len(running)
    assert all(node.state != "running" for node in graph.nodes)
    assert len(running) == started


def test_deep_and_wide_pipelines_do_not_nest_calls() -> None:
    tasks = [
        {"name": f"t{i}", "kind": "leaf", "constant": 0, "always": False,
         "needs": [f"t{i - 1}"] if i else []}
        for i in range(3000)
    ]  # fmt: skip
    graph = Graph(
        parse([Package(tasks).data]),
        {},
        lambda node: graph.finish(node, "succeeded", {"sum": 0}),
        lambda node: None,
    )
    graph.begin()
    assert graph.done
    assert {node.state for node in graph.nodes} == {"succeeded"}
