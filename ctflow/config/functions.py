"""Where a function of the project is that a gate rule names: which step's, and at which place."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.lib.digests import digest_bytes
from ctflow.ports import Scm, StepSource

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule


def functions_of(rules: Sequence[GateRule]) -> tuple[str, ...]:
    """The functions that rules name, each once."""
    named = (rule.of.function for rule in rules if rule.of is not None)
    return tuple(dict.fromkeys(one for one in named if one is not None))


def steps_with(function: str, steps: Sequence[StepSource], root: Path) -> dict[str, PurePosixPath]:
    """The steps that have the function's file, and its path in each one's image.

    Args:
        function: ``path/of/file.py:name``, the file relative to ``root``.

    Raises:
        ConfigError: no step has it.
    """
    path = root.resolve() / function.rpartition(":")[0]
    found = {step.name: file for step in steps if (file := _within(step, path))}
    if not found:
        raise ConfigError(
            f"gate: {shown(function)} is in no step's folder",
            cause="a function runs in the environment of the step that it belongs to",
            next="move it into one, such as steps/evaluate",
        )
    return found


def check_functions(rules: Sequence[GateRule], steps: Sequence[StepSource], root: Path) -> None:
    """See, before anything is trained, that the functions are there.

    Raises:
        ConfigError: one is in no step, has no file, or its file, which is no Python, not its name.
    """
    for function in functions_of(rules):
        steps_with(function, steps, root)
        file, _, name = function.rpartition(":")
        try:
            tree = ast.parse((root / file).read_bytes())
        except OSError as error:
            raise ConfigError(
                f"gate: cannot read {shown(file)}: {error.strerror}",
                next="correct `function` in ctflow.yaml, or write the file",
            ) from None
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"gate: {shown(file)} is no Python: {shown(str(error))}") from None
        if name not in _names(tree):
            raise ConfigError(
                f"gate: {shown(file)} has no function {name}",
                next="correct `function` in ctflow.yaml, or write the function",
            )


def code_of(rules: Sequence[GateRule], scm: Scm, rev: str) -> dict[str, str]:
    """The digest of each function's file at a commit, by function; empty where there is none."""
    found = {}
    for function in functions_of(rules):
        data = scm.read(rev, function.rpartition(":")[0])
        found[function] = digest_bytes(data) if data is not None else ""
    return found


def shown(text: str, limit: int = 100) -> str:
    """A text of the project's for a message: on one line, printable, cut."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def _names(tree: ast.Module) -> set[str]:
    """What a file may define, as far as that is written in it; a star import may bring anything."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
    return found


def _within(step: StepSource, path: Path) -> PurePosixPath | None:
    """The file's path in the step's image, if it is part of that."""
    for place, prefix in ((step.folder, ""), *((one, one.name) for one in step.include)):
        if path == place:
            return PurePosixPath(prefix)
        if path.is_relative_to(place):
            return PurePosixPath(prefix) / path.relative_to(place).as_posix()
    return None
