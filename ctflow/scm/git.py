"""The project's git repository through GitPython: the ``Scm`` port.

Commits are made beside the user's work: with an index of their own, and merges in a work tree of
their own. A branch moves by compare-and-swap only, so two writers at once cannot undo each other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.lib.git_command import checked, failure, text_of
from ctflow.lib.locks import holding
from ctflow.ports import TreeFile
from ctflow.scm.git_moves import GitMoves

if TYPE_CHECKING:
    import tarfile


class GitScm(GitMoves):
    """The ``Scm`` port for a repository on this machine, with or without a remote.

    Args:
        root: a folder inside the work tree.
        scratch: a folder for temporary indexes and work trees; made when needed.
        remote: the remote's name.

    Every method raises OutsideError when git itself fails.
    """

    def __init__(self, root: Path, scratch: Path, remote: str = "origin") -> None:
        super().__init__(root, remote)
        self._scratch = scratch

    # -- asking ------------------------------------------------------------------------------

    def identity(self) -> str:
        """``Name <mail>``; raises StateError when git does not know."""
        done = self._done(("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"))
        if done.returncode != 0:
            raise StateError(
                "git does not know who you are",
                next="run `git config --global user.name NAME` and `git config --global"
                " user.email MAIL`",
            )
        text = text_of(done.stdout)
        return text[: text.rindex(">") + 1]

    def check_push(self, branch: str) -> None:
        """See the port: a push is tried dry, which logs in and asks whether writing is allowed."""
        if self.has_remote():
            ref = f"HEAD:refs/heads/{branch}"
            self._run("push", "--quiet", "--dry-run", "--force", self._remote, ref)

    def export(self, rev: str, folder: str, target: Path) -> None:
        """Write a folder as it is at ``rev`` to ``target``; StateError where ``rev`` has none."""
        import io
        import tarfile

        if not self.files(rev, folder):
            raise StateError(
                f"commit {rev[:10]} has no folder {folder}/", next="check serving.folder"
            )
        # From the top: elsewhere git wants the present folder to be in the commit too.
        top = self._run("rev-parse", "--show-toplevel")
        tree = f"{rev}:{self._prefix}{folder}"
        data = self._bytes("-C", top, "archive", "--format=tar", tree)
        target.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                _check_link(member, folder)
            # Where this Python has the filter (3.10.12 and later), setting it is enough.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(target)  # noqa: S202 (the project's own commit)

    # -- writing -----------------------------------------------------------------------------

    def commit_files(
        self,
        parent: str,
        changes: Mapping[str, bytes | TreeFile | None],
        message: str,
        at: float | None = None,
    ) -> str:
        """A new commit on ``parent``; ``parent`` itself when nothing would change."""
        self.identity()
        self._scratch.mkdir(parents=True, exist_ok=True)
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(dir=self._scratch) as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._run("read-tree", parent, env=index)
            lines = []
            for path, content in sorted(changes.items()):
                if content is None:
                    lines.append(f"0 {'0' * len(parent)}\t{self._prefix}{path}")
                elif isinstance(content, TreeFile):
                    lines.append(f"{content.mode} {content.blob}\t{self._prefix}{path}")
                else:
                    blob = self._feed(content, "hash-object", "-w", "--stdin", env=index)
                    lines.append(f"100644 {blob}\t{self._prefix}{path}")
            listing = "".join(f"{line}\0" for line in lines).encode()
            self._feed(listing, "update-index", "-z", "--index-info", env=index)
            tree = self._run("write-tree", env=index)
        if tree == self._run("rev-parse", f"{parent}^{{tree}}"):
            return parent
        dates = {}
        if at is not None:
            when = f"{int(at)} +0000"
            dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        return self._feed(message.encode(), "commit-tree", tree, "-p", parent, "-F", "-", env=dates)

    def merge_commit(self, into: str, other: str, message: str) -> str:
        """A merge commit of two commits, made in a work tree of its own.

        Not ``git merge-tree --write-tree``: it needs git 2.38, newer than some systems have.
        """
        self.identity()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with self._one_merge():
            return self._merge(into, other, message)

    @contextmanager
    def _one_merge(self) -> Iterator[None]:
        """One merge at a time: git fails on a work tree that another process is just making."""
        common = self._root / self._run("rev-parse", "--git-common-dir")
        # Not called *.lock: one of those that stays is taken for what a killed git left.
        with holding(common / "ctflow-merging"):
            yield

    def _merge(self, into: str, other: str, message: str) -> str:
        from tempfile import mkdtemp

        place = Path(mkdtemp(dir=self._scratch, prefix="merge-"))
        self._run("worktree", "prune")  # what a killed merge may have left registered
        try:
            self._run("worktree", "add", "--quiet", "--force", "--detach", str(place), into)
            hooks = ("-c", f"core.hooksPath={os.devnull}")
            words = (*hooks, "merge", "--quiet", "--no-ff", "-m", message, other)
            done = self._done(words, folder=place)
            if done.returncode != 0:
                unmerged = ("diff", "--name-only", "--diff-filter=U")
                names = text_of(checked(self._done(unmerged, folder=place), place)).split()
                if names:
                    raise StateError(
                        f"the branches conflict in {', '.join(names)}",
                        next="run `ctflow promote` again",
                    )
                raise failure(done, self._root)
            return text_of(checked(self._done(("rev-parse", "HEAD"), folder=place), place))
        finally:
            shutil.rmtree(place, ignore_errors=True)
            self._run("worktree", "prune")


def _check_link(member: tarfile.TarInfo, folder: str) -> None:
    """Refuse a link that leads out of the folder: what it points to is not in the commit's folder.

    Raises:
        StateError: it does.
    """
    if not (member.issym() or member.islnk()):
        return
    base = os.path.dirname(member.name) if member.issym() else ""  # noqa: PTH120
    inside = os.path.normpath(os.path.join(base, member.linkname))  # noqa: PTH118
    if member.linkname.startswith("/") or inside == ".." or inside.startswith("../"):
        raise StateError(
            f"the link {folder}/{member.name} leads out of {folder}/, to {member.linkname!r}",
            next="copy the file there, and commit it",
        )
