"""The project's git remote: may it be fetched from and pushed to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctflow.errors import CtflowError
from ctflow.lib.git_command import answer, attempt
from ctflow.lib.secrets import KNOWN
from ctflow.model.doctor import Finding, Skipped

#: A branch that nobody has. It is not made: the push is a dry run.
_BRANCH = "refs/heads/ctflow/doctor"


class GitRemote:
    """The remote that promotions are pushed to.

    Args:
        root: the project's folder.
        branch: the default branch.
        timeout: of each of git's commands, in seconds.
    """

    system, needed = "remote", True

    def __init__(self, root: Path, branch: str, timeout: float, remote: str = "origin") -> None:
        self._root, self._branch, self._timeout, self._remote = root, branch, timeout, remote

    def look(self) -> Sequence[Finding] | Skipped:
        """Fetching is asked by listing, pushing by a dry run, which the server answers as a push.

        Hooks are not run.
        """
        url = attempt(self._root, "remote", "get-url", self._remote)
        if url is None:
            return Skipped(f"there is no remote {self._remote!r}: promotions stay in this clone")
        shown = KNOWN.mask(url.strip())
        heads = self._git("ls-remote", "--heads", self._remote)
        found = [Finding(self.system, "ok", f"may fetch from {shown}", who=self._who())]
        if not any(line.endswith(f"\trefs/heads/{self._branch}") for line in heads.splitlines()):
            found.append(
                Finding(
                    self.system,
                    "warning",
                    f"it has no branch {self._branch}",
                    next=f"push it: `git push {self._remote} {self._branch}`, or correct `branch`",
                )
            )
        if attempt(self._root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
            return [*found, Finding(self.system, "warning", "there is no commit to push yet")]
        try:
            self._git("push", "--dry-run", "--no-verify", "--quiet", self._remote,
                      f"HEAD:{_BRANCH}")  # fmt: skip
        except CtflowError as error:
            text = f"may not push ({error.fact})"
            mend = error.next or "ask for the right to push, or correct the login of the remote"
            return [*found, Finding(self.system, "failed", text, next=mend)]
        return [*found, Finding(self.system, "ok", "may push")]

    def _git(self, *words: str) -> str:
        return answer(self._root, *words, timeout=self._timeout)

    def _who(self) -> str:
        """Who commits: who logs in is between git and the server."""
        name = attempt(self._root, "config", "user.name")
        mail = attempt(self._root, "config", "user.email")
        return f"{name.strip()} <{mail.strip()}>" if name and mail else ""
