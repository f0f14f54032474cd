"""The part of the ``Scm`` port that reads: with few processes, and without GitPython."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.lib.git_command import answer, failure, run
from ctflow.model import Commit
from ctflow.ports import LogEntry, TreeFile
from ctflow.scm.git_head import read_head
from ctflow.scm.git_objects import GitObject, GitObjects
from ctflow.scm.git_provenance import changed_since, texts_of_history


class GitReading:
    """Git in a folder inside a work tree. Every method raises OutsideError when git fails.

    Args:
        root: the folder; paths count from it.
        remote: the remote's name.
    """

    def __init__(self, root: Path, remote: str) -> None:
        self._root = root
        self._remote = remote
        self._objects = GitObjects(root)
        self._remote_seen: bool | None = None
        self._bases: dict[tuple[str, str], str | None] = {}

    def _ask(self, *words: str) -> str:
        return answer(self._root, *words)

    def head(self) -> Commit:
        """The checked-out commit."""
        return read_head(self._root)

    def has_remote(self) -> bool:
        """Whether the repository has the remote."""
        self._remote_seen = self._remote in self._ask("remote").split()
        return self._remote_seen

    def _is_remote(self) -> bool:
        """As ``has_remote`` said last: it is the same for all that one command asks."""
        return self.has_remote() if self._remote_seen is None else self._remote_seen

    def fetch(self) -> None:
        """Bring the remote's branches in."""
        if self.has_remote():
            refs = f"+refs/heads/*:refs/remotes/{self._remote}/*"
            self._ask("fetch", "--quiet", "--prune", "--no-tags", self._remote, refs)

    def _resolve(self, ref: str) -> str | None:
        found = self._objects.find(f"{ref}^{{commit}}")
        return found.id if found else None

    def tip(self, branch: str) -> str | None:
        """The remote's tip; the local one where there is no remote or it has no such branch yet.

        Only the branch that is checked out here can be new to the remote: a promotion's branch
        that the remote does not have is gone.
        """
        if self._is_remote():
            found = self._resolve(f"refs/remotes/{self._remote}/{branch}")
            if found or branch.startswith("ctflow/"):
                return found
        return self._resolve(f"refs/heads/{branch}")

    def branches(self, prefix: str) -> dict[str, str]:
        """Branches under ``prefix`` and their tips."""
        space = f"refs/remotes/{self._remote}/" if self._is_remote() else "refs/heads/"
        text = self._ask("for-each-ref", "--format=%(refname) %(objectname)", f"{space}{prefix}")
        pairs = (line.split() for line in text.splitlines())
        return {name.removeprefix(space): sha for name, sha in pairs}

    def _at(self, rev: str, path: str) -> GitObject | None:
        found = self._objects.find(f"{rev}:./{path}")
        if found is None and self._objects.find(f"{rev}^{{tree}}") is None:
            self._ask("ls-tree", "-z", rev, "--", path)  # says that there is no such commit
        return found

    def read(self, rev: str, path: str) -> bytes | None:
        """A file's bytes at a commit, or None."""
        found = self._at(rev, path)
        return found.data if found and found.kind == "blob" else None

    def files(self, rev: str, folder: str) -> dict[str, TreeFile]:
        """Paths below a folder at a commit, with what git keeps of each."""
        place = folder.rstrip("/")
        found = self._at(rev, "" if place == "." else place)
        if found is None or found.kind != "tree":
            return {}
        return dict(self._below(found, "" if place == "." else f"{place}/"))

    def _below(self, tree: GitObject, prefix: str) -> Iterator[tuple[str, TreeFile]]:
        for mode, name, id_ in _entries(tree):
            path = f"{prefix}{name}"
            if mode == "40000":
                inside = self._objects.find(id_)
                if inside is None:
                    raise OutsideError(
                        f"git has not the tree {id_} of {path}", next="see `git fsck`"
                    )
                yield from self._below(inside, f"{path}/")
            else:
                yield path, TreeFile(mode, id_)

    def changes(self, old: str, new: str) -> dict[str, TreeFile | None]:
        """What differs between two commits; see the port."""
        words = self._ask("diff-tree", "-r", "-z", "--no-renames", old, new).split("\0")
        found: dict[str, TreeFile | None] = {}
        for head, path in zip(words[::2], words[1::2], strict=False):
            _, mode, _, blob, status = head.removeprefix(":").split()
            found[path] = None if status == "D" else TreeFile(mode, blob)
        return found

    def written_by(
        self, rev: str, path: str, file: TreeFile, since: str | None = None
    ) -> str | None:
        """The commit that gave a path this content; see the port."""
        text = self._ask(
            "log", "--first-parent", "-m", f"--find-object={file.blob}", "--format=%H", rev,
            *([f"^{since}"] if since else []), "--", path,
        )  # fmt: skip
        for sha in text.split():
            if self.files(sha, path.rpartition("/")[0] or ".").get(path) == file:
                return sha
        return None

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return self._resolve(commit) is not None

    def is_published(self, commit: str) -> bool:
        """Whether others have a commit; see the port."""
        if not self.has_remote():
            return True
        space = f"refs/remotes/{self._remote}/"
        try:
            text = self._ask("for-each-ref", "--format=%(refname)", "--contains", commit, space)
        except OutsideError:
            return False  # git does not know it here
        names = [name.removeprefix(space) for name in text.split()]
        return any(not name.startswith("ctflow/") for name in names)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether ``newer`` holds ``older``."""
        done = run(self._root, "merge-base", "--is-ancestor", older, newer)
        if done.returncode not in (0, 1):
            raise failure(done, self._root)
        return done.returncode == 0

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor. Of two commits it stays, and is asked for once."""
        pair = (one, other)
        if pair not in self._bases:
            try:
                found: str | None = self._ask("merge-base", one, other)
            except OutsideError:
                found = None
            if not (_is_id(one) and _is_id(other) and found):
                return found
            self._bases[pair] = found
        return self._bases[pair]

    def log(self, rev: str, path: str, limit: int = 0) -> list[LogEntry]:
        """The first-parent history of a path, newest first."""
        limits = [f"--max-count={limit}"] if limit else []
        form = "%H%x00%P%x00%an <%ae>%x00%ct%x00%s%x00%b"
        given = ("-z", f"--format={form}", *limits, rev, "--", path)
        # NUL ends each field and each commit: it is the one character that no message can hold.
        words = self._ask("log", "--first-parent", *given).split("\0")
        return [
            LogEntry(sha, tuple(parents.split()), author, float(at), subject, body.strip())
            for sha, parents, author, at, subject, body in zip(*[iter(words)] * 6, strict=False)
        ]

    def diff(self, old: str, new: str, path: str) -> str:
        """A unified diff of a path between two commits."""
        return self._ask("diff", "--no-color", "--no-ext-diff", old, new, "--", path)

    def changed_since(self, rev: str) -> set[Path]:
        """The files that are not as they were at ``rev``, uncommitted and untracked ones too."""
        return changed_since(self._root, rev)

    def written_texts(self, folder: Path) -> list[bytes]:
        """What was ever written below a folder, in any branch: the added lines by commit."""
        return texts_of_history(self._root, str(folder))


def _is_id(name: str) -> bool:
    return len(name) in (40, 64) and not set(name) - set("0123456789abcdef")


def _entries(tree: GitObject) -> Iterator[tuple[str, str, str]]:
    """(mode, name, id) of what a tree holds: ``mode SP name NUL id`` for each, the id as bytes."""
    data, width, at = tree.data, len(tree.id) // 2, 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        at = end + 1 + width
        yield (
            mode.decode("ascii"),
            name.decode("utf-8", "surrogateescape"),
            data[end + 1 : at].hex(),
        )
