"""What a package may say that is not done on this machine: refused by name, or ignored and said.

Each field of KFP's PipelineSpec and of its Kubernetes platform is done, has nothing to do with how
tasks run, or is in one of the two lists here; ``tests/unit/test_constructs.py`` goes through the
fields that the installed protos have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ctflow.errors import ConfigError

#: Refused: (where it stands, why, what to do).
REFUSED = {
    "lifecycle": ("a check before the cache", "leave it out, or use `runner: kubeflow`"),
    "constantValue": ("a constant as KFP 1.x wrote it", "compile the pipeline with KFP 2"),
}
#: Ignored: what stands where, by the last word of its place.
SAID = {
    "defaultPipelineRoot": "the default pipeline root",
    "singlePlatformSpecs": "platform settings of a component",
    "taskConfigPassthroughs": "dsl.TaskConfig",
    "properties": "properties of artifacts",
    "customProperties": "properties of artifacts",
    "activeDeadlineSeconds": "the deadline of the whole pipeline",
    "resourceTtlOnCompletion": "how long the cluster keeps a run",
    "resourceTtlOnSuccess": "how long the cluster keeps a run",
    "resourceTtlOnFailure": "how long the cluster keeps a run",
}


def ignored(documents: list[Any]) -> tuple[str, ...]:
    """What the package says and is not done here, in words.

    Raises:
        ConfigError: something that must not be left out; it is named.
    """
    found: dict[str, None] = {}
    for where, word, value in _places(documents):
        if value in (None, "", [], {}):
            continue
        if word in REFUSED:
            what, mend = REFUSED[word]
            raise ConfigError(
                f"{where} has {word}, {what}, which this runner does not support", next=mend
            )
        found[SAID[word]] = None
    return tuple(found)


def _places(documents: list[Any]) -> Iterator[tuple[str, str, Any]]:
    """(where, the field, its value) of each place that holds such a field."""
    spec = documents[0]
    yield "the pipeline", "defaultPipelineRoot", spec.get("defaultPipelineRoot")
    components = {"root": spec["root"], **(spec.get("components") or {})}
    for name, component in components.items():
        where = f"component {name.removeprefix('comp-')}"
        for word in ("singlePlatformSpecs", "taskConfigPassthroughs"):
            yield where, word, component.get(word)
        outputs = (component.get("outputDefinitions") or {}).get("artifacts") or {}
        for artifact in outputs.values():
            yield where, "properties", artifact.get("properties")
            yield where, "customProperties", artifact.get("customProperties")
            yield where, "properties", artifact.get("metadata")
        for task, one in ((component.get("dag") or {}).get("tasks") or {}).items():
            for source in ((one.get("inputs") or {}).get("parameters") or {}).values():
                yield f"task {task}", *_constant(source.get("runtimeValue"))
    for label, executor in ((spec.get("deploymentSpec") or {}).get("executors") or {}).items():
        where = f"executor {label.removeprefix('exec-')}"
        yield where, "lifecycle", (executor.get("container") or {}).get("lifecycle")
        importer = executor.get("importer") or {}
        yield where, *_constant(importer.get("artifactUri"))
        yield where, "properties", importer.get("properties")
        yield where, "customProperties", importer.get("customProperties")
    for other in documents[1:]:
        kubernetes = ((other or {}).get("platforms") or {}).get("kubernetes") or {}
        for word, value in (kubernetes.get("pipelineConfig") or {}).items():
            if word in SAID:
                yield "the pipeline", word, value


def _constant(value: Mapping[str, Any] | None) -> tuple[str, Any]:
    return "constantValue", (value or {}).get("constantValue")
