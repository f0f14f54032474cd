"""The project's git repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import Commit


@dataclass(frozen=True)
class LogEntry:
    """A commit, as ``git log`` tells it. ``at`` is the committer's time."""

    sha: str
    parents: tuple[str, ...]
    author: str
    at: float
    subject: str
    body: str


@dataclass(frozen=True)
class TreeFile:
    """A file as git keeps it: its mode (``100644``, ``100755``, ``120000``) and its blob's id."""

    mode: str
    blob: str


class Scm(Protocol):
    """The project's git repository. Nothing here touches the user's index or uncommitted files."""

    def head(self) -> Commit:
        """The checked-out commit; raises StateError in a repository without commits."""
        ...

    def identity(self) -> str:
        """``Name <mail>`` of whoever commits here; raises StateError when git does not know."""
        ...

    def fetch(self) -> None:
        """Bring the remote's branches in, where there is a remote. Raises OutsideError."""
        ...

    def tip(self, branch: str) -> str | None:
        """The newest commit of a branch: the remote's where there is a remote, else the local."""
        ...

    def branches(self, prefix: str) -> dict[str, str]:
        """Branches under ``prefix`` and their tips, seen as ``tip`` sees them."""
        ...

    def read(self, rev: str, path: str) -> bytes | None:
        """A file's bytes at a commit, or None."""
        ...

    def files(self, rev: str, folder: str) -> dict[str, TreeFile]:
        """Paths below a folder at a commit, with what git keeps of each."""
        ...

    def changes(self, old: str, new: str) -> dict[str, TreeFile | None]:
        """What differs between two commits, by paths from the repository's top; None: removed."""
        ...

    def written_by(
        self, rev: str, path: str, file: TreeFile, since: str | None = None
    ) -> str | None:
        """The newest first-parent commit of ``rev`` that gave ``path`` this content, or None.

        Args:
            since: only commits that this one does not hold.
        """
        ...

    def check_push(self, branch: str) -> None:
        """Raise OutsideError where the remote does not take a push to the branch from here.

        What a hook or a protection rule of the remote says is only known when really pushing.
        """
        ...

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        ...

    def is_published(self, commit: str) -> bool:
        """Whether a branch of the remote holds the commit; True where there is no remote.

        Branches below ``ctflow/`` do not count: they go when their proposal is answered.
        """
        ...

    def export(self, rev: str, folder: str, target: Path) -> None:
        """Write a folder as it is at ``rev`` to ``target`` (made; must not exist)."""
        ...

    def commit_files(
        self,
        parent: str,
        changes: Mapping[str, bytes | TreeFile | None],
        message: str,
        at: float | None = None,
    ) -> str:
        """A new commit on ``parent`` with files written (None: removed); no branch moves.

        A ``TreeFile`` is a file that the repository holds already. With ``at`` the dates are
        fixed, so that the same call gives the same commit.
        """
        ...

    def merge_commit(self, into: str, other: str, message: str) -> str:
        """A merge commit of two commits; no branch moves. Raises StateError on a conflict."""
        ...

    def move(self, branch: str, new: str | None, old: str | None, *, force: bool = False) -> bool:
        """Move a branch from ``old`` to ``new`` (None: it does not exist), there and here.

        Where there is a remote the remote's branch moves, and the local one follows if it can.
        False when the branch was not at ``old`` any more: somebody else was first. Raises
        OutsideError when the remote refuses or cannot be reached.
        """
        ...

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether ``newer`` holds ``older``."""
        ...

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor."""
        ...

    def log(self, rev: str, path: str, limit: int = 0) -> list[LogEntry]:
        """The first-parent history of a path, newest first."""
        ...

    def diff(self, old: str, new: str, path: str) -> str:
        """A unified diff of a path between two commits."""
        ...

    def changed_since(self, rev: str) -> set[Path]:
        """The files that are not as they were at ``rev``, uncommitted and untracked ones too.

        Raises StateError where git knows no such commit.
        """
        ...

    def written_texts(self, folder: Path) -> list[bytes]:
        """What was ever written below a folder, in any branch: the added lines by commit."""
        ...
