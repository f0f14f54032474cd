"""What a task left: its output parameters and artifacts, hashed, or the reason they are no good."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctflow.errors import StateError
from ctflow.lib.digests import digest_path
from ctflow.model import Artifact, Value
from ctflow.pipelinespec import values
from ctflow.pipelinespec.parameters import METRICS, metrics_file
from ctflow.pipelinespec.placeholders import local_path
from ctflow.pipelinespec.spec import Component

#: Output parameters and executor_output.json larger than this are a mistake, not a parameter.
PARAMETER_LIMIT = 64 << 20


Artifacts = dict[str, tuple[Artifact, ...]]


class OutputError(Exception):
    """A task's outputs are missing or wrong; the text is for people."""


def collect(
    component: Component, message: Mapping[str, Any], shared: Path | None = None
) -> tuple[dict[str, Value], dict[str, tuple[Artifact, ...]]]:
    """The outputs of a finished task.

    Args:
        component: the task's component.
        message: its ExecutorInput.
        shared: the only folder that the task shares with this machine; None: it ran here.

    Raises:
        OutputError: a parameter is missing or of another type, or an output cannot be read.
    """
    outputs = message["outputs"]
    written = _executor_output(Path(outputs["outputFile"]))
    parameters: dict[str, Value] = {}
    given = written.get("parameterValues") or {}
    for name, definition in component.outputs.items():
        if name in given:
            parameters[name] = _convert(name, given[name], definition.type)
        else:
            file = Path(outputs["parameters"][name]["outputFile"])
            parameters[name] = _parameter_file(name, file, definition.type)
    artifacts = {
        name: _artifacts(name, outputs["artifacts"][name], (written.get("artifacts") or {}), shared)
        for name in component.output_artifacts
    }
    return parameters, artifacts


def _executor_output(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > PARAMETER_LIMIT:
            raise OutputError(f"{file.name} is larger than {PARAMETER_LIMIT >> 20} MB")
        found = values.strict_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {file.name}: {error}") from None
    if not isinstance(found, dict):
        raise OutputError(f"{file.name} is not a JSON object")
    return found


def _convert(name: str, value: Value, kind: str) -> Value:
    try:
        return values.convert(value, kind)
    except values.Mismatch as error:
        raise OutputError(f"output parameter {name}: {error}") from None


def _parameter_file(name: str, file: Path, kind: str) -> Value:
    try:
        if file.stat().st_size > PARAMETER_LIMIT:
            raise OutputError(
                f"output parameter {name} is larger than {PARAMETER_LIMIT >> 20} MB; "
                "write an artifact"
            )
        return values.read_file(file.read_bytes().decode(), kind)
    except FileNotFoundError:
        raise OutputError(f"it did not write output parameter {name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read output parameter {name}: {error}") from None
    except values.Mismatch as error:
        raise OutputError(f"output parameter {name}: {error}") from None


def _artifacts(
    name: str, expected: Mapping[str, Any], written: Mapping[str, Any], shared: Path | None
) -> tuple[Artifact, ...]:
    first = expected["artifacts"][0]
    said = (written.get(name) or {}).get("artifacts")
    if said is None:
        return (_artifact(name, first, {}, shared),)
    return tuple(_artifact(name, first, one, shared) for one in said)


def unwritten(artifacts: Artifacts) -> list[str]:
    """Names of the output artifacts to which nothing was written, neither content nor metadata.

    The task has succeeded all the same, as Kubeflow's launcher sees it.
    """
    return [
        name
        for name, found in artifacts.items()
        if any(not (one.digest or one.metadata or "://" in one.uri) for one in found)
    ]


def _artifact(
    name: str, expected: Mapping[str, Any], said: Mapping[str, Any], shared: Path | None
) -> Artifact:
    uri = str(said.get("uri") or expected["uri"])
    if uri.startswith("file://"):
        uri = local_path(uri)  # KFP takes any URI that it does not know for a path
    kind = expected["type"]["schemaTitle"]
    metadata = dict(said.get("metadata") or {})
    digest, size = "", 0
    try:
        if custom := said.get("custom_path"):
            uri = expected["uri"]
            digest, size = _bring(name, Path(str(custom)), Path(uri), shared)
            path = Path(uri)
        else:
            path = Path(local_path(uri))
            digest, size = digest_path(path)
    except FileNotFoundError:
        pass
    except (OSError, StateError) as error:
        raise OutputError(f"cannot read output artifact {name}: {error}") from None
    if kind == METRICS and digest and not metadata:
        metadata = metrics_file(path, size)
    shown = str(said.get("name") or name)
    return Artifact(shown, kind, uri, digest, size, metadata)


def _bring(name: str, source: Path, place: Path, shared: Path | None) -> tuple[str, int]:
    """Copy what a task wrote to a path of its own to the artifact's place, as KFP uploads it.

    From there it is found by those who read it, kept with the run, and removed with it.
    """
    if not source.is_absolute():
        raise OutputError(f"output artifact {name} has the path {str(source)!r}: not absolute")
    if shared is not None and not source.resolve().is_relative_to(shared.resolve()):
        raise OutputError(
            f"output artifact {name} lies at {source} in the container, which is gone; write it to"
            " the artifact's own path"
        )
    if source.exists() and source.resolve() == place.resolve():
        return digest_path(place)
    found = digest_path(source)  # which refuses links that lead out of it
    if place.is_dir():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)
    return found


def fingerprint(path: str) -> str:
    """What changes when a file or folder is written to: sizes, times and inodes of its files.

    Empty when it is not there, or not a path of this machine.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 (on the way of each cached task)
    except (OSError, ValueError):
        return ""
    if not os.path.isdir(path):  # noqa: PTH112 (on the way of each cached task)
        return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"
    sha = hashlib.sha256()
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            place = os.path.join(folder, name)  # noqa: PTH118
            inside = os.lstat(place)
            sha.update(
                f"{place}\0{inside.st_size}:{inside.st_mtime_ns}:{inside.st_ino}\n".encode(
                    errors="surrogateescape"
                )
            )
    return sha.hexdigest()[:32]
