"""Which files below a folder a clone of the repository would have."""

from __future__ import annotations

from pathlib import Path

from ctflow.lib.git_command import attempt


def files_of_a_clone(folder: str) -> list[str] | None:
    """What git tracks below ``folder``, and what it does not ignore: committing changes nothing.

    Returns:
        POSIX paths relative to ``folder``, deleted ones too; a submodule is one path. None where
        ``folder`` is in no repository, or there is no git.
    """
    given = ("--cached", "--others", "--exclude-standard", "-z", "--", ".")
    printed = attempt(Path(folder), "ls-files", *given)
    return None if printed is None else [path for path in printed.split("\0") if path]
