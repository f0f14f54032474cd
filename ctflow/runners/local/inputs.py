"""A task's inputs: where they come from, what their types make of them, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ctflow.model import Artifact, Value
from ctflow.pipelinespec import conditions, values
from ctflow.pipelinespec.placeholders import Context, has_placeholder, resolve
from ctflow.pipelinespec.spec import Source
from ctflow.runners.local.nodes import Node

#: What PipelineTaskFinalStatus calls the states on Kubeflow: ML Metadata's words, in which a task
#: whose condition does not hold is canceled. (The SDK's documentation has SUCCEEDED for COMPLETE.)
_FINAL_STATES = {"cached": "CACHED", "failed": "FAILED", "canceled": "CANCELED",
                 "skipped": "CANCELED"}  # fmt: skip
#: gRPC's FAILED_PRECONDITION, which Kubeflow's error codes are taken from.
_FAILED = 9


class InputError(Exception):
    """A task's inputs cannot be had; the text is for people."""


def resolve_inputs(
    node: Node, names: Mapping[str, str], reasons: Callable[[Node], list[str]]
) -> None:
    """Fill in a node's parameters and artifacts from its scope.

    Args:
        node: all that it depends on has ended.
        names: the run's names, for placeholders in constants.
        reasons: why a failed task failed, for an exit task's final status.

    Raises:
        InputError: an input is missing, or of another type.
        ExpressionError: a selector finds nothing.
    """
    found: dict[str, Value] = {}
    for name, source in node.spec.parameters.items():
        value = _parameter(node, source, names, reasons)
        if value is not None and source.selector:
            value = conditions.select(source.selector, value)
        if value is not None:
            found[name] = value
    node.parameters = found
    context = Context({"inputs": {"parameterValues": found}}, names)
    for name, value in found.items():
        if node.spec.parameters[name].kind == "constant" and _placeheld(value):
            found[name] = resolve(value, context)
    for name, value in found.items():
        found[name] = _typed(node, name, value)
    _check_given(node)
    node.artifacts = _artifacts(node)


def names_of(node: Node, names: Mapping[str, str]) -> dict[str, str]:
    """A run's names for placeholders, and the task's own."""
    run = names.get("pipeline_job_uuid", "")
    return {
        **names,
        "pipeline_task_name": node.spec.title,
        "pipeline_task_uuid": f"{run}.{node.name}",
    }


def _check_given(node: Node) -> None:
    """Nothing may be missing but what is optional, and the item of a loop that is not there yet."""
    item = node.spec.iterator.item if node.spec.iterator else None
    for name, definition in node.component.inputs.items():
        if name in node.parameters or definition.optional or definition.has_default:
            continue
        if name != item:
            source = node.spec.parameters.get(name)
            raise InputError(f"input {plain(name)} has no value{_whence(source)}")


def _artifacts(node: Node) -> dict[str, tuple[Artifact, ...]]:
    found = {}
    for name, source in node.spec.artifacts.items():
        artifacts = _artifact(node, source)
        definition = node.component.input_artifacts.get(name)
        if artifacts is not None:
            found[name] = artifacts
        elif definition is None or not definition.optional:
            raise InputError(f"input artifact {plain(name)} is not there{_whence(source)}")
    return found


def _typed(node: Node, name: str, value: Value) -> Value:
    definition = node.component.inputs.get(name)
    if not values.check_finite(value):
        raise InputError(f"input {plain(name)} is {values.text(value)}, which KFP cannot pass on")
    # An untyped loop item is declared a string, whatever it is: its consumer's type decides.
    if definition is None or (node.group and definition.type == values.STRING):
        return value
    try:
        value = values.convert(value, definition.type)
    except values.Mismatch as error:
        raise InputError(f"input {plain(name)}: {error}") from None
    if definition.literals and value not in definition.literals:
        wanted = ", ".join(map(repr, definition.literals))
        raise InputError(f"input {plain(name)}: {value!r} is none of {wanted}")
    return value


def _parameter(
    node: Node, source: Source, names: Mapping[str, str], reasons: Callable[[Node], list[str]]
) -> Value:
    if source.kind == "constant":
        return source.value
    if source.kind == "input":
        return node.scope.parameters.get(source.name)
    producer = node.scope.nodes[source.task]
    if source.kind == "status":
        return _final_status(producer, names, reasons)
    return producer.outputs.get(source.name)


def with_defaults(node: Node) -> dict[str, Value]:
    """A task's parameters, and the component's defaults of those that it was not given."""
    return {
        name: definition.default
        for name, definition in node.component.inputs.items()
        if definition.has_default
    } | node.parameters


def named(node: Node, source: Source) -> Value:
    """What a setting of a task that is ready names by one of its scope's values; None: nothing."""
    if source.kind == "output" and source.task not in node.scope.nodes:
        return None
    return _parameter(node, source, {}, lambda _: [])


def _artifact(node: Node, source: Source) -> tuple[Artifact, ...] | None:
    if source.kind == "input":
        return node.scope.artifacts.get(source.name)
    return node.scope.nodes[source.task].output_artifacts.get(source.name)


def _final_status(
    producer: Node, names: Mapping[str, str], reasons: Callable[[Node], list[str]]
) -> dict[str, Any]:
    """KFP's PipelineTaskFinalStatus of a task that has ended.

    Kubeflow leaves the error empty; here it says what failed.
    """
    status: dict[str, Any] = {
        "state": _FINAL_STATES.get(producer.state, "COMPLETE"),
        "pipelineTaskName": producer.spec.key,
        "pipelineJobResourceName": names.get("pipeline_job_resource_name", ""),
        "error": {},
    }
    if producer.state == "failed":
        status["error"] = {"code": _FAILED, "message": "; ".join(reasons(producer))}
    return status


def holds(node: Node) -> bool:
    """Whether the node's trigger condition holds for its parameters.

    Raises:
        ExpressionError: it cannot be evaluated.
    """
    known = dict(node.parameters)
    for name, definition in node.component.inputs.items():
        if known.get(name) is None and definition.has_default:
            known[name] = definition.default
        elif name in known and definition.type == values.STRING:
            known[name] = values.text(known[name])
    return conditions.condition(node.spec.condition, known)


def loop_items(node: Node, names: Mapping[str, str]) -> list[Any]:
    """What a loop goes over: values, or tuples of one artifact.

    Raises:
        InputError: it is not a list.
    """
    iterator = node.spec.iterator
    if iterator is None:
        return []
    if iterator.artifacts:
        return [(artifact,) for artifact in node.artifacts.get(iterator.input, ())]
    if iterator.items is not None:
        context = Context({"inputs": {"parameterValues": node.parameters}}, names)
        return [values.whole(resolve(item, context)) for item in iterator.items]
    found = node.parameters.get(iterator.input)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    if not isinstance(found, list):
        raise InputError(f"{plain(iterator.input)} is not a list to loop over")
    return found


def _placeheld(value: Value) -> bool:
    if isinstance(value, str):
        return has_placeholder(value)
    if isinstance(value, list):
        return any(map(_placeheld, value))
    return isinstance(value, dict) and any(map(_placeheld, value.values()))


def plain(name: str) -> str:
    """An input's name without the compiler's prefix."""
    return name.removeprefix("pipelinechannel--")


def _whence(source: Source | None) -> str:
    return f" ({source.task} gave no {plain(source.name)})" if source and source.task else ""
