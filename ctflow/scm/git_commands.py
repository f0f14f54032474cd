"""Git as commands through GitPython: run in the project's folder, failures as our errors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import git

from ctflow.errors import CtflowError, OutsideError
from ctflow.scm.git_head import ENGLISH, NO_REPOSITORY, no_repository


class GitCommands:
    """Git in a folder inside a work tree. Every command raises OutsideError when it fails."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._git = git.Git(root)

    @cached_property
    def _prefix(self) -> str:
        """The project's folder in the repository: empty at its top, else ending in ``/``."""
        return self._run("rev-parse", "--show-prefix")

    def _resolve(self, ref: str) -> str | None:
        code, out, _ = self._git.execute(
            ["git", "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}"],
            with_extended_output=True,
            with_exceptions=False,
            env=self._env(),
        )
        return str(out) if code == 0 and out else None

    def _env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return ENGLISH | dict(extra or {})

    def _run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        return str(self._execute(words, env=self._env(env)))

    def _bytes(self, *words: str) -> bytes:
        found = self._execute(
            words, env=self._env(), stdout_as_string=False, strip_newline_in_stdout=False
        )
        return bytes(found)

    def _feed(self, data: bytes, *words: str, env: Mapping[str, str]) -> str:
        with tempfile.TemporaryFile() as stream:
            stream.write(data)
            stream.seek(0)
            return str(self._execute(words, env=self._env(env), istream=stream))

    def _execute(self, words: tuple[str, ...], **options: Any) -> Any:
        try:
            return self._git.execute(["git", *words], **options)
        except git.GitCommandNotFound:
            raise OutsideError("git is not installed", next="install git") from None
        except git.GitCommandError as error:
            verb = words[2] if words[0] in ("-C", "-c") else words[0]
            raise failure(error, verb, self._root) from None


def failure(error: git.GitCommandError, verb: str, root: Path) -> CtflowError:
    """GitPython's error as ours: git's own last line is the fact, all its lines the details."""
    text = f"{error.stderr}\n{error.stdout}"
    if f"fatal: {NO_REPOSITORY}" in text:
        return no_repository(root)
    lines = [line.strip(" '") for line in text.splitlines()]
    lines = [line.removeprefix("stderr: '").removeprefix("stdout: '") for line in lines if line]
    said = [line for line in lines if line.startswith(("fatal:", "error:", "!", "remote:"))]
    reason = (said or lines or [f"exit status {error.status}"])[0]
    return OutsideError(f"git {verb} failed: {reason}", details=tuple(lines[-8:]))
