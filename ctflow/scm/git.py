"""The project's git repository through GitPython: the ``Scm`` port.

Commits are made beside the user's work: with an index of their own, and merges in a work tree of
their own. A branch moves by compare-and-swap only, so two writers at once cannot undo each other.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import git

from ctflow.errors import OutsideError, StateError
from ctflow.lib.locks import holding
from ctflow.ports import LogEntry, TreeFile
from ctflow.scm.git_commands import failure
from ctflow.scm.git_moves import GitMoves
from ctflow.scm.git_provenance import changed_since, texts_of_history


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
        try:
            text = self._run("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        except OutsideError:
            raise StateError(
                "git does not know who you are",
                next="run `git config --global user.name NAME` and `git config --global"
                " user.email MAIL`",
            ) from None
        return text[: text.rindex(">") + 1]

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

    def changed_since(self, rev: str) -> set[Path]:
        """The files that are not as they were at ``rev``, uncommitted and untracked ones too."""
        return changed_since(self._root, rev)

    def written_texts(self, folder: Path) -> list[bytes]:
        """What was ever written below a folder, in any branch: the added lines by commit."""
        return texts_of_history(self._root, str(folder))

    def files(self, rev: str, folder: str) -> dict[str, TreeFile]:
        """Paths below a folder at a commit, with what git keeps of each."""
        text = self._run("ls-tree", "-r", "-z", rev, "--", f"{folder.rstrip('/')}/")
        found = {}
        for entry in filter(None, text.split("\0")):
            head, path = entry.split("\t", 1)
            mode, _, blob = head.split()
            found[path] = TreeFile(mode, blob)
        return found

    def changes(self, old: str, new: str) -> dict[str, TreeFile | None]:
        """What differs between two commits; see the port."""
        text = self._run("diff-tree", "-r", "-z", "--no-renames", old, new)
        words = text.split("\0")
        found: dict[str, TreeFile | None] = {}
        for head, path in zip(words[::2], words[1::2], strict=False):
            _, mode, _, blob, status = head.removeprefix(":").split()
            found[path] = None if status == "D" else TreeFile(mode, blob)
        return found

    def written_by(
        self, rev: str, path: str, file: TreeFile, since: str | None = None
    ) -> str | None:
        """The commit that gave a path this content; see the port."""
        text = self._run(
            "log", "--first-parent", "-m", f"--find-object={file.blob}", "--format=%H", rev,
            *([f"^{since}"] if since else []), "--", path,
        )  # fmt: skip
        for sha in text.split():
            if self.files(sha, path.rpartition("/")[0] or ".").get(path) == file:
                return sha
        return None

    def check_push(self, branch: str) -> None:
        """See the port: a push is tried dry, which logs in and asks whether writing is allowed."""
        if self.has_remote():
            ref = f"HEAD:refs/heads/{branch}"
            self._run("push", "--quiet", "--dry-run", "--force", self._remote, ref)

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return self._resolve(commit) is not None

    def is_published(self, commit: str) -> bool:
        """Whether others have a commit; see the port."""
        if not self.has_remote():
            return True
        space = f"refs/remotes/{self._remote}/"
        try:
            text = self._run("for-each-ref", "--format=%(refname)", "--contains", commit, space)
        except OutsideError:
            return False  # git does not know it here
        names = [name.removeprefix(space) for name in text.split()]
        return any(not name.startswith("ctflow/") for name in names)

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
            for member in archive:
                _check_link(member, folder)
            # Where this Python has the filter (3.10.12 and later), setting it is enough.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(target)  # noqa: S202 (the project's own commit)

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor."""
        try:
            return self._run("merge-base", one, other)
        except OutsideError:
            return None

    def log(self, rev: str, path: str, limit: int = 0) -> list[LogEntry]:
        """The first-parent history of a path, newest first."""
        limits = [f"--max-count={limit}"] if limit else []
        form = "%H%x00%P%x00%an <%ae>%x00%ct%x00%s%x00%b"
        given = ("-z", f"--format={form}", *limits, rev, "--", path)
        # NUL ends each field and each commit: it is the one character that no message can hold.
        words = self._run("log", "--first-parent", *given).split("\0")
        return [
            LogEntry(sha, tuple(parents.split()), author, float(at), subject, body.strip())
            for sha, parents, author, at, subject, body in zip(*[iter(words)] * 6, strict=False)
        ]

    def diff(self, old: str, new: str, path: str) -> str:
        """A unified diff of a path between two commits."""
        return self._run("diff", "--no-color", "--no-ext-diff", old, new, "--", path)

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
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
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
