"""A run's parameters and metrics."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctflow.components import COMMIT, PACKAGE
from ctflow.errors import ConfigError
from ctflow.model import Task, Value
from ctflow.pipelinespec import values
from ctflow.pipelinespec.spec import Component
from ctflow.ports import RunRequest

#: KFP's type of an artifact that holds scalar metrics.
METRICS = "system.Metrics"
#: Metrics files larger than this are not read as metrics.
METRICS_LIMIT = 8 << 20


def check_parameters(root: Component, given: Mapping[str, Value]) -> dict[str, Value]:
    """The pipeline's parameters with defaults, as their types want them.

    Strings are read as the parameter's type where it is not a string's, so that what was written on
    a command line fits.

    Raises:
        ConfigError: an unknown parameter, a missing one, or a value of another type.
    """
    for name in given:
        if name not in root.inputs:
            raise ConfigError(
                f"the pipeline has no parameter {name!r}",
                next=nearest(name, list(root.inputs), "a parameter"),
            )
    found: dict[str, Value] = {}
    for name, definition in root.inputs.items():
        if name not in given:
            if not (definition.optional or definition.has_default):
                raise ConfigError(
                    f"parameter {name} has no value and no default",
                    next=f"give it with `--param {name}=...` or in ctflow.yaml",
                )
            found[name] = definition.default
            continue
        value = given[name]
        try:
            if isinstance(value, str):
                found[name] = values.parse_flag(value, definition.type)
            else:
                found[name] = values.convert(value, definition.type)
        except values.Mismatch as error:
            raise ConfigError(f"parameter {name}: {error}") from None
        if not values.check_finite(found[name]):
            raise ConfigError(f"parameter {name} is {values.text(value)}, which KFP cannot pass on")
    needed = [name for name, one in root.input_artifacts.items() if not one.optional]
    if needed:
        names = ", ".join(needed)
        raise ConfigError(
            f"the pipeline takes artifacts ({names}), which a run cannot pass to it",
            next="read them with dsl.importer",
        )
    return found


def parameters_of(root: Component, request: RunRequest) -> dict[str, Value]:
    """The parameters of a run; raises ConfigError as ``check_parameters`` does."""
    commit = request.commit.sha if request.commit else ""
    given = with_provenance(root, request.parameters, commit, request.package.digest)
    return check_parameters(root, given)


def with_provenance(
    root: Component, given: Mapping[str, Value], commit: str, package: str
) -> dict[str, Value]:
    """The parameters, with those of ctflow's that the pipeline has and nobody gave.

    Args:
        commit, package: the commit's id and the package's digest; empty where there is none.
    """
    own = {COMMIT: commit, PACKAGE: package}
    return {name: one for name, one in own.items() if name in root.inputs and one} | dict(given)


def nearest(name: str, names: Sequence[str], what: str) -> str:
    """What to say to someone who wrote ``name``: the nearest of ``names``, or all of them."""
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{what} is one of {', '.join(names)}" if names else "it has none"


def metrics_of(tasks: Mapping[str, Task]) -> dict[str, float]:
    """The scalars of all Metrics artifacts: by ``task.key``, and by the key where it is unique."""
    full: dict[str, float] = {}
    short: dict[str, list[float]] = {}
    for task in tasks.values():
        if task.group:
            continue
        for some in task.artifacts.values():
            for artifact in some:
                if artifact.type != METRICS:
                    continue
                for key, value in artifact.metadata.items():
                    if isinstance(value, (int, float)) and not isinstance(value, bool):
                        full[f"{task.name}.{key}"] = float(value)
                        short.setdefault(key, []).append(float(value))
    return {key: found[0] for key, found in short.items() if len(found) == 1} | full


def metrics_file(path: Path, size: int) -> dict[str, Value]:
    """The scalars of a metrics file that is a JSON object; of any other file, nothing."""
    if size > METRICS_LIMIT or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(key): value
        for key, value in found.items()
        if isinstance(value, (int, float, str, bool))
    }
