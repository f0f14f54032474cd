"""The project's git repository through GitPython: the ``Scm`` port.

Commits are made beside the user's work: with an index of their own, and merges in a work tree of
their own. A branch moves by compare-and-swap only, so two writers at once cannot undo each other.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import git

from ctflow.adapters.git_commands import GitCommands, failure
from ctflow.adapters.git_head import read_head
from ctflow.errors import OutsideError, StateError
from ctflow.locks import lock
from ctflow.model import Commit
from ctflow.ports import LogEntry

ZERO = "0" * 40
#: What git says when a ref was not where we expected it: somebody else was first.
_RACE = re.compile(
    r"stale info|fetch first|non-fast-forward|but expected|reference already exists"
    r"|failed to update ref|cannot lock ref|unable to resolve reference|does not exist",
)


class GitScm(GitCommands):
    """The ``Scm`` port for a repository on this machine, with or without a remote.

    Args:
        root: a folder inside the work tree.
        scratch: a folder for temporary indexes and work trees; made when needed.
        remote: the remote's name.

    Every method raises OutsideError when git itself fails.
    """

    def __init__(self, root: Path, scratch: Path, remote: str = "origin") -> None:
        super().__init__(root)
        self._scratch = scratch
        self._remote = remote

    # -- asking ------------------------------------------------------------------------------

    def head(self) -> Commit:
        """The checked-out commit."""
        return read_head(self._root)

    def identity(self) -> str:
        """``Name <mail>``; raises StateError when git does not know."""
        try:
            text = self._run("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        except OutsideError:
            raise StateError(
                "git does not know who you are",
                next="run `git config --global user.name NAME` and `git config --global"
                " user.email MAIL`",
            ) from None
        return text[: text.rindex(">") + 1]

    def has_remote(self) -> bool:
        """Whether the repository has the remote."""
        return self._remote in self._run("remote").split()

    def fetch(self) -> None:
        """Bring the remote's branches in."""
        if self.has_remote():
            refs = f"+refs/heads/*:refs/remotes/{self._remote}/*"
            self._run("fetch", "--quiet", "--prune", "--no-tags", self._remote, refs)

    def tip(self, branch: str) -> str | None:
        """The remote's tip; the local one where there is no remote or it has no such branch yet.

        Only the branch that is checked out here can be new to the remote: a promotion's branch
        that the remote does not have is gone.
        """
        if self.has_remote():
            found = self._resolve(f"refs/remotes/{self._remote}/{branch}")
            if found or branch.startswith("ctflow/"):
                return found
        return self._resolve(f"refs/heads/{branch}")

    def branches(self, prefix: str) -> dict[str, str]:
        """Branches under ``prefix`` and their tips."""
        space = f"refs/remotes/{self._remote}/" if self.has_remote() else "refs/heads/"
        text = self._run("for-each-ref", "--format=%(refname) %(objectname)", f"{space}{prefix}")
        pairs = (line.split() for line in text.splitlines())
        return {name.removeprefix(space): sha for name, sha in pairs}

    def read(self, rev: str, path: str) -> bytes | None:
        """A file's bytes at a commit, or None."""
        listed = self._run("ls-tree", "-z", rev, "--", path)
        if not listed or " blob " not in listed:
            return None
        blob = listed.split("\t")[0].split()[2]
        return self._bytes("cat-file", "blob", blob)

    def files(self, rev: str, folder: str) -> dict[str, str]:
        """Paths below a folder at a commit, with their blob ids."""
        text = self._run("ls-tree", "-r", "-z", rev, "--", f"{folder.rstrip('/')}/")
        found = {}
        for entry in filter(None, text.split("\0")):
            head, path = entry.split("\t", 1)
            found[path] = head.split()[2]
        return found

    def export(self, rev: str, folder: str, target: Path) -> None:
        """Write a folder as it is at ``rev`` to ``target``; StateError where ``rev`` has none."""
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
            # Where this Python has the filter (3.10.12 and later), setting it is enough.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(target)  # noqa: S202 (the project's own commit)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether ``newer`` holds ``older``."""
        code, _, error = self._git.execute(
            ["git", "merge-base", "--is-ancestor", older, newer],
            with_extended_output=True,
            with_exceptions=False,
            env=self._env(),
        )
        if code not in (0, 1):
            raise OutsideError(f"git merge-base failed: {error}")
        return code == 0

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor."""
        try:
            return self._run("merge-base", one, other)
        except OutsideError:
            return None

    def log(self, rev: str, path: str, limit: int = 0) -> list[LogEntry]:
        """The first-parent history of a path, newest first."""
        limits = [f"--max-count={limit}"] if limit else []
        form = "%H%x00%P%x00%an <%ae>%x00%ct%x00%s%x00%b%x1e"
        text = self._run("log", "--first-parent", f"--format={form}", *limits, rev, "--", path)
        entries = []
        for record in filter(None, (part.strip("\n") for part in text.split("\x1e"))):
            sha, parents, author, at, subject, body = record.split("\0")
            entries.append(
                LogEntry(sha, tuple(parents.split()), author, float(at), subject, body.strip())
            )
        return entries

    def diff(self, old: str, new: str, path: str) -> str:
        """A unified diff of a path between two commits."""
        return self._run("diff", "--no-color", "--no-ext-diff", old, new, "--", path)

    # -- writing -----------------------------------------------------------------------------

    def commit_files(
        self,
        parent: str,
        changes: Mapping[str, bytes | None],
        message: str,
        at: float | None = None,
    ) -> str:
        """A new commit on ``parent``; ``parent`` itself when nothing would change."""
        self.identity()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._run("read-tree", parent, env=index)
            lines = []
            for path, content in sorted(changes.items()):
                if content is None:
                    lines.append(f"0 {ZERO}\t{self._prefix}{path}")
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
        with self._alone():
            return self._merge(into, other, message)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One merge at a time: git fails on a work tree that another process is just making."""
        common = self._root / self._run("rev-parse", "--git-common-dir")
        # Not called *.lock: one of those that stays is taken for what a killed git left.
        descriptor = lock(common / "ctflow-merging", wait=True)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _merge(self, into: str, other: str, message: str) -> str:
        place = Path(tempfile.mkdtemp(dir=self._scratch, prefix="merge-"))
        self._run("worktree", "prune")  # what a killed merge may have left registered
        try:
            self._run("worktree", "add", "--quiet", "--force", "--detach", str(place), into)
            there = git.Git(place)
            try:
                there.execute(
                    ["git", "-c", f"core.hooksPath={os.devnull}", "merge", "--quiet", "--no-ff",
                     "-m", message, other],
                    env=self._env(),
                )  # fmt: skip
            except git.GitCommandError as error:
                files = there.execute(
                    ["git", "diff", "--name-only", "--diff-filter=U"], env=self._env()
                )
                if files:
                    names = ", ".join(str(files).split())
                    raise StateError(
                        f"the branches conflict in {names}",
                        next="run `ctflow promote` again to propose it anew",
                    ) from None
                raise failure(error, "merge", self._root) from None
            return str(there.execute(["git", "rev-parse", "HEAD"], env=self._env()))
        finally:
            shutil.rmtree(place, ignore_errors=True)
            self._run("worktree", "prune")

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
        if self.head().branch == branch:
            try:
                self._run("merge", "--quiet", "--ff-only", new)
            except OutsideError:
                return  # uncommitted changes are in the way: `git pull` will say so
        else:
            self._run("update-ref", f"refs/heads/{branch}", new, local)

    def _move_local(self, branch: str, new: str | None, old: str | None) -> bool:
        ref = f"refs/heads/{branch}"
        if self._resolve(ref) != old:
            return False
        if new is not None and old is not None and self.head().branch == branch:
            try:
                self._run("merge", "--quiet", "--ff-only", new)
            except OutsideError as error:
                if self._resolve(ref) != old:
                    return False
                raise StateError(
                    f"{branch} is checked out here and cannot move on",
                    cause=error.fact,
                    next="commit or stash your changes and run it again",
                ) from None
            return True
        try:
            if new is None:
                self._run("update-ref", "-d", ref, *([old] if old else []))
            else:
                self._run("update-ref", ref, new, old or ZERO)
        except OutsideError as error:
            if _RACE.search(" ".join(error.details)):
                return False
            raise
        return True
