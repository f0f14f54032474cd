"""Moving branches by compare-and-swap, here and on the remote."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.scm.git_commands import GitCommands

#: What git says when a ref was not where we expected it: somebody else was first.
_RACE = re.compile(
    r"stale info|fetch first|non-fast-forward|but expected|reference already exists"
    r"|failed to update ref|cannot lock ref|unable to resolve reference|does not exist",
)


class GitMoves(GitCommands):
    """The part of the ``Scm`` port that moves branches.

    A branch that is checked out, in whichever work tree, moves with its files or not at all: to
    move it alone would make the next commit there undo what came in.
    """

    def move(self, branch: str, new: str | None, old: str | None, *, force: bool = False) -> bool:
        """Move a branch by compare-and-swap; see the port. ``force`` allows other than forward."""
        if new is not None and old is not None and not force and not self.is_ancestor(old, new):
            raise StateError(f"{new[:10]} does not build on {old[:10]} of {branch}")
        if not self.has_remote():
            return self._move_local(branch, new, old)
        if not self._push(branch, new, old):
            return False
        self._follow(branch, new)
        return True

    def _push(self, branch: str, new: str | None, old: str | None) -> bool:
        ref = f"refs/heads/{branch}"
        seen = self._resolve(f"refs/remotes/{self._remote}/{branch}")
        expected = old if seen else ""
        try:
            self._run(
                "push", "--quiet", "--porcelain", f"--force-with-lease={ref}:{expected or ''}",
                self._remote, f"{new or ''}:{ref}",
            )  # fmt: skip
        except OutsideError as error:
            if _RACE.search(" ".join(error.details)):
                return False
            raise
        return True

    def _follow(self, branch: str, new: str | None) -> None:
        """Bring the local branch along where nothing of the user's is in the way."""
        local = self._resolve(f"refs/heads/{branch}")
        if local is None or new is None or not self.is_ancestor(local, new):
            return
        place = self._checked_out(branch)
        if place is not None:
            with suppress(OutsideError):  # changes are in the way: `git pull` will say so
                self._run("-C", str(place), "merge", "--quiet", "--ff-only", new)
        else:
            self._run("update-ref", f"refs/heads/{branch}", new, local)

    def _move_local(self, branch: str, new: str | None, old: str | None) -> bool:
        ref = f"refs/heads/{branch}"
        if self._resolve(ref) != old:
            return False
        place = self._checked_out(branch)
        if place is not None:
            return self._move_checked_out(branch, new, old, place)
        try:
            if new is None:
                self._run("update-ref", "-d", ref, *([old] if old else []))
            else:
                # An empty old value: the branch must not exist.
                self._run("update-ref", ref, new, old or "")
        except OutsideError as error:
            if _RACE.search(" ".join(error.details)):
                return False
            raise
        return True

    def _move_checked_out(self, branch: str, new: str | None, old: str | None, place: Path) -> bool:
        if new is None:
            return True  # who looks at it keeps it; it is over by its content
        if old is not None and self.is_ancestor(old, new):
            try:
                self._run("-C", str(place), "merge", "--quiet", "--ff-only", new)
            except OutsideError as error:
                if self._resolve(f"refs/heads/{branch}") != old:
                    return False
                raise StateError(
                    f"{branch} is checked out in {place} and cannot be updated",
                    cause=error.fact,
                    next="commit or stash your changes there and run it again",
                ) from None
            return True
        raise StateError(
            f"{branch} is checked out in {place}",
            next="switch to another branch there and run it again",
        )

    def _checked_out(self, branch: str) -> Path | None:
        """The work tree that has a branch checked out, this one or another."""
        place = Path()
        # Without -z, which needs git 2.36.
        for line in self._run("worktree", "list", "--porcelain").splitlines():
            if line.startswith("worktree "):
                place = Path(line.removeprefix("worktree "))
            elif line == f"branch refs/heads/{branch}" and place.is_dir():
                return place
        return None
