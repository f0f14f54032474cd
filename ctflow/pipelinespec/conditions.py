"""The expressions of a compiled package: trigger conditions and parameter selectors.

They are written in CEL (the Common Expression Language). Here is the part of it that can be said
about parameters: literals, arithmetic, comparison, logic, indexing, the conversions and
``parseJson``. Expressions are parsed and evaluated, never handed to Python; one that cannot be
parsed, or has no value, is an error and never just false.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from ctflow.pipelinespec.cel import ExpressionError, Node, parse
from ctflow.pipelinespec.values import BOOLEANS, text

#: Above this, doubles no longer hold every integer.
_EXACT = 1 << 53
_INT64 = 1 << 63


def evaluate(source: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Raises:
        ExpressionError: it cannot be parsed, or has no value.
    """
    try:
        return _evaluate(parse(source), variables)
    except (OverflowError, ZeroDivisionError, RecursionError) as error:
        raise ExpressionError(f"{source!r} has no value: {error}") from None


def condition(source: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a trigger condition holds for a task's input parameters.

    Raises:
        ExpressionError: it cannot be parsed, has no value, or one that is neither true nor false.
    """
    found = evaluate(source, {"inputs": {"parameter_values": _as_doubles(dict(parameters))}})
    if not isinstance(found, bool):
        raise ExpressionError(f"{source!r} is neither true nor false but {found!r}")
    return found


def select(source: str, value: Any) -> Any:
    """Apply a parameter's selector, such as ``parseJson(string_value)["a"]``, to its value.

    Raises:
        ExpressionError: it cannot be parsed, or has no value.
    """
    variables: dict[str, Any] = {"string_value": text(value)}
    if isinstance(value, bool):
        variables["bool_value"] = value
    elif isinstance(value, (int, float)):
        variables["number_value"] = _as_doubles(value)
    elif isinstance(value, dict):
        variables["struct_value"] = _as_doubles(value)
    elif isinstance(value, list):
        variables["list_value"] = _as_doubles(value)
    return evaluate(source, variables)


def _as_doubles(value: Any) -> Any:
    """Integers rounded as doubles round them: KFP's parameters are protobuf's numbers there."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return int(float(value))
    if isinstance(value, list):
        return [_as_doubles(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_doubles(item) for key, item in value.items()}
    return value


def _evaluate(node: Node, variables: Mapping[str, Any]) -> Any:
    kind = node[0]
    if kind == "value":
        return node[1]
    if kind == "name":
        if node[1] not in variables:
            raise ExpressionError(f"there is no {node[1]!r}")
        return variables[node[1]]
    if kind == "list":
        return [_evaluate(item, variables) for item in node[1:]]
    if kind == "index":
        return _index(_evaluate(node[1], variables), _evaluate(node[2], variables))
    if kind == "call":
        return _call(node[1], [_evaluate(item, variables) for item in node[2:]])
    if kind == "not":
        return not _boolean(_evaluate(node[1], variables))
    if kind == "neg":
        return -_number(_evaluate(node[1], variables))
    if kind == "if":
        chosen = node[2] if _boolean(_evaluate(node[1], variables)) else node[3]
        return _evaluate(chosen, variables)
    if node[1] in ("&&", "||"):
        return _logic(node, variables)
    return _OPERATORS[node[1]](_evaluate(node[2], variables), _evaluate(node[3], variables))


def _logic(node: Node, variables: Mapping[str, Any]) -> bool:
    """CEL's ``&&`` and ``||``: one side that decides makes an error of the other unimportant."""
    decides = node[1] == "||"
    problem: ExpressionError | None = None
    for side in node[2:]:
        try:
            if _boolean(_evaluate(side, variables)) is decides:
                return decides
        except ExpressionError as error:
            problem = error
        except (OverflowError, ZeroDivisionError) as error:
            problem = ExpressionError(str(error))
    if problem is not None:
        raise problem
    return not decides


def _index(container: Any, key: Any) -> Any:
    if isinstance(container, Mapping) and isinstance(key, str):
        if key in container:
            return container[key]
        raise ExpressionError(f"there is no {key!r}")
    if isinstance(container, list) and _is_number(key) and float(key).is_integer():
        if 0 <= int(key) < len(container):
            return container[int(key)]
        raise ExpressionError(f"there is no item {key}")
    raise ExpressionError(f"cannot look up {key!r} in {_kind(container)}")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{value!r} is neither true nor false")
    return value


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise ExpressionError(f"{value!r} is not a number")
    return value


def _equal(left: Any, right: Any) -> bool:
    """Equal in CEL's sense: numbers by value, everything else only within one type."""
    if _is_number(left) and _is_number(right):
        same = isinstance(left, int) and isinstance(right, int)
        return bool(left == right) if same else float(left) == float(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def checked(left: Any, right: Any) -> bool:
        numbers = _is_number(left) and _is_number(right)
        if not numbers and not (type(left) is type(right) and isinstance(left, (str, bool))):
            raise ExpressionError(f"cannot compare {left!r} with {right!r}")
        return compare(left, right)

    return checked


def _add(left: Any, right: Any) -> Any:
    for kind in (str, list):
        if isinstance(left, kind) and isinstance(right, kind):
            return left + right  # type: ignore[operator]
    return _in_range(_number(left) + _number(right))


def _in_range(value: Any) -> Any:
    """CEL's integers have 64 bits; more is an error of the expression."""
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ExpressionError("the result is beyond 64-bit integers")
    return value


def _divide(left: Any, right: Any) -> Any:
    if isinstance(_number(left), int) and isinstance(_number(right), int):
        whole = abs(left) // abs(right)
        return _in_range(whole if (left < 0) == (right < 0) else -whole)
    if right == 0:
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
    return left / right


def _modulo(left: Any, right: Any) -> Any:
    if not isinstance(_number(left), int) or not isinstance(_number(right), int):
        raise ExpressionError("% is for integers")
    return left - right * _divide(left, right)


def _contains(left: Any, right: Any) -> bool:
    if isinstance(right, Mapping):
        return left in right
    if isinstance(right, list):
        return any(_equal(left, item) for item in right)
    raise ExpressionError(f"cannot look in {_kind(right)}")


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "in": _contains,
    "+": _add,
    "-": lambda left, right: _in_range(_number(left) - _number(right)),
    "*": lambda left, right: _in_range(_number(left) * _number(right)),
    "/": _divide,
    "%": _modulo,
}


def _call(name: str, arguments: list[Any]) -> Any:
    if name not in _FUNCTIONS:
        raise ExpressionError(f"there is no function {name}")
    if len(arguments) != 1:
        raise ExpressionError(f"{name} takes one argument")
    try:
        return _FUNCTIONS[name](arguments[0])
    except (ValueError, TypeError, KeyError) as error:
        raise ExpressionError(f"{name}({arguments[0]!r}): {error}") from None


def _to_bool(value: Any) -> bool:
    return BOOLEANS[value] if isinstance(value, str) else _boolean(value)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: _in_range(int(value if isinstance(value, str) else _number(value))),
    "double": lambda value: float(value) if isinstance(value, str) else float(_number(value)),
    "string": text,
    "bool": _to_bool,
    "size": len,
    "parseJson": json.loads,
    "dyn": lambda value: value,
}
