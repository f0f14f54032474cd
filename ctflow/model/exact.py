"""Builds dataclasses from data that fits them exactly, as what ctflow wrote does, without pydantic.

To import pydantic and to make its validators takes longer than most commands that read. Where
anything is not exactly of its type, nothing is built here, and pydantic decides.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

D = TypeVar("D")


class Inexact(Exception):
    """The data does not fit exactly."""


def exact(cls: type[D], data: Mapping[str, Any]) -> D:
    """Build ``cls`` from the data of its fields, as pydantic would.

    Raises:
        Inexact: a key is unknown or missing, or a value is not of its type.
    """
    known = _fields(cast("Any", cls))
    if not data.keys() <= known.keys():
        raise Inexact
    values = {name: _value(known[name][0], value) for name, value in data.items()}
    for name, (_, field) in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise Inexact
    return cls(**values)


@cache
def _fields(cls: Any) -> dict[str, tuple[Any, Field[Any]]]:
    hints = get_type_hints(cls)
    return {one.name: (hints[one.name], one) for one in fields(cls) if one.init}


def _value(hint: Any, value: Any, *, wide: bool = True) -> Any:
    """The value as ``hint`` wants it; ``wide``: a whole number does for a float."""
    if hint is Any:
        return value
    if hint in (str, int, bool, float, type(None)):
        if type(value) is hint:
            return value
        if wide and hint is float and type(value) is int and abs(value) < 2**53:
            return float(value)
        raise Inexact
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(args, value, wide)
    if origin is Literal:
        if any(type(value) is type(one) and value == one for one in args):
            return value
        raise Inexact
    if is_dataclass(hint) and isinstance(hint, type):
        if type(value) is not dict or not all(type(key) is str for key in value):
            raise Inexact
        return exact(hint, value)
    return _collection(origin, args, value, wide)


def _one_of(hints: tuple[Any, ...], value: Any, wide: bool) -> Any:
    # What fits as it is goes before what fits when it is widened.
    for widened in (False, True) if wide else (False,):
        for hint in hints:
            try:
                return _value(hint, value, wide=widened)
            except Inexact:
                continue
    raise Inexact


def _collection(origin: Any, args: tuple[Any, ...], value: Any, wide: bool) -> Any:
    if origin is tuple and type(value) in (list, tuple):
        hints = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        if len(hints) == len(value):
            pairs = zip(hints, value, strict=True)
            return tuple(_value(hint, one, wide=wide) for hint, one in pairs)
    elif origin is list and type(value) is list:
        return [_value(args[0], one, wide=wide) for one in value]
    elif origin in (dict, Mapping) and type(value) is dict:
        return {
            _value(args[0], key, wide=False): _value(args[1], one, wide=wide)
            for key, one in value.items()
        }
    raise Inexact
