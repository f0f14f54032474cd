"""Reads compiled packages, and keeps a JSON form beside each, for parsing YAML is slow."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError
from ctflow.lib.digests import digest_bytes
from ctflow.pipelinespec.spec import Pipeline
from ctflow.pipelinespec.spec_reader import parse


def load(path: Path) -> tuple[Pipeline, str]:
    """(the pipeline, the package's digest).

    Raises:
        ConfigError: it cannot be read, or is no compiled pipeline.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the package {path}: {error.strerror}", next="run `ctflow compile`"
        ) from None
    digest = digest_bytes(data)
    return parse(_documents(path, data, digest), path.name), digest


def load_documents(path: Path) -> list[Any]:
    """The package's documents as plain data: the pipeline's, and the platforms' if there is one.

    Raises ConfigError as ``load`` does.
    """
    _, digest = load(path)
    return _documents(path, path.read_bytes(), digest)


def _documents(path: Path, data: bytes, digest: str) -> list[Any]:
    beside = path.with_name(path.name + ".json")
    with suppress(OSError, ValueError):
        kept = json.loads(beside.read_bytes())
        if isinstance(kept, dict) and kept.get("digest") == digest:
            documents: list[Any] = kept["documents"]
            return documents
    if data.lstrip().startswith(b"{"):
        return [_json(path, data)]
    documents = _yaml(path, data)
    with suppress(OSError, ValueError, TypeError):
        temporary = beside.with_name(f"{beside.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"digest": digest, "documents": documents}))
        temporary.replace(beside)
    return documents


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None


def _yaml(path: Path, data: bytes) -> list[Any]:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return list(yaml.load_all(data, Loader=loader))  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
