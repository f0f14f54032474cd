"""ML Metadata over gRPC: what Kubeflow Pipelines 2.15 to 2.17 record of a run's tasks.

Of a run there is a context of type ``system.PipelineRun`` named by its id. Each task that was
reached is an execution in it with ``task_name`` and ``parent_dag_id``, the execution of the group
that it is in; an iteration of a loop is a group with ``iteration_index`` below the loop's. Events
tie executions to artifacts. Source: KFP, ``backend/src/v2/metadata``; ML Metadata,
``metadata_store_service.proto``. The group of the whole run stays RUNNING for ever, so no state is
read from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.text import one_line
from ctflow.model import Artifact, Value
from ctflow.ports import RunPlace, TaskRecord
from ctflow.ports.artifacts import task_of
from ctflow.runners.kubeflow.wire import Malformed, Shape, decode, encode

#: Seconds that one call may take, and how often one is made.
_CALL, _TRIES = 30.0, 3
#: Bytes of one answer: KFP's own limit.
_LARGEST = 100 * 2**20
_SERVICE = "/ml_metadata.MetadataStoreService/"

# Shapes: only the fields that are read here.
_STRUCT: dict[int, tuple[str, Any]] = {}
_STRUCT_VALUE: dict[int, tuple[str, Any]] = {}
_STRUCT_VALUE |= {
    1: ("null", "int"), 2: ("number", "double"), 3: ("string", "text"), 4: ("bool", "bool"),
    5: ("struct", _STRUCT), 6: ("list", {1: ("values*", _STRUCT_VALUE)}),
}  # fmt: skip
_STRUCT |= {1: ("fields*", {1: ("key", "text"), 2: ("value", _STRUCT_VALUE)})}
_VALUE = {
    1: ("int", "int"), 2: ("double", "double"), 3: ("string", "text"), 4: ("struct", _STRUCT),
    6: ("bool", "bool"),
}  # fmt: skip
_PROPERTIES = {1: ("key", "text"), 2: ("value", _VALUE)}
_ARTIFACT = {
    1: ("id", "int"), 3: ("uri", "text"), 5: ("properties*", _PROPERTIES), 8: ("type", "text")
}  # fmt: skip
_EXECUTION = {1: ("id", "int"), 5: ("properties*", _PROPERTIES)}
_STEP = {1: ("index", "int"), 2: ("key", "text")}
_EVENT = {
    1: ("artifact", "int"), 2: ("execution", "int"), 3: ("path", {1: ("steps*", _STEP)}),
    4: ("type", "int"),
}  # fmt: skip
_INPUT, _OUTPUT = (2, 3), (1, 4)  # declared or not
#: What KFP adds to an artifact's own metadata.
_ADDED = frozenset({"display_name", "store_session_info"})
#: An output of each task that no component declares.
_LOGS = "executor-logs"

Call = Callable[[str, bytes], bytes]


class Metadata:
    """The ``RunArtifacts`` that a server of ML Metadata has.

    Args:
        address: ``host:port``, or ``https://host:port`` for one with TLS.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._call: Call | None = None

    def of_run(self, place: RunPlace) -> Sequence[TaskRecord]:
        """What is on record of a run's tasks. Raises as ``RunArtifacts`` says."""
        asked = {1: "system.PipelineRun", 2: place.id}
        context = self._ask("GetContextByTypeAndName", asked, {1: ("found", {1: ("id", "int")})})
        if "id" not in context.get("found", {}):
            return ()
        which = {1: context["found"]["id"]}
        executions = self._ask(
            "GetExecutionsByContext", which, {1: ("found*", _EXECUTION)}
        )["found"]  # fmt: skip
        if not executions:
            return ()
        events = self._ask(
            "GetEventsByExecutionIDs",
            {1: [int(one.get("id", 0)) for one in executions]},
            {1: ("found*", _EVENT)},
        )["found"]
        shape: Shape = {1: ("found*", _ARTIFACT)}
        artifacts = self._ask("GetArtifactsByContext", which, shape)["found"]
        known = {one.get("id") for one in artifacts}
        # Those of other runs: what the cache gave, and what importers found.
        if missing := sorted({int(one.get("artifact", 0)) for one in events} - known):
            artifacts += self._ask("GetArtifactsByID", {1: missing}, shape)["found"]
        return tuple(_records(executions, events, artifacts, place))

    def _ask(self, method: str, fields: Any, shape: Shape) -> dict[str, Any]:
        if self._call is None:
            self._call = _connected(self._address)
        try:
            return decode(self._call(method, encode(fields)), shape)
        except Malformed as error:
            raise OutsideError(
                f"{self._address} does not answer as ML Metadata does",
                cause=str(error),
                next="check kubeflow.metadata",
            ) from None


def _connected(address: str) -> Call:
    """What makes a call and gives the answer's bytes. Nothing is sent yet."""
    try:
        import grpc
    except ImportError:
        raise ConfigError(
            "reading a run's outputs needs grpcio, which is not here",
            next="install ctflow[kubeflow]: `python -m pip install 'ctflow[kubeflow]'`",
        ) from None
    options = [("grpc.max_receive_message_length", _LARGEST), ("grpc.enable_retries", 0)]
    plain = address.removeprefix("https://")
    if plain != address:
        channel = grpc.secure_channel(plain, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.insecure_channel(plain, options)
    again = {grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE}

    def call(method: str, request: bytes) -> bytes:
        for attempt in range(1, _TRIES + 1):
            try:
                answer: bytes = channel.unary_unary(_SERVICE + method)(request, timeout=_CALL)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return b""  # so it answers, too, what is not there
                if error.code() not in again or attempt == _TRIES:
                    raise _explained(address, method, error) from None
            else:
                return answer
        raise AssertionError("the last try returns or raises")

    return call


def _explained(address: str, method: str, error: Any) -> OutsideError:
    code = error.code().name
    said = one_line(str(error.details() or ""), 200)
    if code == "UNIMPLEMENTED":
        return OutsideError(
            f"{address} is not ML Metadata", cause=said, next="check kubeflow.metadata"
        )
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return OutsideError(
            f"ML Metadata at {address} cannot be reached",
            cause=said or code,
            next="check kubeflow.metadata, and the port-forward if it names one",
        )
    return OutsideError(f"ML Metadata at {address} failed in {method}", cause=said or code)


def _records(
    executions: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    artifacts: Sequence[Mapping[str, Any]],
    place: RunPlace,
) -> Iterator[TaskRecord]:
    """The tasks that the executions are of. The last execution of a task counts: a retry's."""
    by_id = {int(one.get("id", 0)): _properties(one) for one in executions}
    types = {one.path: one.outputs for one in place.declared}
    names = Counter(path.rpartition(".")[2] for path in types)
    alone = {leaf: path for path in types if names[leaf := path.rpartition(".")[2]] == 1}
    latest: dict[str, int] = {}
    for number in sorted(by_id):
        path = _path(number, by_id)
        if "parent_dag_id" not in by_id[number]:
            # Where no group is on record, a name that only one task has tells which it is.
            path = alone.get(path, path)
        if path:
            latest[path] = number
    contents = {int(one.get("id", 0)): one for one in artifacts}
    tied: dict[int, list[Mapping[str, Any]]] = {}
    for event in events:
        tied.setdefault(int(event.get("execution", 0)), []).append(event)
    for path, number in latest.items():
        said, mine = by_id[number], tied.get(number, ())
        declared = types.get(task_of(path), {})
        yield TaskRecord(
            path,
            _tied(mine, contents, _OUTPUT, declared),
            _tied(mine, contents, _INPUT, {}),
            _parameters(said.get("inputs")),
            _parameters(said.get("outputs")),
            str(said.get("image") or ""),
        )


def _path(number: int, executions: Mapping[int, Mapping[str, Value]]) -> str:
    """A task's path: the names of the groups that it is in, and its own."""
    parts: list[str] = []
    seen: set[int] = set()
    while number in executions and number not in seen:
        seen.add(number)
        said = executions[number]
        parent = said.get("parent_dag_id")
        above = executions.get(parent, {}) if isinstance(parent, int) else {}
        index = said.get("iteration_index")
        if isinstance(index, int):
            parts.append(str(index))
        if not isinstance(index, int) or "iteration_count" not in above:
            name = str(said.get("task_name") or "")
            if name:
                parts.append(name)
        number = parent if isinstance(parent, int) else 0
    return ".".join(reversed(parts))


def _tied(
    events: Sequence[Mapping[str, Any]],
    contents: Mapping[int, Mapping[str, Any]],
    kinds: tuple[int, int],
    declared: Mapping[str, str],
) -> dict[str, tuple[Artifact, ...]]:
    """The artifacts that events of these kinds name, by input or output."""
    found: dict[str, list[Artifact]] = {}
    for event in events:
        if event.get("type") not in kinds:
            continue
        steps = event.get("path", {}).get("steps", [])
        name = str(steps[0].get("key", "")) if steps else ""
        content = contents.get(int(event.get("artifact", 0)))
        if not name or content is None or (name == _LOGS and name not in declared):
            continue
        said = {k: _bare(v) for k, v in _properties(content).items() if k not in _ADDED}
        kind = str(content.get("type") or declared.get(name) or "system.Artifact")
        found.setdefault(name, []).append(
            Artifact(name, kind, str(content.get("uri", "")), metadata=said)
        )
    return {name: tuple(some) for name, some in found.items()}


def _properties(item: Mapping[str, Any]) -> dict[str, Value]:
    """The custom properties of an execution or an artifact as plain data."""
    return {
        str(one.get("key", "")): _plain(one.get("value", {})) for one in item.get("properties", [])
    }


def _plain(value: Mapping[str, Any]) -> Value:
    for kind in ("int", "double", "string", "bool"):
        if kind in value:
            return value[kind]
    if "struct" not in value:
        return None
    return _struct(value["struct"])


def _bare(value: Value) -> Value:
    """An artifact's property without what KFP puts around lists and dicts."""
    if isinstance(value, dict) and set(value) in ({"list"}, {"struct"}):
        return next(iter(value.values()))
    return value


def _struct(message: Mapping[str, Any]) -> dict[str, Value]:
    return {
        str(one.get("key", "")): _json(one.get("value", {})) for one in message.get("fields", [])
    }


def _json(value: Mapping[str, Any]) -> Value:
    if "number" in value:
        number = value["number"]
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    if "struct" in value:
        return _struct(value["struct"])
    if "list" in value:
        return [_json(one) for one in value["list"]["values"]]
    return value.get("string", value.get("bool"))


def _parameters(said: Value) -> dict[str, Value]:
    return dict(said) if isinstance(said, dict) else {}
