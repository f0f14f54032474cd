"""A run's parameters against what its package declares."""

from __future__ import annotations

from typing import Any

from tests.kfp_server.errors import invalid
from tests.kfp_server.values import Item

_WORDS = {
    "STRING": "type string, but the input parameter is not of string value type",
    "NUMBER_INTEGER": (
        "type double or integer, but the parameter value is not of number value type"
    ),
    "NUMBER_DOUBLE": (
        "type double or integer, but the parameter value is not of number value type"
    ),
    "BOOLEAN": "type bool, but the input parameter is not of bool value type",
    "LIST": "type list, but the input parameter is not of list value type",
    "STRUCT": "type struct, but the input parameter is not of struct value type",
}


def _fits(value: Any, kind: str) -> bool:
    """A number with a fraction passes for an integer, as it does there."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        "STRING": isinstance(value, str),
        "NUMBER_INTEGER": number,
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(value, bool),
        "LIST": isinstance(value, list),
        "STRUCT": isinstance(value, dict),
    }.get(kind, True)


def pipeline_of(spec: Item) -> Item:
    """The pipeline specification, also where its platform's part is beside it."""
    inner = spec.get("pipeline_spec")
    return inner if isinstance(inner, dict) else spec


def declared(spec: Item) -> Item:
    """The pipeline's parameters by name."""
    root = pipeline_of(spec).get("root", {})
    found: Item = root.get("inputDefinitions", {}).get("parameters", {})
    return found


def check(spec: Item, given: Item) -> None:
    """Refuse parameters that are unknown, missing or of another type."""
    wanted = declared(spec)
    if unknown := sorted(set(given) - set(wanted)):
        raise invalid(f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")
    for name in sorted(wanted, reverse=True):
        definition = wanted[name]
        if name not in given and "defaultValue" not in definition \
                and not definition.get("isOptional"):  # fmt: skip
            raise invalid(
                f"parameter {name} is not optional, yet has neither default value nor user "
                "provided value"
            )
    for name, value in given.items():
        kind = wanted[name].get("parameterType", "")
        if not _fits(value, kind):
            raise invalid(f"input parameter {name} requires {_WORDS[kind]}")


def filled(spec: Item, given: Item) -> Item:
    """The values that a run works with, defaults included."""
    return {
        name: given.get(name, definition.get("defaultValue"))
        for name, definition in declared(spec).items()
        if name in given or "defaultValue" in definition
    }
