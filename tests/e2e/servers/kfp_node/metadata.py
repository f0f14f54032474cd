"""What Kubeflow Pipelines' driver and launcher write into ML Metadata, written by the server."""

from __future__ import annotations

import json
from typing import Any

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tests.e2e.servers.kfp_node.workflow import DEFAULT_ROOT
from tests.kfp_server.values import Item

_SESSION = {
    "Provider": "minio",
    "Params": {
        "endpoint": "10.88.0.1:9000", "region": "us-east-1", "disableSSL": "true",
        "secretName": "mlpipeline-minio-artifact", "accessKeyKey": "accesskey",
        "secretKeyKey": "secretkey",
    },
}  # fmt: skip


class Metadata:
    """A client of ML Metadata that notes runs and what their tasks made."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._store = metadata_store.MetadataStore(
            mlmd.MetadataStoreClientConfig(host=host, port=int(port))
        )
        self._artifacts: dict[str, int] = {}

    def begin(self, run: Item, pipeline: str) -> None:
        """Note a run, with its pipeline as parent, and its root, which stays RUNNING for ever."""
        above = mlmd.Context(type_id=self._context_type("system.Pipeline"), name=pipeline)
        context = mlmd.Context(type_id=self._context_type("system.PipelineRun"), name=run["run_id"])
        root = run["runtime_config"].get("pipeline_root") or DEFAULT_ROOT
        context.custom_properties["pipeline_root"].string_value = root
        context.custom_properties["store_session_info"].string_value = json.dumps(_SESSION)
        execution = mlmd.Execution(
            type_id=self._execution_type("system.DAGExecution"),
            last_known_state=mlmd.Execution.RUNNING,
        )
        execution.custom_properties["display_name"].string_value = ""
        execution.custom_properties["task_name"].string_value = ""
        self._store.put_execution(
            execution, [], [above, context], reuse_context_if_already_exist=True
        )
        held = self._store.get_context_by_type_and_name("system.PipelineRun", run["run_id"])
        parent = self._store.get_context_by_type_and_name("system.Pipeline", pipeline)
        self._store.put_parent_contexts([mlmd.ParentContext(child_id=held.id, parent_id=parent.id)])

    def task(self, run: Item, name: str, shown: str, image: str, report: Item) -> None:
        """Note a task that succeeded: an execution, what it was given, what it made."""
        state = mlmd.Execution.CACHED if report["cached"] else mlmd.Execution.COMPLETE
        execution = mlmd.Execution(
            type_id=self._execution_type("system.ContainerExecution"), last_known_state=state
        )
        told = execution.custom_properties
        for key, text in (
            ("task_name", name), ("display_name", shown), ("image", image),
            ("pod_name", report["pod"]), ("namespace", "kubeflow"),
            ("cache_fingerprint", report["fingerprint"]),
        ):  # fmt: skip
            told[key].string_value = text
        _set(told["inputs"], report.get("inputs", {}).get("parameterValues") or {})
        _set(told["outputs"], report.get("parameterValues") or {})
        pairs = [self._input(key, one) for key, one in _each(report.get("inputs", {}))]
        pairs = [pair for pair in pairs if pair is not None]
        pairs += [self._output(key, one) for key, one in _each(report)]
        if report.get("logs"):
            logs = {"name": "executor-logs", "uri": report["logs"],
                    "type": {"schemaTitle": "system.Artifact"}}  # fmt: skip
            pairs.append(self._output("executor-logs", logs))
        context = mlmd.Context(type_id=self._context_type("system.PipelineRun"), name=run["run_id"])
        _, made, _ = self._store.put_execution(
            execution, pairs, [context], reuse_context_if_already_exist=True
        )
        for (artifact, _), artifact_id in zip(pairs, made, strict=True):
            self._artifacts[artifact.uri] = artifact_id

    def _input(self, key: str, one: Item) -> Any:
        if one["uri"] not in self._artifacts:
            return None
        event = mlmd.Event(type=mlmd.Event.INPUT)
        event.path.steps.add().key = key
        (artifact,) = self._store.get_artifacts_by_id([self._artifacts[one["uri"]]])
        return artifact, event

    def _output(self, key: str, one: Item) -> Any:
        kind = one["type"].get("schemaTitle") or "system.Artifact"
        artifact = mlmd.Artifact(
            type_id=self._store.put_artifact_type(mlmd.ArtifactType(name=kind)),
            uri=one["uri"], state=mlmd.Artifact.LIVE,
        )  # fmt: skip
        artifact.custom_properties["display_name"].string_value = key
        artifact.custom_properties["store_session_info"].string_value = json.dumps(_SESSION)
        for name, value in (one.get("metadata") or {}).items():
            _set(artifact.custom_properties[name], value)
        event = mlmd.Event(type=mlmd.Event.OUTPUT)
        event.path.steps.add().key = key
        return artifact, event

    def _context_type(self, name: str) -> int:
        return int(self._store.put_context_type(mlmd.ContextType(name=name)))

    def _execution_type(self, name: str) -> int:
        return int(self._store.put_execution_type(mlmd.ExecutionType(name=name)))


def _each(found: Item) -> list[tuple[str, Item]]:
    return [
        (key, one)
        for key, held in (found.get("artifacts") or {}).items()
        for one in held.get("artifacts") or []
    ]


def _set(into: Any, value: Any) -> None:
    """A value as KFP's launcher stores it: numbers, whole ones too, as doubles."""
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, (int, float)):
        into.double_value = value
    elif isinstance(value, str):
        into.string_value = value
    else:
        into.struct_value.SetInParent()  # The store ends on a property without a value.
        into.struct_value.update(value if isinstance(value, dict) else {"list": value})
