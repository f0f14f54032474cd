"""Parameters as KFP can take them over JSON."""

from __future__ import annotations

from collections.abc import Mapping

from ctflow.errors import ConfigError
from ctflow.model import Value

#: KFP keeps numbers as doubles: larger integers would be rounded without a word.
_EXACT = 2**53


def check_exact(parameters: Mapping[str, Value]) -> None:
    """Raise ConfigError for integers that KFP would round, also within lists and dicts."""
    for name, value in parameters.items():
        if (found := _rounded(value)) is not None:
            raise ConfigError(
                f"parameter {name}: {found} is beyond 2^53, and Kubeflow Pipelines would round it",
                next="declare it as a string",
            )


def _rounded(value: Value) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) > _EXACT else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for found in map(_rounded, parts) if found is not None), None)


def to_send(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """What goes into the request: a parameter without a value is left out."""
    return {name: value for name, value in parameters.items() if value is not None}
