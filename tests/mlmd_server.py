"""A server of ML Metadata in this process: the calls that KFP and ctflow make, kept in memory.

Its messages are protobuf's own, made from the published fields, so that what ctflow's decoder reads
was not written by ctflow. ``Recorder`` writes runs as KFP does, here or to another such server.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

_PACKAGE = "ml_metadata"
_INT, _DOUBLE, _TEXT = "int64", "double", "string"
#: Message -> fields as (number, name, type); ``[]`` repeated, ``{}`` a map from text.
_MESSAGES: dict[str, list[tuple[int, str, str]]] = {
    "Value": [(1, "int_value", _INT), (2, "double_value", _DOUBLE), (3, "string_value", _TEXT),
              (4, "struct_value", "google.protobuf.Struct")],
    "Artifact": [(1, "id", _INT), (2, "type_id", _INT), (3, "uri", _TEXT),
                 (5, "custom_properties", "{}Value"), (6, "state", _INT), (7, "name", _TEXT),
                 (8, "type", _TEXT)],
    "ArtifactType": [(1, "id", _INT), (2, "name", _TEXT)],
    "ExecutionType": [(1, "id", _INT), (2, "name", _TEXT)],
    "ContextType": [(1, "id", _INT), (2, "name", _TEXT)],
    "Execution": [(1, "id", _INT), (2, "type_id", _INT), (3, "last_known_state", _INT),
                  (5, "custom_properties", "{}Value"), (6, "name", _TEXT), (7, "type", _TEXT)],
    "Context": [(1, "id", _INT), (2, "type_id", _INT), (3, "name", _TEXT),
                (5, "custom_properties", "{}Value"), (6, "type", _TEXT)],
    "Step": [(1, "index", _INT), (2, "key", _TEXT)],
    "Path": [(1, "steps", "[]Step")],
    "Event": [(1, "artifact_id", _INT), (2, "execution_id", _INT), (3, "path", "Path"),
              (4, "type", _INT), (5, "milliseconds_since_epoch", _INT)],
    "PutArtifactTypeRequest": [(1, "artifact_type", "ArtifactType")],
    "PutExecutionTypeRequest": [(1, "execution_type", "ExecutionType")],
    "PutContextTypeRequest": [(1, "context_type", "ContextType")],
    "PutTypeResponse": [(1, "type_id", _INT)],
    "Pair": [(1, "artifact", "Artifact"), (2, "event", "Event")],
    "PutExecutionRequest": [(1, "execution", "Execution"), (2, "artifact_event_pairs", "[]Pair"),
                            (3, "contexts", "[]Context")],
    "PutExecutionResponse": [(1, "execution_id", _INT), (2, "artifact_ids", "[]int64"),
                             (3, "context_ids", "[]int64")],
    "PutContextsRequest": [(1, "contexts", "[]Context")],
    "PutContextsResponse": [(1, "context_ids", "[]int64")],
    "GetContextByTypeAndNameRequest": [(1, "type_name", _TEXT), (2, "context_name", _TEXT)],
    "GetContextByTypeAndNameResponse": [(1, "context", "Context")],
    "ByContextRequest": [(1, "context_id", _INT)],
    "GetExecutionsByContextResponse": [(1, "executions", "[]Execution")],
    "ArtifactsResponse": [(1, "artifacts", "[]Artifact")],
    "GetArtifactsByIDRequest": [(1, "artifact_ids", "[]int64")],
    "GetEventsByExecutionIDsRequest": [(1, "execution_ids", "[]int64")],
    "GetEventsByExecutionIDsResponse": [(1, "events", "[]Event")],
}  # fmt: skip
#: Method -> its request and its answer.
_METHODS = {
    "PutArtifactType": ("PutArtifactTypeRequest", "PutTypeResponse"),
    "PutExecutionType": ("PutExecutionTypeRequest", "PutTypeResponse"),
    "PutContextType": ("PutContextTypeRequest", "PutTypeResponse"),
    "PutContexts": ("PutContextsRequest", "PutContextsResponse"),
    "PutExecution": ("PutExecutionRequest", "PutExecutionResponse"),
    "GetContextByTypeAndName": (
        "GetContextByTypeAndNameRequest", "GetContextByTypeAndNameResponse"),
    "GetExecutionsByContext": ("ByContextRequest", "GetExecutionsByContextResponse"),
    "GetArtifactsByContext": ("ByContextRequest", "ArtifactsResponse"),
    "GetArtifactsByID": ("GetArtifactsByIDRequest", "ArtifactsResponse"),
    "GetEventsByExecutionIDs": (
        "GetEventsByExecutionIDsRequest", "GetEventsByExecutionIDsResponse"),
}  # fmt: skip
_SERVICE = f"/{_PACKAGE}.MetadataStoreService/"
#: Event's types, and states.
INPUT, OUTPUT = 3, 4
RUNNING, COMPLETE, CACHED = 2, 3, 5


def _classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {_INT: field.TYPE_INT64, _DOUBLE: field.TYPE_DOUBLE, _TEXT: field.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/ml_metadata.proto", package=_PACKAGE, syntax="proto2",
        dependency=["google/protobuf/struct.proto"],
    )  # fmt: skip

    def add(message: Any, number: int, name: str, kind: str) -> None:
        one = message.field.add(name=name, number=number, label=field.LABEL_OPTIONAL)
        bare = kind.removeprefix("[]").removeprefix("{}")
        if kind != bare:
            one.label = field.LABEL_REPEATED
        if kind.startswith("{}"):
            entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            add(nested, 1, "key", _TEXT)
            add(nested, 2, "value", bare)
            one.type, one.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{message.name}.{entry}"
        elif bare in scalars:
            one.type = scalars[bare]
        else:
            whole = bare if "." in bare else f"{_PACKAGE}.{bare}"
            one.type, one.type_name = field.TYPE_MESSAGE, f".{whole}"

    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, label, kind in fields:
            add(message, number, label, kind)
        if name in ("Value", "Step"):
            message.oneof_decl.add(name="value")
            for one in message.field:
                one.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _classes()


class Store:
    """What the server keeps. ``calls`` are the methods in the order in which they were asked."""

    def __init__(self) -> None:
        self.types: dict[tuple[str, str], int] = {}
        self.contexts: dict[int, Any] = {}
        self.executions: dict[int, Any] = {}
        self.artifacts: dict[int, Any] = {}
        self.events: list[Any] = []
        self.associations: dict[int, list[int]] = {}
        self.attributions: dict[int, list[int]] = {}
        self.ids = itertools.count(1)
        self.calls: list[str] = []

    def answer(self, method: str, asked: Any) -> Any:
        self.calls.append(method)
        return getattr(self, method)(asked)

    def _type(self, kind: str, name: str) -> Any:
        number = self.types.setdefault((kind, name), next(self.ids))
        return MESSAGES["PutTypeResponse"](type_id=number)

    def PutArtifactType(self, asked: Any) -> Any:
        return self._type("artifact", asked.artifact_type.name)

    def PutExecutionType(self, asked: Any) -> Any:
        return self._type("execution", asked.execution_type.name)

    def PutContextType(self, asked: Any) -> Any:
        return self._type("context", asked.context_type.name)

    def _name_of(self, number: int) -> str:
        return next(name for (_, name), one in self.types.items() if one == number)

    def PutContexts(self, asked: Any) -> Any:
        made = MESSAGES["PutContextsResponse"]()
        for one in asked.contexts:
            one.id = next(self.ids)
            one.type = self._name_of(one.type_id)
            self.contexts[one.id] = one
            made.context_ids.append(one.id)
        return made

    def PutExecution(self, asked: Any) -> Any:
        execution = asked.execution
        execution.id = execution.id or next(self.ids)
        self.executions[execution.id] = execution
        made = MESSAGES["PutExecutionResponse"](execution_id=execution.id)
        contexts = [one.id for one in asked.contexts]
        for context in contexts:
            if execution.id not in self.associations.setdefault(context, []):
                self.associations[context].append(execution.id)
        for pair in asked.artifact_event_pairs:
            number = pair.event.artifact_id
            if pair.HasField("artifact"):
                number = pair.artifact.id = pair.artifact.id or next(self.ids)
                pair.artifact.type = self._name_of(pair.artifact.type_id)
                self.artifacts[number] = pair.artifact
                for context in contexts:
                    self.attributions.setdefault(context, []).append(number)
            pair.event.artifact_id, pair.event.execution_id = number, execution.id
            self.events.append(pair.event)
            made.artifact_ids.append(number)
        return made

    def GetContextByTypeAndName(self, asked: Any) -> Any:
        made = MESSAGES["GetContextByTypeAndNameResponse"]()
        for one in self.contexts.values():
            if (one.type, one.name) == (asked.type_name, asked.context_name):
                made.context.CopyFrom(one)
        return made

    def GetExecutionsByContext(self, asked: Any) -> Any:
        found = [self.executions[one] for one in self.associations.get(asked.context_id, [])]
        return MESSAGES["GetExecutionsByContextResponse"](executions=found)

    def GetArtifactsByContext(self, asked: Any) -> Any:
        found = [self.artifacts[one] for one in self.attributions.get(asked.context_id, [])]
        return MESSAGES["ArtifactsResponse"](artifacts=found)

    def GetArtifactsByID(self, asked: Any) -> Any:
        found = [self.artifacts[one] for one in asked.artifact_ids if one in self.artifacts]
        return MESSAGES["ArtifactsResponse"](artifacts=found)

    def GetEventsByExecutionIDs(self, asked: Any) -> Any:
        wanted = set(asked.execution_ids)
        found = [one for one in self.events if one.execution_id in wanted]
        return MESSAGES["GetEventsByExecutionIDsResponse"](events=found)


@contextmanager
def mlmd_server() -> Iterator[tuple[str, Store]]:
    """A server's ``host:port``, and what it keeps."""
    store = Store()

    def handler(method: str, asked: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: store.answer(method, request),
            request_deserializer=MESSAGES[asked].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    handlers = {name: handler(name, asked) for name, (asked, _) in _METHODS.items()}
    generic = grpc.method_handlers_generic_handler(f"{_PACKAGE}.MetadataStoreService", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", store
    finally:
        server.stop(None).wait()


class Recorder:
    """Writes one run's context, executions, artifacts and events as KFP's driver and launcher do.

    Args:
        address: of any server of ML Metadata.
    """

    def __init__(self, address: str, run: str) -> None:
        self._channel = grpc.insecure_channel(address)
        kind = self._put("PutContextType", context_type=MESSAGES["ContextType"](
            name="system.PipelineRun")).type_id  # fmt: skip
        made = MESSAGES["Context"](type_id=kind, name=run)
        self._context = MESSAGES["Context"](
            id=self._put("PutContexts", contexts=[made]).context_ids[0], type_id=kind, name=run
        )
        self.root = self.group("", None)

    def group(self, task: str, parent: int | None, **properties: int) -> int:
        """A group of tasks; ``iteration_count`` for a loop, ``iteration_index`` for a round."""
        return self._execution("system.DAGExecution", task, parent, RUNNING, properties, {}, {})

    def task(
        self,
        name: str,
        outputs: Mapping[str, tuple[str, str, Mapping[str, Any]] | int],
        *,
        parent: int | None = None,
        inputs: Mapping[str, int] | None = None,
        parameters: Mapping[str, Any] | None = None,
        state: int = COMPLETE,
        index: int | None = None,
    ) -> dict[str, int]:
        """A task with outputs (type, URI, metadata), or the ids of artifacts; their ids."""
        more = {} if index is None else {"iteration_index": index}
        self._execution(
            "system.ContainerExecution", name, self.root if parent is None else parent, state,
            {"image": f"images/{name}", "inputs": dict(parameters or {}), **more},
            outputs, inputs or {},
        )  # fmt: skip
        return self.made

    def close(self) -> None:
        self._channel.close()

    def _execution(
        self, kind: str, task: str, parent: int | None, state: int, properties: Mapping[str, Any],
        outputs: Mapping[str, Any], inputs: Mapping[str, int],
    ) -> int:  # fmt: skip
        number = self._put("PutExecutionType", execution_type=MESSAGES["ExecutionType"](
            name=kind)).type_id  # fmt: skip
        execution = MESSAGES["Execution"](type_id=number, last_known_state=state)
        said = {"task_name": task, "display_name": task, **properties}
        if parent:  # 0: it is not on record
            said["parent_dag_id"] = parent
        for key, value in said.items():
            _set(execution.custom_properties[key], value)
        pairs = [self._pair(name, one, INPUT) for name, one in inputs.items()]
        pairs += [self._pair(name, one, OUTPUT) for name, one in outputs.items()]
        answer = self._put(
            "PutExecution", execution=execution, artifact_event_pairs=pairs,
            contexts=[self._context],
        )  # fmt: skip
        names = [*inputs, *outputs]
        self.made = dict(list(zip(names, answer.artifact_ids, strict=True))[len(inputs) :])
        return int(answer.execution_id)

    def _pair(self, name: str, what: Any, kind: int) -> Any:
        event = MESSAGES["Event"](type=kind)
        event.path.steps.add(key=name)
        if isinstance(what, int):
            event.artifact_id = what
            return MESSAGES["Pair"](event=event)
        type_name, uri, metadata = what
        number = self._put("PutArtifactType", artifact_type=MESSAGES["ArtifactType"](
            name=type_name)).type_id  # fmt: skip
        artifact = MESSAGES["Artifact"](type_id=number, uri=uri, state=2)
        said = {"display_name": name, "store_session_info": '{"Provider":"minio"}', **metadata}
        for key, value in said.items():
            wrapped = {"list": value} if isinstance(value, list) else value
            if isinstance(value, dict):
                wrapped = {"struct": value}
            _set(artifact.custom_properties[key], wrapped)
        return MESSAGES["Pair"](artifact=artifact, event=event)

    def _put(self, method: str, **fields: Any) -> Any:
        asked, answer = _METHODS[method]
        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[answer].FromString,
        )
        return call(MESSAGES[asked](**fields), timeout=30)


def _set(value: Any, what: Any) -> None:
    if isinstance(what, str):
        value.string_value = what
    elif isinstance(what, dict):
        value.struct_value.SetInParent()  # a property without a value ends Google's server
        value.struct_value.update(what)
    elif isinstance(what, int) and not isinstance(what, bool):
        value.int_value = what
    else:
        value.double_value = what
