"""Which files below a folder a clone of the repository would have."""

from __future__ import annotations

import os
import subprocess

from ctflow.scm.git_head import ENGLISH


def kept_files(folder: str) -> list[str] | None:
    """What git tracks below ``folder``, and what it does not ignore: committing changes nothing.

    Returns:
        POSIX paths relative to ``folder``, deleted ones too; a submodule is one path. None where
        ``folder`` is in no repository, or there is no git.
    """
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "."]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, env=os.environ | ENGLISH)
    except OSError:
        return None
    if done.returncode != 0:
        return None
    return [path for path in os.fsdecode(done.stdout).split("\0") if path]
