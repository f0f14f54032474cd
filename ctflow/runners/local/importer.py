"""Importers: an artifact that is already somewhere, by its URI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import StateError
from ctflow.lib.digests import digest_path
from ctflow.model import Artifact
from ctflow.pipelinespec.placeholders import Context, local_path, resolve
from ctflow.pipelinespec.values import text
from ctflow.runners.local.inputs import with_defaults
from ctflow.runners.local.nodes import Node
from ctflow.runners.local.outputs import OutputError


def run_importer(
    node: Node, names: Mapping[str, str]
) -> tuple[dict[str, tuple[Artifact, ...]], str]:
    """An importer task's output artifacts, or none and what is wrong."""
    try:
        return dict.fromkeys(node.component.output_artifacts, (_imported(node, names),)), ""
    except OutputError as error:
        return {}, str(error)


def _imported(node: Node, names: Mapping[str, str]) -> Artifact:
    """The artifact of an importer task; one that lies on this machine is hashed.

    Raises:
        OutputError: it has no URI, or names a path that is not there.
    """
    importer = node.component.importer
    assert importer is not None  # noqa: S101 (the caller asked)
    parameters = with_defaults(node)
    context = Context({"inputs": {"parameterValues": parameters}}, names)
    source = importer.uri
    uri = parameters.get(source.name) if source.kind == "input" else source.value
    uri = text(resolve(uri, context) if source.kind == "constant" else uri)
    if not uri:
        raise OutputError("the importer has no URI")
    metadata = resolve(dict(importer.metadata), context)
    digest, size = "", 0
    if importer.download and "://" in uri and not uri.startswith("file://"):
        raise OutputError(
            f"{uri} is not downloaded to the workspace on this machine; import a path of it"
        )
    if "://" not in uri or uri.startswith("file://"):
        path = Path(local_path(uri))
        try:
            digest, size = digest_path(path)
        except (OSError, StateError) as error:
            raise OutputError(f"cannot import {uri}: {error}") from None
    return Artifact("artifact", importer.type, uri, digest, size, metadata)
