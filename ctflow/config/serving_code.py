"""The predictor's code as a commit has it: the serving folder, and what it includes.

An include lies at the top of the code, under its own name, as in the context of a step's image.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.ports import Scm, TreeFile

if TYPE_CHECKING:
    from ctflow.config.project import ServingConfig


def folder_of(serving: ServingConfig) -> str:
    """The serving folder's path in a commit."""
    return serving.folder.strip("/")


def code_files(scm: Scm, commit: str, serving: ServingConfig) -> dict[str, tuple[str, TreeFile]]:
    """By the path in the code: the path in the commit, and what git keeps there.

    Raises:
        StateError: the commit lacks an include, or one has the name of something else there.
    """
    source = folder_of(serving)
    found = {
        name.removeprefix(f"{source}/"): (name, file)
        for name, file in scm.files(commit, source).items()
    }
    for include in includes_of(serving):
        top = posixpath.basename(include)
        if any(path.partition("/")[0] == top for path in found):
            raise StateError(
                f"commit {commit[:10]}: serving.include {include!r} collides with another {top!r}",
                next="rename one of them",
            )
        files = included(scm, commit, include)
        found |= {f"{top}{name.removeprefix(include)}": (name, files[name]) for name in files}
    return found


def includes_of(serving: ServingConfig) -> list[str]:
    """The includes' paths in a commit."""
    return [posixpath.normpath(include) for include in serving.include]


def included(scm: Scm, commit: str, include: str) -> dict[str, TreeFile]:
    """The files of an include, or the file that it is. Raises StateError where there is none."""
    parent = posixpath.dirname(include) or "."
    whole = scm.files(commit, include)
    files = whole or {k: v for k, v in scm.files(commit, parent).items() if k == include}
    if not files:
        raise StateError(
            f"commit {commit[:10]} has no {include}, which serving.include names",
            next="commit it, or correct serving.include",
        )
    return files


def export_code(scm: Scm, commit: str, serving: ServingConfig, target: Path) -> None:
    """Write the code to ``target``, which must not exist yet.

    Raises:
        StateError: as ``code_files``, or there is no serving folder.
    """
    scm.export(commit, folder_of(serving), target)
    for include in includes_of(serving):
        files = included(scm, commit, include)
        place = target / posixpath.basename(include)
        if include in files:
            place.write_bytes(scm.read(commit, include) or b"")
            place.chmod(0o755 if files[include].mode == "100755" else 0o644)
        else:
            scm.export(commit, include, place)
