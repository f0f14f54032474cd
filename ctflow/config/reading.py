"""Reads the text of ``ctflow.yaml``: plain data, the lines of its keys, and the checked project."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ctflow.config.project import Project
from ctflow.errors import ConfigError
from ctflow.lib.yaml_values import plain

FILE_NAME = "ctflow.yaml"
PREFIX = "CTFLOW_"
PARAMETERS = "parameters"

Loc = tuple[str | int, ...]
#: YAML reads ``1``, ``on`` or ``null`` as other things than names.
_TEXT_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(
    text: str,
    where: str,
    variables: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> tuple[Project, dict[str, str]]:
    """The project that a ``ctflow.yaml`` describes, and the origin of each value by dotted key.

    Args:
        where: names the file in messages.
        variables: those that are settings, whole names; ``CTFLOW_KUBEFLOW__HOST``.
        flags: ``key.sub=value`` words, as given to ``--set``; they outrank the variables.

    Raises:
        ConfigError: it is not valid; with the line, the variable or the flag, and the mend.
    """
    data, lines = parse(text, where)
    origins = {_dotted(loc): f"{FILE_NAME}:{line}" for loc, line in lines.items()}
    for key, raw in sorted((variables or {}).items()):
        loc = tuple(key[len(PREFIX) :].lower().split("__"))
        _put(data, loc, _value(raw, key, loc), key)
        _outrank(origins, loc, key)
    for flag in flags:
        name, equals, raw = flag.partition("=")
        if not equals:
            raise ConfigError(f"--set {flag} has no value", next="write --set key=value")
        loc = tuple(name.split("."))
        _put(data, loc, _value(raw, f"--set {name}", loc), f"--set {name}")
        _outrank(origins, loc, f"--set {name}")
    return _validate(data, where, lines, origins), origins


def parse(text: str, where: str) -> tuple[dict[str, Any], dict[Loc, int]]:
    """YAML text to plain data and the line (from 1) of each key.

    Raises:
        ConfigError: not YAML, not a mapping, or a key written twice.
    """
    lines: dict[Loc, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise ConfigError(f"{where} is empty", next="start it with `project: name`")
        _walk(node, (), lines, where)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader)
        _keep_parameters(data, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{where}{line}: not valid YAML: {error.problem or error.context}",
            next="check the indentation and quotes there",
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is not a mapping of keys", next="start it with `project: name`")
    return data, lines


def _keep_parameters(data: Any, node: yaml.Node) -> None:
    """Put the parameters into ``data`` as they are written; see ``ctflow.lib.yaml_values``."""
    if not isinstance(node, yaml.MappingNode) or not isinstance(data, dict):
        return
    for key, value in node.value:
        if key.value == PARAMETERS and isinstance(value, yaml.MappingNode):
            data[PARAMETERS] = plain(value)


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int], where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag not in _TEXT_TAGS:
                raise ConfigError(
                    f"{where}:{key.start_mark.line + 1}: a key is not text",
                    next="put it in quotes, if it is meant",
                )
            here = (*loc, str(key.value))
            if here in lines:
                raise ConfigError(
                    f"{where}:{key.start_mark.line + 1}: key {key.value!r} is there twice",
                    next=f"remove one (the first is on line {lines[here]})",
                )
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*loc, index)
            lines[here] = value.start_mark.line + 1
            _walk(value, here, lines, where)


def _value(raw: str, where: str, loc: Loc) -> Any:
    try:
        if loc[0] == PARAMETERS:
            node = yaml.compose(raw, Loader=_Loader)
            return None if node is None else plain(node)
        return yaml.load(raw, Loader=_Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError:
        raise ConfigError(f"{where}: {raw!r} is not a YAML value", next="quote it") from None


def _put(data: dict[str, Any], loc: tuple[str | int, ...], value: Any, where: str) -> None:
    at: Any = data
    for part in loc[:-1]:
        if not isinstance(at.get(part, {}), dict):
            raise ConfigError(f"{where}: {part!r} holds a value, not keys")
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise ConfigError(f"{where}: {part!r} holds no keys")
    at[loc[-1]] = value


def _validate(
    data: dict[str, Any], file: str, lines: Mapping[Loc, int], origins: Mapping[str, str]
) -> Project:
    try:
        return Project.model_validate(data)
    except ValidationError as error:
        # A misspelt key also shows as a missing one: name the misspelling first.
        found = error.errors(include_url=False)
        first = min(found, key=lambda one: one["type"] != "extra_forbidden")
        loc: Loc = tuple(first["loc"])
        origin = _nearest(loc, origins)
        if not origin or origin.startswith(FILE_NAME):
            where = f"{file}:{_line(loc, lines)}"
        else:
            where = origin
        fact, mend = _explain(first, loc)
        more = error.error_count() - 1
        details = (f"and {more} more",) if more else ()
        raise ConfigError(f"{where}: {fact}", next=mend, details=details) from None


def _outrank(origins: dict[str, str], loc: Loc, origin: str) -> None:
    """Note where a value came from; what it took the place of came from nowhere any more."""
    key = _dotted(loc)
    for other in [name for name in origins if name.startswith(f"{key}.")]:
        del origins[other]
    origins[key] = origin


def _nearest(loc: Loc, origins: Mapping[str, str]) -> str:
    """Where the value at ``loc``, or the nearest one around it, came from."""
    around = (_dotted(loc[:end]) for end in range(len(loc), 0, -1))
    return next((origins[key] for key in around if key in origins), "")


def _explain(error: Any, loc: Loc) -> tuple[str, str]:
    key = _dotted(loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r}", mend
    if kind == "missing":
        return f"{key!r} is missing", f"add `{loc[-1]}: ...`"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:] if kind != "value_error" else message
    if not key:
        return message, "see `ctflow schema`"
    if kind == "value_error":
        return f"{key}: {message}", "correct it there"
    return f"{key}: {message}, not {error['input']!r}", "see `ctflow schema`"


def _line(loc: Loc, lines: Mapping[Loc, int]) -> int:
    """The line of the longest known prefix of ``loc``; 1 where nothing of it is in the file."""
    for end in range(len(loc), 0, -1):
        if loc[:end] in lines:
            return lines[loc[:end]]
    return 1


def _dotted(loc: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in loc)


def known_keys(loc: Loc) -> list[str]:
    """The keys that the models know at ``loc``."""
    at: Any = Project
    for part in loc:
        at = _model_in(at.model_fields[part].annotation) if _has(at, part) else at
    return sorted(at.model_fields) if _is_model(at) else []


def _has(model: Any, part: str | int) -> bool:
    return _is_model(model) and part in model.model_fields


def _is_model(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def _model_in(annotation: Any) -> Any:
    """The model inside ``tuple[Model, ...]``, ``dict[str, Model]`` or ``Model | None``."""
    if _is_model(annotation):
        return annotation
    if get_origin(annotation) in (tuple, dict, list, Union, types.UnionType):
        for argument in get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None
