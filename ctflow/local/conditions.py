"""The expressions of a compiled package: trigger conditions and parameter selectors.

They are written in CEL (the Common Expression Language). Here is the part of it that can be said
about parameters: literals, arithmetic, comparison, logic, indexing, the conversions and
``parseJson``. Expressions are parsed and evaluated, never handed to Python; one that cannot be
parsed, or has no value, is an error and never just false.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ctflow.local.values import BOOLEANS, text

Node = tuple[Any, ...]


class ExpressionError(ValueError):
    """An expression that cannot be parsed, or that has no value for these inputs."""


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?u?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<string>"(?:[^"\\\n\r]|\\.)*"|'(?:[^'\\\n\r]|\\.)*')
  | (?P<op>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_BINARY = {
    "||": 1, "&&": 2,
    "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))"
)


def _unescape(raw: str) -> str:
    def one(match: re.Match[str]) -> str:
        for group, base in ((1, 16), (2, 16), (3, 16), (4, 8)):
            if match[group]:
                return chr(int(match[group], base))
        if match[5] not in _ESCAPES:
            raise ExpressionError(f"unknown escape \\{match[5]}")
        return _ESCAPES[match[5]]

    return _ESCAPE.sub(one, raw)


class _Parser:
    def __init__(self, source: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at, source = 0, source.rstrip()
        while at < len(source):
            match = _TOKEN.match(source, at)
            if match is None or match.lastgroup is None:
                raise ExpressionError(f"cannot read {source[at : at + 20]!r} in {source!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self.source = source
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        kind, word = self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")
        return word if kind in ("op", "name") else ""

    def take(self, word: str) -> bool:
        if self.peek() == word:
            self.at += 1
            return True
        return False

    def want(self, word: str) -> None:
        if not self.take(word):
            raise ExpressionError(f"{word!r} is missing in {self.source!r}")

    def parse(self) -> Node:
        node = self.ternary()
        if self.at < len(self.tokens):
            raise ExpressionError(f"cannot read {self.tokens[self.at][1]!r} in {self.source!r}")
        return node

    def ternary(self) -> Node:
        self.depth += 1
        if self.depth > 100:
            raise ExpressionError("nested too deeply")
        node = self.binary(1)
        if self.take("?"):
            then = self.ternary()
            self.want(":")
            node = ("if", node, then, self.ternary())
        self.depth -= 1
        return node

    def binary(self, least: int) -> Node:
        left = self.unary()
        while (power := _BINARY.get(self.peek(), 0)) >= least:
            operator = self.peek()
            self.at += 1
            left = ("op", operator, left, self.binary(power + 1))
        return left

    def unary(self) -> Node:
        signs = []
        while self.peek() in ("!", "-"):
            signs.append(self.peek())
            self.at += 1
        node = self.postfix()
        for sign in reversed(signs):
            node = ("not" if sign == "!" else "neg", node)
        return node

    def postfix(self) -> Node:
        node = self.primary()
        while True:
            if self.take("["):
                node = ("index", node, self.ternary())
                self.want("]")
            elif self.take("."):
                node = ("index", node, ("value", self.name()))
            else:
                return node

    def name(self) -> str:
        kind, word = self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")
        if kind != "name":
            raise ExpressionError(f"a name is missing in {self.source!r}")
        self.at += 1
        return word

    def primary(self) -> Node:
        if self.take("("):
            node = self.ternary()
            self.want(")")
            return node
        if self.take("["):
            return ("list", *self.arguments("]"))
        if self.at >= len(self.tokens):
            raise ExpressionError(f"{self.source!r} ends too early")
        kind, word = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            word = word.removesuffix("u")
            return ("value", float(word) if re.search("[.eE]", word) else int(word))
        if kind == "string":
            return ("value", _unescape(word[1:-1]))
        if kind == "name":
            if word in _CONSTANTS:
                return ("value", _CONSTANTS[word])
            return ("call", word, *self.arguments(")")) if self.take("(") else ("name", word)
        raise ExpressionError(f"cannot read {word!r} in {self.source!r}")

    def arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self.take(end):
            if found:
                self.want(",")
            found.append(self.ternary())
        return found


_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}


@lru_cache(maxsize=1024)
def parse(source: str) -> Node:
    """The syntax tree of an expression.

    Raises:
        ExpressionError: it is not one.
    """
    return _Parser(source).parse()


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
    found = evaluate(source, {"inputs": {"parameter_values": parameters}})
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
        variables["number_value"] = value
    elif isinstance(value, dict):
        variables["struct_value"] = value
    elif isinstance(value, list):
        variables["list_value"] = value
    return evaluate(source, variables)


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
        return bool(left == right)
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
    return _number(left) + _number(right)


def _divide(left: Any, right: Any) -> Any:
    if isinstance(_number(left), int) and isinstance(_number(right), int):
        return int(math.copysign(abs(left) // abs(right), left * right))
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
    "-": lambda left, right: _number(left) - _number(right),
    "*": lambda left, right: _number(left) * _number(right),
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
    "int": lambda value: int(value) if isinstance(value, str) else int(_number(value)),
    "double": lambda value: float(value) if isinstance(value, str) else float(_number(value)),
    "string": text,
    "bool": _to_bool,
    "size": len,
    "parseJson": json.loads,
    "dyn": lambda value: value,
}
