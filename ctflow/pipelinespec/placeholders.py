"""KFP's placeholders in commands, arguments, environment values and constants.

All are replaced in one pass over the text of the package, so that a value which happens to look
like a placeholder (a step may have written it) stays what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from ctflow.lib.quick import dataclass
from ctflow.model import Value
from ctflow.pipelinespec.values import text

_PLACEHOLDER = re.compile(r"\{\{\$((?:(?!\}\}).)*)\}\}", re.DOTALL)
_KEYED = re.compile(
    r"""^\.(inputs|outputs)\.(parameters|artifacts)\[(['"])(.+?)\3\]"""
    r"""(?:\.(path|uri|name|output_file|metadata)(?:\[(['"])(.+?)\6\])?)?(?:\.json_escape\[\d\])?$"""
)


@dataclass(frozen=True)
class Context:
    """What placeholders of one task may refer to.

    ``executor_input`` is KFP's ExecutorInput as plain data; ``names`` the run's and task's names by
    placeholder (``pipeline_job_name`` and so on). ``given`` are the inputs that IfPresent sees:
    what the pipeline gave, without the component's defaults (None: all that have a value).
    """

    executor_input: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    given: frozenset[str] | None = None


def has_placeholder(value: str) -> bool:
    """Whether there is anything to replace."""
    return "{{$" in value


def command_line(words: Sequence[str], context: Context) -> list[str]:
    """A command with its placeholders replaced; structured ones give any number of words."""
    line: list[str] = []
    for word in words:
        if word.startswith(('{"IfPresent":', '{"Concat":')):
            try:
                structure = json.loads(word)
            except ValueError:
                structure = word
            found = _structure(structure, context)
            line += found if isinstance(found, list) else [] if found is None else [found]
        else:
            line.append(replace(word, context))
    return line


def _structure(structure: Any, context: Context) -> list[str] | str | None:
    if isinstance(structure, list):
        items = [_structure(item, context) for item in structure]
        return [
            word
            for item in items
            if item is not None
            for word in (item if isinstance(item, list) else [item])
        ]
    if not isinstance(structure, dict):
        return replace(text(structure), context)
    if "Concat" in structure:
        parts = (_structure(part, context) for part in structure["Concat"])
        return "".join(
            "".join(part) if isinstance(part, list) else part for part in parts if part is not None
        )
    if "IfPresent" in structure:
        chosen = structure["IfPresent"]
        branch = "Then" if _present(chosen["InputName"], context) else "Else"
        return None if chosen.get(branch) is None else _structure(chosen[branch], context)
    return replace(json.dumps(structure), context)


def _present(name: str, context: Context) -> bool:
    inputs = context.executor_input.get("inputs", {})
    if inputs.get("parameterValues", {}).get(name) is not None:
        return context.given is None or name in context.given
    return bool(inputs.get("artifacts", {}).get(name, {}).get("artifacts"))


def replace(value: str, context: Context) -> str:
    """A text with its placeholders replaced; what only looks like one stays, as KFP has it."""
    if not has_placeholder(value):
        return value
    return _PLACEHOLDER.sub(lambda match: _one(match, context), value)


def resolve(value: Value, context: Context) -> Value:
    """``replace`` in all strings of a JSON value; a lone placeholder keeps its value's type."""
    if isinstance(value, str):
        match = _PLACEHOLDER.fullmatch(value)
        keyed = _KEYED.match(match[1]) if match else None
        if keyed and (keyed[1], keyed[2]) == ("inputs", "parameters"):
            inputs = context.executor_input.get("inputs", {}).get("parameterValues", {})
            return inputs.get(keyed[4])
        return replace(value, context)
    if isinstance(value, list):
        return [resolve(item, context) for item in value]
    if isinstance(value, dict):
        return {replace(key, context): resolve(item, context) for key, item in value.items()}
    return value


def _one(match: re.Match[str], context: Context) -> str:
    inner = match[1]
    if inner == "":
        return json.dumps(context.executor_input)
    if inner in (".outputs.output_file", ".outputMetadataUri"):
        return str(context.executor_input.get("outputs", {}).get("outputFile", ""))
    if inner.startswith(".") and inner[1:] in context.names:
        return context.names[inner[1:]]
    keyed = _KEYED.match(inner)
    found = None if keyed is None else _keyed(keyed, context)
    return match[0] if found is None else text(found)


def _keyed(match: re.Match[str], context: Context) -> Value:
    """What a placeholder stands for; None: nothing, so that it stays, as Kubeflow's launcher has it
    for an optional input that nothing was given for."""
    side, kind, name = match[1], match[2], match[4]
    what, key = match[5], match[7]
    place = context.executor_input.get(side, {})
    if (side, kind) == ("inputs", "parameters"):
        return place.get("parameterValues", {}).get(name)
    if kind == "parameters":
        return place.get("parameters", {}).get(name, {}).get("outputFile")
    artifacts = place.get("artifacts", {}).get(name, {}).get("artifacts") or []
    if not artifacts:
        return None
    first = artifacts[0]
    if what == "metadata":
        metadata = first.get("metadata") or {}
        return metadata if key is None else metadata.get(key, "")
    if what == "name":
        return first.get("name", "")
    return local_path(first["uri"]) if what == "path" else first["uri"]


#: Where KFP mounts remote stores in a container; a path that a step gets for such a URI.
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}


def local_path(uri: str) -> str:
    """The path of an artifact for a process: KFP's mount of a remote URI, else the path itself."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    if uri.startswith("oci://"):
        return "/oci/" + uri.removeprefix("oci://").replace("/", "_") + "/models"
    return uri
