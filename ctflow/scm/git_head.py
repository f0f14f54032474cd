"""The checked-out commit, asked of git in one process.

Every run asks this, so it must not pay for importing GitPython (0.1 s); all else that ctflow does
with git is in ``ctflow.scm.git``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.model import Commit

#: Git's messages in English: some of them are read here.
ENGLISH = {"LC_ALL": "C", "LANGUAGE": "C"}
#: What git says outside of one.
NO_REPOSITORY = "not a git repository"


def no_repository(root: Path) -> StateError:
    """``root`` lies in none."""
    return StateError(
        f"{root} is not in a git repository", next="run `git init` and commit the project"
    )


def read_head(root: Path) -> Commit:
    """What ``root`` has checked out: commit, branch (None: detached), uncommitted files.

    The layout is that of ``git status --porcelain=v2 --branch -z``.

    Raises:
        StateError: no git repository, or one without a commit.
        OutsideError: git is missing or fails.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "."]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, env=os.environ | ENGLISH)
    except FileNotFoundError:
        raise OutsideError("git is not installed", next="install git") from None
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace").strip()
        if NO_REPOSITORY in text:
            raise no_repository(root)
        raise OutsideError(f"git status failed: {text.splitlines()[-1] if text else 'no reason'}")
    return _parse(done.stdout.decode("utf-8", "surrogateescape"), root)


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
