"""Git commands that write, through GitPython, in the project's folder; failures as our errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ctflow.scm.git_head import ENGLISH
from ctflow.scm.git_process import failure, missing_git
from ctflow.scm.git_reading import GitReading


class GitCommands(GitReading):
    """Git in a folder inside a work tree. Every command raises OutsideError when it fails."""

    @cached_property
    def _git(self) -> Any:
        # Late: it takes 0.1 s to import, which a command that only reads does not wait for.
        import git

        return git.Git(self._root)

    @cached_property
    def _prefix(self) -> str:
        """The project's folder in the repository: empty at its top, else ending in ``/``."""
        return self._run("rev-parse", "--show-prefix")

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
        from tempfile import TemporaryFile

        with TemporaryFile() as stream:
            stream.write(data)
            stream.seek(0)
            return str(self._execute(words, env=self._env(env), istream=stream))

    def _execute(self, words: tuple[str, ...], **options: Any) -> Any:
        from git import GitCommandError, GitCommandNotFound

        try:
            return self._git.execute(["git", *words], **options)
        except GitCommandNotFound:
            raise missing_git() from None
        except GitCommandError as error:
            verb = words[2] if words[0] in ("-C", "-c") else words[0]
            text = f"{error.stderr}\n{error.stdout}"
            raise failure(text, error.status, verb, self._root) from None
