"""One task of a finished run, run again on the cluster with another model: a run of its own.

Its package is the task of the run's package, its parameters as they were, and an importer for each
artifact that it reads. Such runs are in an experiment of their own, so that the newest run of the
project's stays one that trained.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ctflow.errors import RunFailed, StateError
from ctflow.model import Artifact, Run, Task
from ctflow.pipelinespec import values
from ctflow.pipelinespec.spec_reader import parse
from ctflow.runners.kubeflow import labels
from ctflow.runners.kubeflow.api import RUN_NAME, Json, Kfp
from ctflow.runners.kubeflow.making import spot_of
from ctflow.runners.kubeflow.starting import RunSettings, once

#: What is added to the experiment's name.
EXPERIMENT = "-scored-again"
_PIPELINE = "scored-again"


def place_of(run: Run, artifact: str, digest: str) -> str:
    """The URI below which another content of an artifact goes: beside the run's own artifacts.

    Raises:
        StateError: the run has no such artifact in a bucket.
    """
    original = _original(run, artifact)
    scheme, mark, rest = original.uri.partition("://")
    before, inside, _ = rest.partition(f"/{run.pipeline}/")
    root = before if inside and run.pipeline else rest.partition("/")[0]
    if not mark or not root:
        raise StateError(f"the artifact {artifact} of run {run.id} is in no bucket")
    return f"{scheme}://{root}/{_PIPELINE}/{digest.replace(':', '-')}"


def scoring_spec(
    run: Run, documents: list[Any] | None, name: str, artifact: str, uri: str
) -> list[Any]:
    """The package, as plain data, of the task ``name`` with ``uri`` in the place of ``artifact``.

    Raises:
        StateError: the package, or what the task read, is not known; or it reads no such artifact.
    """
    task, original = run.task(name), _original(run, artifact)
    pipeline = parse(documents, f"the package of run {run.id}") if documents else None
    spot = spot_of(pipeline, name)
    if documents is None or spot is None:
        raise StateError(f"the package of run {run.id} is gone, and {name} cannot be run again")
    if task is None or task.group or task.state not in ("succeeded", "cached"):
        raise StateError(f"run {run.id} has no finished task {name!r} to run again")
    if not (
        set(spot.spec.parameters) <= set(task.inputs)
        and set(spot.spec.artifacts) <= set(task.input_artifacts)
    ):
        raise StateError(
            f"it is not on record what {name} of run {run.id} read",
            next="set kubeflow.metadata to the host:port of ML Metadata",
        )
    if not any(one.uri == original.uri for some in task.input_artifacts.values() for one in some):
        raise StateError(
            f"task {name} of run {run.id} reads no artifact {artifact}",
            next="name the task that scores the model in the gate's `predictions: task.output`",
        )
    if any(len(some) != 1 for some in task.input_artifacts.values()):
        raise StateError(f"{name} of run {run.id} reads a list of artifacts, and cannot run again")
    spec = documents[0]
    label = spec["components"][spot.spec.component]["executorLabel"]
    made = _Package(spec, spot.keys[-1], spot.spec.component, label)
    kinds = spot.component.inputs
    parameters = {
        key: values.convert(value, kinds[key].type)
        for key, value in task.inputs.items()
        if key in spot.spec.parameters and key in kinds and value is not None
    }
    artifacts = {
        key: replace(some[0], uri=uri, metadata={}) if some[0].uri == original.uri else some[0]
        for key, some in task.input_artifacts.items()
    }
    first = made.spec(_task_of(spec, spot.keys), parameters, artifacts)
    return [first, *_platforms(documents[1:], label)]


class _Package:
    """Writes a package with one task of another one."""

    def __init__(self, spec: Mapping[str, Any], key: str, component: str, label: str) -> None:
        self._spec, self._key, self._component, self._label = spec, key, component, label

    def spec(
        self, task: Mapping[str, Any], parameters: Mapping[str, Any],
        artifacts: Mapping[str, Artifact],
    ) -> dict[str, Any]:  # fmt: skip
        """The pipeline's document."""
        executors = {self._label: self._spec["deploymentSpec"]["executors"][self._label]}
        components = {self._component: self._spec["components"][self._component]}
        made = {
            key: task[key] for key in ("cachingOptions", "retryPolicy", "taskInfo") if key in task
        }
        made["componentRef"] = {"name": self._component}
        inputs: dict[str, Any] = {}
        if parameters:
            inputs["parameters"] = {
                key: {"runtimeValue": {"constant": value}} for key, value in parameters.items()
            }
        tasks: dict[str, Any] = {}
        for number, (key, artifact) in enumerate(sorted(artifacts.items()), 1):
            name = f"importer-{number}"
            if name == self._key:
                name += "-of-it"
            executors[f"exec-{name}"], components[f"comp-{name}"], tasks[name] = _importer(
                name, artifact
            )
            inputs.setdefault("artifacts", {})[key] = {
                "taskOutputArtifact": {"outputArtifactKey": "artifact", "producerTask": name}
            }
        if inputs:
            made["inputs"] = inputs
        if tasks:
            made["dependentTasks"] = sorted(tasks)
        tasks[self._key] = made
        return copy.deepcopy({
            "components": components,
            "deploymentSpec": {"executors": executors},
            "pipelineInfo": {"name": _PIPELINE},
            "root": {"dag": {"tasks": tasks}},
            "schemaVersion": self._spec.get("schemaVersion", "2.1.0"),
            "sdkVersion": self._spec.get("sdkVersion", ""),
        })  # fmt: skip


def _importer(name: str, artifact: Artifact) -> tuple[Any, Any, Any]:
    """Executor, component and task of an importer, as KFP's compiler writes them."""
    kind = {"schemaTitle": artifact.type, "schemaVersion": "0.0.1"}
    runs: dict[str, Any] = {"artifactUri": {"constant": artifact.uri}, "typeSchema": kind}
    if artifact.metadata:
        runs["metadata"] = dict(artifact.metadata)
    component = {
        "executorLabel": f"exec-{name}",
        "inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
        "outputDefinitions": {"artifacts": {"artifact": {"artifactType": kind}}},
    }
    task = {
        "cachingOptions": {"enableCache": True},
        "componentRef": {"name": f"comp-{name}"},
        "inputs": {"parameters": {"uri": {"runtimeValue": {"constant": artifact.uri}}}},
        "taskInfo": {"name": name},
    }
    return {"importer": runs}, component, task


def _task_of(spec: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    component: Any = spec["root"]
    for key in keys[:-1]:
        inner = component["dag"]["tasks"][key]["componentRef"]["name"]
        component = spec["components"][inner]
    found: Mapping[str, Any] = component["dag"]["tasks"][keys[-1]]
    return found


def _platforms(documents: list[Any], label: str) -> list[Any]:
    """What the platforms' document says of one executor."""
    found = copy.deepcopy(documents)
    for document in found:
        for platform in ((document or {}).get("platforms") or {}).values():
            executors = (platform.get("deploymentSpec") or {}).get("executors") or {}
            for other in [one for one in executors if one != label]:
                del executors[other]
    return found


def start_scoring(
    kfp: Kfp, run: Run, task: str, documents: list[Any], settings: RunSettings, root: str
) -> str:
    """Start the run of such a package; its id. Raises as ``starting.start`` does."""
    experiment = kfp.ensure_experiment(
        f"{settings.experiment[: 128 - len(EXPERIMENT)]}{EXPERIMENT}"
    )
    key = secrets.token_hex(4)
    name = f"{task[: RUN_NAME - 60]}-of-{run.id}-{key}"
    said = {"project": run.project, "pipeline": _PIPELINE, "actor": settings.actor, "key": key}
    spec: Any = documents[0]
    if len(documents) > 1:
        spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    body: Json = {
        "display_name": name,
        "description": labels.written(f"{task} of run {run.id} with another model", said),
        "experiment_id": experiment["experiment_id"],
        "runtime_config": {"parameters": {}},
        "pipeline_spec": spec,
    }
    if settings.service_account:
        body["service_account"] = settings.service_account
    if root or settings.pipeline_root:
        body["runtime_config"]["pipeline_root"] = root or settings.pipeline_root
    return str(once(kfp, name, body)["run_id"])


def scored(done: Run, name: str) -> Task:
    """The task of an ended run, by the name that it has in the project's pipeline.

    Raises:
        RunFailed: it did not succeed.
    """
    task = done.task(name.rpartition(".")[2])
    if done.state != "succeeded" or task is None:
        raise RunFailed(
            f"{name} failed on the other model (run {done.id}: {done.state})",
            next=f"see `ctflow runs logs {done.id}`",
        )
    return replace(task, name=name)


def _original(run: Run, artifact: str) -> Artifact:
    original = run.artifact(artifact)
    if original is None:
        raise StateError(f"run {run.id} has no artifact {artifact}")
    return original
