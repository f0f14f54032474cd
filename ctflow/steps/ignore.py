"""``.dockerignore``: Docker's pattern rules.

One pattern a line; ``#`` in the first column starts a comment; ``!`` brings back. ``*`` and ``?``
stay inside one name, ``**`` spans any number of folders (none too), ``[a-z]`` and ``[^a-z]`` are
classes, a backslash takes the next character literally. A pattern is anchored at the context's
root; it also matches everything below what it matches. The last pattern that matches decides.
https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from ctflow.lib.quick import dataclass


@dataclass(frozen=True)
class IgnoreRules:
    """Parsed patterns: (matcher, whether it ignores or brings back), in the order of the file."""

    rules: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def parse(cls, text: str, before: Iterable[str] = ()) -> IgnoreRules:
        """Rules of a file's text, after the patterns of ``before``.

        Raises:
            ValueError: a pattern that Docker would refuse, with its line.
        """
        rules = [_rule(pattern) for pattern in before]
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("#") or not line.strip():
                continue
            try:
                rules.append(_rule(line.strip()))
            except (ValueError, re.error) as error:
                raise ValueError(f"line {number}: {line.strip()!r}: {error}") from None
        return cls(tuple(rule for rule in rules if rule is not None))

    def ignored(self, path: str) -> bool:
        """Whether ``path`` (POSIX, relative to the context's root) is left out."""
        ignored = False
        for matcher, ignores in self.rules:
            if ignores != ignored and matcher.fullmatch(path):
                ignored = ignores
        return ignored

    def may_return(self, folder: str) -> bool:
        """Whether something below an ignored ``folder`` may be brought back: it must be read."""
        return any(not ignores for _, ignores in self.rules)


def _rule(pattern: str) -> tuple[re.Pattern[str], bool] | None:
    ignores = not pattern.startswith("!")
    if not ignores:
        pattern = pattern[1:].strip()
        if not pattern:
            raise ValueError("'!' without a pattern")
    cleaned = posixpath.normpath(pattern).lstrip("/")
    if cleaned in {"", "."}:
        return None  # the root itself: Docker leaves it out of its rules too
    # What is below a match matches too, hence the tail.
    return re.compile(f"{_expression(cleaned)}(?:/.*)?", re.DOTALL), ignores


def _expression(pattern: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
            parts.append(".*" if at == len(pattern) else "(?:.*/)?")
            continue
        if character == "*":
            parts.append("[^/]*")
        elif character == "?":
            parts.append("[^/]")
        elif character == "[":
            expression, at = _class(pattern, at)
            parts.append(expression)
            continue
        elif character == "\\":
            at += 1
            if at == len(pattern):
                raise ValueError("nothing follows the last backslash")
            parts.append(re.escape(pattern[at]))
        else:
            parts.append(re.escape(character))
        at += 1
    return "".join(parts)


def _class(pattern: str, start: int) -> tuple[str, int]:
    """The expression of the class at ``start``, and where the pattern goes on."""
    at = start + 1
    negated = pattern.startswith("^", at)
    at += negated
    parts: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not parts):
        if pattern[at] == "\\" and at + 1 < len(pattern):
            at += 1
            parts.append(re.escape(pattern[at]))
        elif pattern[at] == "-" and parts:
            parts.append("-")
        else:
            parts.append(re.escape(pattern[at]))
        at += 1
    if at >= len(pattern) or not parts:
        raise ValueError("'[' without its ']'")
    # A class never matches the separator, negated or not.
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]", at + 1
