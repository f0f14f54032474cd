"""Reads KFP's PipelineSpec (plain data, as its YAML or JSON has it) into ``spec``'s dataclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ctflow.errors import ConfigError
from ctflow.pipelinespec import values
from ctflow.pipelinespec.constructs import ignored
from ctflow.pipelinespec.placeholders import has_placeholder
from ctflow.pipelinespec.spec import (
    ArtifactDef,
    Component,
    Container,
    Dag,
    Importer,
    Iterator,
    Parameter,
    Pipeline,
    Retry,
    Selector,
    Source,
    TaskSpec,
)

ALL_COMPLETED = "ALL_UPSTREAM_TASKS_COMPLETED"


def parse(documents: list[Any], where: str = "the package") -> Pipeline:
    """Read the package's YAML documents: the PipelineSpec, and KFP's platform spec if there is one.

    Raises:
        ConfigError: not a PipelineSpec, or one with a construct that cannot run here.
    """
    spec = documents[0] if documents else None
    if not isinstance(spec, dict) or "root" not in spec:
        raise ConfigError(
            f"{where} is not a compiled KFP pipeline", next="compile it with `ctflow compile`"
        )
    platform: dict[str, Any] = {}
    for other in documents[1:]:
        kubernetes = ((other or {}).get("platforms") or {}).get("kubernetes") or {}
        platform = (kubernetes.get("deploymentSpec") or {}).get("executors") or {}
    try:
        executors = (spec.get("deploymentSpec") or {}).get("executors") or {}
        components = {
            name: _component(name, data, executors, platform)
            for name, data in (spec.get("components") or {}).items()
        }
        root = _component("root", spec["root"], executors, platform)
        name = str((spec.get("pipelineInfo") or {}).get("name", "pipeline"))
        left_out = ignored(documents)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where} is not a PipelineSpec that ctflow can read: {error!r}"
        ) from None
    _known(components, root, where)
    return Pipeline(name, root, components, str(spec.get("sdkVersion", "")), left_out)


def _known(components: Mapping[str, Component], root: Component, where: str) -> None:
    for component in (root, *components.values()):
        for task in component.dag.tasks.values() if component.dag else ():
            if task.component not in components:
                raise ConfigError(f"{where}: task {task.key} names no component of the package")
            for need in task.needs:
                if component.dag and need not in component.dag.tasks:
                    raise ConfigError(f"{where}: task {task.key} depends on no task {need!r}")
    _finite(components, root, where)


def _finite(components: Mapping[str, Component], root: Component, where: str) -> None:
    """See that no component contains itself: it would be opened for ever."""
    ended: set[str] = set()
    inside: dict[str, list[str]] = {root.name: _parts(root)}
    while inside:
        name = next(reversed(inside))
        if not inside[name]:
            del inside[name]
            ended.add(name)
            continue
        part = inside[name].pop()
        if part in inside:
            raise ConfigError(f"{where}: component {part} contains itself")
        if part not in ended:
            inside[part] = _parts(components[part])


def _parts(component: Component) -> list[str]:
    return [task.component for task in component.dag.tasks.values()] if component.dag else []


def _component(
    name: str, data: Mapping[str, Any], executors: Mapping[str, Any], platform: Mapping[str, Any]
) -> Component:
    inputs = data.get("inputDefinitions") or {}
    outputs = data.get("outputDefinitions") or {}
    dag = container = importer = None
    label = data.get("executorLabel")
    if "dag" in data:
        dag = _dag(data["dag"])
    elif label is not None:
        executor = executors[label]
        if "container" in executor:
            container = _container(executor["container"])
        elif "importer" in executor:
            importer = _importer(executor["importer"])
        else:
            kind = ", ".join(executor) or "nothing"
            raise ConfigError(
                f"component {name} runs {kind}, which only Kubeflow can",
                next="make it a container or Python component, or use `runner: kubeflow`",
            )
    return Component(
        name,
        _parameters(inputs),
        _artifacts(inputs),
        _parameters(outputs),
        _artifacts(outputs),
        dag,
        container,
        importer,
        platform.get(str(label)) or {},
    )


def _parameters(definitions: Mapping[str, Any]) -> dict[str, Parameter]:
    found = {}
    for name, data in (definitions.get("parameters") or {}).items():
        kind = data.get("parameterType") or data.get("type") or values.STRING
        has_default = "defaultValue" in data
        found[name] = Parameter(
            kind,
            bool(data.get("isOptional")),
            has_default,
            values.constant(data.get("defaultValue"), kind),
            tuple(data.get("literals") or ()),
        )
    return found


def _artifacts(definitions: Mapping[str, Any]) -> dict[str, ArtifactDef]:
    found = {}
    for name, data in (definitions.get("artifacts") or {}).items():
        kind = data.get("artifactType") or {}
        found[name] = ArtifactDef(
            kind.get("schemaTitle") or "system.Artifact",
            kind.get("schemaVersion") or "0.0.1",
            bool(data.get("isOptional")),
            bool(data.get("isArtifactList")),
        )
    return found


def _dag(data: Mapping[str, Any]) -> Dag:
    outputs = data.get("outputs") or {}
    parameters: dict[str, tuple[Selector, ...]] = {}
    for name, selector in (outputs.get("parameters") or {}).items():
        if "valueFromOneof" in selector:
            chosen = selector["valueFromOneof"]["parameterSelectors"]
        else:
            chosen = [selector["valueFromParameter"]]
        parameters[name] = tuple(
            Selector(one["producerSubtask"], one["outputParameterKey"]) for one in chosen
        )
    artifacts = {
        name: tuple(
            Selector(one["producerSubtask"], one["outputArtifactKey"])
            for one in selector["artifactSelectors"]
        )
        for name, selector in (outputs.get("artifacts") or {}).items()
    }
    tasks = {key: _task(key, task) for key, task in (data.get("tasks") or {}).items()}
    return Dag(tasks, parameters, artifacts)


def _task(key: str, data: Mapping[str, Any]) -> TaskSpec:
    inputs = data.get("inputs") or {}
    parameters = {
        name: parameter_source(source) for name, source in (inputs.get("parameters") or {}).items()
    }
    artifacts = {
        name: _artifact_source(source) for name, source in (inputs.get("artifacts") or {}).items()
    }
    needs = dict.fromkeys(data.get("dependentTasks") or ())
    for source in (*parameters.values(), *artifacts.values()):
        if source.task:
            needs[source.task] = None
    trigger = data.get("triggerPolicy") or {}
    caching = data.get("cachingOptions") or {}
    return TaskSpec(
        key,
        data["componentRef"]["name"],
        str((data.get("taskInfo") or {}).get("name") or key),
        parameters,
        artifacts,
        tuple(needs),
        str(trigger.get("condition") or ""),
        trigger.get("strategy") == ALL_COMPLETED,
        bool(caching.get("enableCache")),
        str(caching.get("cacheKey") or ""),
        _retry(data.get("retryPolicy")),
        _iterator(data),
    )


def parameter_source(data: Mapping[str, Any]) -> Source:
    """Where a parameter comes from (KFP's InputParameterSpec)."""
    selector = str(data.get("parameterExpressionSelector") or "")
    if "runtimeValue" in data:
        runtime = data["runtimeValue"]
        if "runtimeParameter" in runtime:
            return Source("input", name=runtime["runtimeParameter"], selector=selector)
        return Source("constant", value=values.whole(runtime.get("constant")), selector=selector)
    if "componentInputParameter" in data:
        return Source("input", name=data["componentInputParameter"], selector=selector)
    if "taskOutputParameter" in data:
        output = data["taskOutputParameter"]
        return Source(
            "output", name=output["outputParameterKey"], task=output["producerTask"],
            selector=selector,
        )  # fmt: skip
    return Source("status", task=data["taskFinalStatus"]["producerTask"], selector=selector)


def _artifact_source(data: Mapping[str, Any]) -> Source:
    if "componentInputArtifact" in data:
        return Source("input", name=data["componentInputArtifact"])
    output = data["taskOutputArtifact"]
    return Source("output", name=output["outputArtifactKey"], task=output["producerTask"])


def _retry(data: Mapping[str, Any] | None) -> Retry:
    if not data:
        return Retry()
    return Retry(
        int(data.get("maxRetryCount") or 0),
        _duration(data.get("backoffDuration"), 0.0),
        float(data.get("backoffFactor") or 1.0),
        _duration(data.get("backoffMaxDuration"), 3600.0),
    )


def _duration(raw: str | None, default: float) -> float:
    """Protobuf's JSON form of a duration (``1.5s``), in seconds."""
    return float(str(raw).removesuffix("s")) if raw else default


def _iterator(data: Mapping[str, Any]) -> Iterator | None:
    limit = int((data.get("iteratorPolicy") or {}).get("parallelismLimit") or 0)
    if found := data.get("parameterIterator"):
        items = found["items"]
        if "raw" in items:
            import json

            return Iterator(found["itemInput"], tuple(json.loads(items["raw"])), limit=limit)
        return Iterator(found["itemInput"], input=items["inputParameter"], limit=limit)
    if found := data.get("artifactIterator"):
        return Iterator(
            found["itemInput"], input=found["items"]["inputArtifact"], artifacts=True, limit=limit
        )
    return None


def _container(data: Mapping[str, Any]) -> Container:
    resources = data.get("resources") or {}
    limits = {
        "cpu": resources.get("resourceCpuLimit") or resources.get("cpuLimit")
        or resources.get("resourceCpuRequest") or resources.get("cpuRequest"),
        "memory": resources.get("resourceMemoryLimit") or _gigabytes(resources.get("memoryLimit")),
    }  # fmt: skip
    deferred = {name: str(raw) for name, raw in limits.items() if has_placeholder(str(raw))}
    return Container(
        str(data.get("image") or ""),
        tuple(map(str, data.get("command") or ())),
        tuple(map(str, data.get("args") or ())),
        {item["name"]: str(item.get("value", "")) for item in data.get("env") or ()},
        0.0 if "cpu" in deferred else quantity(limits["cpu"]),
        0 if "memory" in deferred else int(quantity(limits["memory"])),
        bool(resources.get("accelerator")),
        deferred,
    )


_SUFFIXES = {
    "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def quantity(raw: Any) -> float:
    """A Kubernetes quantity (``500m``, ``1.5Gi``) as a number; 0 for nothing.

    Raises:
        ValueError: it is none.
    """
    text = str(raw or 0).strip()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            text, factor = text.removesuffix(suffix), _SUFFIXES[suffix]
            break
    else:
        factor = 1.0
    found = float(text) * factor
    if not 0 <= found < math.inf:
        raise ValueError(f"{raw!r} is not a quantity")
    return found


def _gigabytes(raw: Any) -> str:
    """What older compilers write for a memory limit."""
    return f"{raw}G" if raw else ""


def _importer(data: Mapping[str, Any]) -> Importer:
    uri = data["artifactUri"]
    if "runtimeParameter" in uri:
        source = Source("input", name=uri["runtimeParameter"])
    else:
        source = Source("constant", value=uri.get("constant"))
    kind = (data.get("typeSchema") or {}).get("schemaTitle") or "system.Artifact"
    return Importer(
        source,
        kind,
        values.whole(data.get("metadata") or {}),
        bool(data.get("downloadToWorkspace")),
    )
