"""KFP's ExecutorInput message of a task, as plain data (its JSON form)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ctflow.model import Artifact, Value
from ctflow.pipelinespec.spec import Component

OUTPUT_FILE = "executor_output.json"

Artifacts = Mapping[str, tuple[Artifact, ...]]


def build(
    component: Component,
    parameters: Mapping[str, Value],
    artifacts: Artifacts,
    folder: str,
) -> dict[str, Any]:
    """The message for a task whose outputs go below ``folder``.

    Parameters without a value, and optional artifacts that nothing was given for, are left out.
    """
    outputs: dict[str, Any] = {}
    if component.outputs:
        outputs["parameters"] = {
            name: {"outputFile": output_path(folder, name)} for name in component.outputs
        }
    if component.output_artifacts:
        outputs["artifacts"] = {
            name: {
                "artifacts": [
                    {
                        "name": name,
                        "type": {"schemaTitle": kind.type, "schemaVersion": kind.version},
                        "uri": output_path(folder, name),
                        "metadata": {},
                    }
                ]
            }
            for name, kind in component.output_artifacts.items()
        }
    outputs["outputFile"] = str(PurePosixPath(folder, OUTPUT_FILE))
    inputs: dict[str, Any] = {}
    given = {name: value for name, value in parameters.items() if value is not None}
    if given:
        inputs["parameterValues"] = given
    if artifacts:
        inputs["artifacts"] = {
            name: {"artifacts": [_runtime(artifact, component, name) for artifact in found]}
            for name, found in artifacts.items()
        }
    return {"inputs": inputs, "outputs": outputs}


def _runtime(artifact: Artifact, component: Component, name: str) -> dict[str, Any]:
    definition = component.input_artifacts.get(name)
    version = definition.version if definition else "0.0.1"
    return {
        "name": artifact.name,
        "type": {"schemaTitle": artifact.type, "schemaVersion": version},
        "uri": artifact.uri,
        "metadata": dict(artifact.metadata),
    }


def output_path(folder: str, name: str) -> str:
    """Where an output of that name goes; the name is the package's own, so it is made harmless."""
    safe = name.replace("/", "_").replace("\0", "_")
    return str(PurePosixPath(folder, "_" + safe if safe in (".", "..", OUTPUT_FILE) else safe))
