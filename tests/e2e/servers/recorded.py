"""Prints what ML Metadata has of a run, as JSON: recorded.py ADDRESS RUN_ID

To be run by the Python of `mlmd python`, since the client needs another protobuf than the project.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd


def _values(properties: Any) -> dict[str, Any]:
    """Custom properties by name, each by the value that is set."""
    found = {}
    for key, value in properties.items():
        field = value.WhichOneof("value")
        held = getattr(value, field) if field else None
        found[key] = json_format.MessageToDict(held) if field == "struct_value" else held
    return found


def main(address: str, run_id: str) -> None:
    """Print the run's artifacts and executions."""
    host, _, port = address.partition(":")
    store = metadata_store.MetadataStore(mlmd.MetadataStoreClientConfig(host=host, port=int(port)))
    context = store.get_context_by_type_and_name("system.PipelineRun", run_id)
    (parent,) = store.get_parent_contexts_by_context(context.id)
    artifacts = [
        {"type": one.type, "uri": one.uri, **_values(one.custom_properties)}
        for one in store.get_artifacts_by_context(context.id)
    ]
    executions = [
        {
            "type": one.type,
            "state": mlmd.Execution.State.Name(one.last_known_state),
            **_values(one.custom_properties),
        }
        for one in store.get_executions_by_context(context.id)
    ]
    told = {"pipeline": parent.name, "artifacts": artifacts, "executions": executions}
    print(json.dumps(told))


main(*sys.argv[1:3])
