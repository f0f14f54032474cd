"""Lines of a requirements.txt: which package one names. Nothing here installs anything."""

from __future__ import annotations

import re

#: A name, extras, then a version, an address or a marker. Options and paths are no packages.
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"(?:$|[<>=!~(;]|@\s*https?://)"
)
_HASH = re.compile(r"\s--hash[=\s]\S+")
#: Options that say where packages come from, or which files of them: they go with each package.
_SOURCE = re.compile(
    r"(?:--(?:extra-)?index-url|--find-links|--no-binary|--only-binary|--pre|-i|-f)\b"
)


def normalise(text: str) -> tuple[str, ...]:
    """The lines that count: continuations joined, comments and blank lines left out."""
    joined = text.replace("\r\n", "\n").replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line) for line in joined.split("\n"))
    return tuple(" ".join(line.split()) for line in lines if line.strip())


def name_of(line: str) -> str:
    """The package that a line names, as package indexes compare names; empty: it names none."""
    found = _REQUIREMENT.match(line)
    return re.sub(r"[-_.]+", "-", found["name"]).lower() if found and line.isprintable() else ""


def is_requirement(line: str) -> bool:
    """Whether a line names a package, and nothing else: no option, no file."""
    return bool(name_of(line)) and " -" not in line


def is_pinned(line: str) -> bool:
    """Whether a line asks for one version only."""
    return "==" in line.partition(";")[0] or "@" in line


def restricted(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of a requirements.txt that name these packages, and where they come from.

    Without hashes: with one hash a line, an installer wants one of every package.
    """
    found = [_HASH.sub("", line) for line in normalise(text)]
    chosen = [line for line in found if name_of(line) in names]
    return (*(line for line in found if _SOURCE.match(line)), *chosen) if chosen else ()
