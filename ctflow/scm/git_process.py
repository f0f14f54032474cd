"""Git as a process: its answer, or its failure as one of our errors.

What only reads goes this way, so that it does not pay for importing GitPython (0.1 s).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ctflow.errors import CtflowError, OutsideError
from ctflow.scm.git_head import ENGLISH, NO_REPOSITORY, no_repository


def missing_git() -> OutsideError:
    """There is no git on this machine."""
    return OutsideError("git is not installed", next="install git")


def run(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """``git WORDS`` in a folder, to its end. Raises OutsideError where there is no git."""
    try:
        return subprocess.run(
            ["git", *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | ENGLISH,
        )
    except FileNotFoundError:
        raise missing_git() from None


def answer(root: Path, *words: str) -> str:
    """What git prints, without the newline at the end.

    Raises:
        StateError: the folder is in no repository.
        OutsideError: git fails.
    """
    done = run(root, *words)
    if done.returncode != 0:
        text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
        raise failure(text, done.returncode, words[0], root)
    text = done.stdout.decode("utf-8", "surrogateescape")
    return text[:-1] if text.endswith("\n") else text


def failure(text: str, status: object, verb: str, root: Path) -> CtflowError:
    """What a git that failed said, as our error: its own first reason, and its last lines."""
    if f"fatal: {NO_REPOSITORY}" in text:
        return no_repository(root)
    lines = [line.strip(" '") for line in text.splitlines()]
    lines = [line.removeprefix("stderr: '").removeprefix("stdout: '") for line in lines if line]
    said = [line for line in lines if line.startswith(("fatal:", "error:", "!", "remote:"))]
    reason = (said or lines or [f"exit status {status}"])[0]
    return OutsideError(f"git {verb} failed: {reason}", details=tuple(lines[-8:]))
