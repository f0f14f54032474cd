"""The checked-out commit, asked of git in one process.

Every run asks this, so it must not pay for importing GitPython (0.1 s); all else that ctflow does
with git is in ``ctflow.scm.git``.
"""

from __future__ import annotations

from pathlib import Path

from ctflow.errors import StateError
from ctflow.lib.git_command import checked, run
from ctflow.model import Commit

_STATUS = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", ".")


def read_head(root: Path) -> Commit:
    """What ``root`` has checked out: commit, branch (None: detached), uncommitted files.

    The layout is that of ``git status --porcelain=v2 --branch -z``.

    Raises:
        StateError: no git repository, or one without a commit.
        OutsideError: git is missing or fails.
    """
    printed = checked(run(root, *_STATUS), root)
    return _parse(printed.decode("utf-8", "surrogateescape"), root)


def _parse(text: str, root: Path) -> Commit:
    sha, branch = "", None
    dirty: list[str] = []
    entries = iter(text.split("\0"))
    for entry in entries:
        if entry.startswith("# branch.oid "):
            sha = entry.removeprefix("# branch.oid ")
        elif entry.startswith("# branch.head "):
            name = entry.removeprefix("# branch.head ")
            branch = None if name == "(detached)" else name
        elif entry.startswith(("1 ", "u ")):
            dirty.append(entry.split(" ", 8 if entry[0] == "1" else 10)[-1])
        elif entry.startswith("2 "):
            dirty.append(entry.split(" ", 9)[-1])
            next(entries, None)  # the path before the renaming
        elif entry.startswith("? "):
            dirty.append(entry[2:])
    if sha in {"", "(initial)"}:
        raise StateError(
            f"the repository at {root} has no commit yet", next="commit the project first"
        )
    return Commit(sha, branch, tuple(dirty))
