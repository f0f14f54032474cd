"""The syntax of the expressions in a compiled package: a part of CEL, read into a tree.

Literals, arithmetic, comparison, logic, indexing, lists and function calls. Nodes are tuples whose
first item names their kind; ``conditions`` evaluates them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

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
            if re.search("[.eE]", word):
                return ("value", float(word))
            if len(word) > 20 or int(word) > 1 << 63:
                raise ExpressionError(f"{word[:30]} is beyond 64-bit integers")
            return ("value", int(word))
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
