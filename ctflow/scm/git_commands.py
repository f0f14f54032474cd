"""Git commands that write, through GitPython, in the project's folder; failures as our errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from subprocess import PIPE, CompletedProcess

from ctflow.lib.git_command import (
    FIXED,
    LONG,
    checked,
    finish,
    missing_git,
    no_redirections,
    text_of,
)
from ctflow.scm.git_reading import GitReading


class GitCommands(GitReading):
    """Git in a folder inside a work tree. Every command raises OutsideError when it fails."""

    @cached_property
    def _prefix(self) -> str:
        """The project's folder in the repository: empty at its top, else ending in ``/``."""
        return self._run("rev-parse", "--show-prefix")

    def _run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        return text_of(checked(self._done(words, env=env), self._root))

    def _bytes(self, *words: str) -> bytes:
        return checked(self._done(words), self._root)

    def _feed(self, data: bytes, *words: str, env: Mapping[str, str]) -> str:
        return text_of(checked(self._done(words, env=env, data=data), self._root))

    def _done(
        self,
        words: tuple[str, ...],
        *,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> CompletedProcess[bytes]:
        """A git that ended, however it did; it may run the user's hooks."""
        try:
            # Late: it takes 0.1 s to import, which a command that only reads does not wait for.
            import git
        except ImportError:
            raise missing_git() from None  # it looks for git when it is imported
        try:
            with no_redirections():
                started = git.Git(folder or self._root).execute(
                    ["git", *words],
                    as_process=True,
                    env={**FIXED, **(env or {})},
                    istream=None if data is None else PIPE,
                )
        except git.GitCommandNotFound:
            raise missing_git() from None
        assert started.proc is not None  # noqa: S101 (it has just been started)
        # The wrapper is kept until the process has ended: it ends it when it is collected.
        return finish(started.proc, words, LONG, data)
