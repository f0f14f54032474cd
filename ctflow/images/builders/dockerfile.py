"""Reads Dockerfiles: their instructions, and the images that they start from.

As far as ctflow needs it, after Docker's Dockerfile reference: comments, parser directives, line
continuations, here-documents, ``ARG`` values in ``FROM``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ctflow.errors import ConfigError

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(.*?)\s*$")
_HEREDOC = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?:(:?[-+])([^}]*))?\}|(\w+))")
_HEREDOC_TAKERS = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, the rest, and its first line's number (from 1)."""

    word: str
    rest: str
    line: int
    heredoc: bool = False


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, continuation lines joined."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape(lines)
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        line, start = lines[at].strip(), at + 1
        at += 1
        if not line or line.startswith("#"):
            continue
        while line.endswith(escape) and at < len(lines):
            following = lines[at].strip()
            at += 1
            if following.startswith("#"):
                continue
            line = line[:-1] + following
        line = line.removesuffix(escape)
        word, _, rest = line.partition(" ")
        ends = _HEREDOC.findall(rest) if word.upper() in _HEREDOC_TAKERS else []
        for _, end in ends:
            while at < len(lines) and lines[at].strip() != end:
                at += 1
            at += 1
        found.append(Instruction(word.upper(), rest.strip(), start, bool(ends)))
    return found


def _escape(lines: list[str]) -> str:
    for line in lines:
        match = _DIRECTIVE.match(line)
        if not match:
            break
        if match[1].lower() == "escape" and match[2] in ("\\", "`"):
            return match[2]
    return "\\"


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+other}`` replaced."""

    def one(match: re.Match[str]) -> str:
        name, operator, other = match[1] or match[4], match[2] or "", match[3] or ""
        value = values.get(name)
        there = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("-"):
            return (value or "") if there else other
        if operator.endswith("+"):
            return other if there else ""
        return value or ""

    return _VARIABLE.sub(one, text)


def bases(text: str, args: Mapping[str, str]) -> list[str]:
    """The outside images that a Dockerfile starts from or copies from, in order, each once.

    Raises:
        ConfigError: a FROM whose image is nothing once the arguments are filled in.
    """
    values: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    started = False
    for one in instructions(text):
        if one.word == "ARG" and not started:
            name, equals, default = one.rest.partition("=")
            values[name] = args.get(name, expand(_unquote(default), values) if equals else "")
        elif one.word == "FROM":
            started = True
            words = [word for word in one.rest.split() if not word.startswith("--")]
            image = expand(words[0], values) if words else ""
            if not image:
                raise ConfigError(
                    f"Dockerfile line {one.line}: FROM names no image",
                    next="give its ARG a default, or set it in images.args",
                )
            if image not in stages and image != "scratch":
                found[image] = None
            if len(words) >= 3 and words[1].upper() == "AS":
                stages.add(words[2])
        elif one.word == "COPY":
            for word in one.rest.split():
                source = word.removeprefix("--from=")
                if source != word and source not in stages and not source.isdigit():
                    found[source] = None
    return list(found)


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
