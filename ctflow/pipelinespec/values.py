"""KFP's parameter values: types, conversions, and how they read on a command line.

Numbers stand in the compiled package as doubles (``30.0``); what a parameter's type says decides
what they are. In lists and structs a whole double is an integer again, as it is for Kubeflow's
backend, which writes ``1`` for ``1.0``; values that tasks write keep what they wrote.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ctflow.model import Value

STRING = "STRING"
INTEGER = "NUMBER_INTEGER"
DOUBLE = "NUMBER_DOUBLE"
BOOLEAN = "BOOLEAN"
LIST = "LIST"
STRUCT = "STRUCT"
FINAL_STATUS = "TASK_FINAL_STATUS"
TASK_CONFIG = "TASK_CONFIG"
TYPES = frozenset({STRING, INTEGER, DOUBLE, BOOLEAN, LIST, STRUCT, FINAL_STATUS, TASK_CONFIG})

_NAMES = {
    STRING: "a string",
    INTEGER: "an integer",
    DOUBLE: "a number",
    BOOLEAN: "true or false",
    LIST: "a list",
    STRUCT: "a dict",
}
#: Above this, doubles no longer hold every integer.
_EXACT = 1 << 53


class Mismatch(ValueError):
    """A value that its parameter's type does not take; the text says what is wanted."""


def type_name(parameter_type: str) -> str:
    """A parameter type in plain words."""
    return _NAMES.get(parameter_type, parameter_type)


def whole(value: Value) -> Value:
    """A value of the package's JSON with whole doubles as integers, in lists and dicts too."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def constant(value: Value, parameter_type: str | None) -> Value:
    """A constant of the compiled package as a value of its type."""
    if parameter_type == DOUBLE and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if parameter_type == DOUBLE else whole(value)


def convert(value: Value, parameter_type: str) -> Value:
    """``value`` as a parameter of that type takes it, as Kubeflow's backend does.

    A string takes any value, in its JSON form; no other type takes a string.

    Raises:
        Mismatch: it does not fit.
    """
    if value is None:
        return None
    if parameter_type == STRING:
        return value if isinstance(value, str) else text(value)
    fits = _FITS.get(parameter_type)
    if fits is not None and not fits(value):
        raise Mismatch(f"{_short(value)} is not {type_name(parameter_type)}")
    if parameter_type == INTEGER:
        return int(value)
    return float(value) if parameter_type == DOUBLE else value


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FITS: dict[str, Any] = {
    INTEGER: lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    DOUBLE: _is_number,
    BOOLEAN: lambda value: isinstance(value, bool),
    LIST: lambda value: isinstance(value, list),
    STRUCT: lambda value: isinstance(value, dict),
    FINAL_STATUS: lambda value: isinstance(value, dict),
    TASK_CONFIG: lambda value: isinstance(value, dict),
}


def _short(value: Value) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def text(value: Value) -> str:
    """A value as a command line or a string parameter has it: strings as they are, else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return number(value)
    return json.dumps(value)


def number(value: float) -> str:
    """A number in positional notation, with the fewest digits that read back to it (``0.1``)."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value.is_integer() and abs(value) < 1e16:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    shown = repr(value)
    if "e" not in shown:
        return shown
    from decimal import Decimal

    return format(Decimal(shown), "f")


def read_file(content: str, parameter_type: str) -> Value:
    """An output parameter from the file that a task wrote, read as Kubeflow's launcher does.

    Raises:
        Mismatch: the content is not of that type.
    """
    if parameter_type == STRING:
        return content
    word = content.strip()
    try:
        if parameter_type == INTEGER:
            return _integer(word)
        if parameter_type == DOUBLE:
            return _double(word)
        if parameter_type == BOOLEAN:
            return BOOLEANS[word]
        value = strict_json(content)
    except (ValueError, KeyError, RecursionError):
        raise Mismatch(f"{_short(content)} is not {type_name(parameter_type)}") from None
    if value is None:
        raise Mismatch(f"null is not {type_name(parameter_type)}")
    return convert(value, parameter_type)


def strict_json(content: str | bytes) -> Value:
    """The value of a JSON text.

    Raises:
        ValueError: it is none; Python's NaN and Infinity are no JSON either.
    """
    return json.loads(content, parse_constant=_no_constant)


def _no_constant(word: str) -> Value:
    raise ValueError(f"{word} is not JSON")


#: What Go's strconv.ParseInt and ParseFloat take in base 10; Python takes underscores and the
#: digits of all scripts as well.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DOUBLE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?inf(?:inity)?|nan", re.IGNORECASE)


def _integer(word: str) -> int:
    if not _INTEGER.fullmatch(word) or len(word) > 20:
        raise ValueError(word)
    found = int(word)
    if not -(1 << 63) <= found < 1 << 63:
        raise ValueError(word)
    return found


def _double(word: str) -> float:
    if _NOT_FINITE.fullmatch(word):
        return float(word)
    if not _DOUBLE.fullmatch(word) or math.isinf(found := float(word)):
        raise ValueError(word)
    return found


#: What Go's strconv.ParseBool takes, for Kubeflow's launcher reads the files with it.
BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


def parse_flag(raw: str, parameter_type: str) -> Value:
    """A parameter as written on the command line (``--param name=raw``) or in ctflow.yaml.

    A list or a dict may be JSON, or YAML on one line (``[a, b]``).

    Raises:
        Mismatch: it is not of that type.
    """
    if parameter_type == STRING:
        return raw
    try:
        return read_file(raw, parameter_type)
    except Mismatch:
        if parameter_type not in (LIST, STRUCT):
            raise
        return convert(_yaml(raw), parameter_type)


def _yaml(raw: str) -> Value:
    import yaml

    from ctflow.lib.yaml_values import plain

    try:
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise Mismatch(f"{_short(raw)} is neither JSON nor YAML") from None
    return None if node is None else plain(node)


def check_finite(value: Value) -> bool:
    """Whether there is neither NaN nor an infinity in the value (KFP cannot pass those on)."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(check_finite, value))
    if isinstance(value, dict):
        return all(map(check_finite, value.values()))
    return True
