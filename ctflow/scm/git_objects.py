"""Objects of a git repository, read from one ``git cat-file --batch`` that is kept running.

It looks every name up anew, so a branch that moved meanwhile is seen. What a name with a whole
commit id names never changes, and is asked for once.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import weakref
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.lib.git_command import answer, run, start
from ctflow.lib.quick import dataclass

_FIXED = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})(?:[:^].*)?", re.DOTALL)
#: Objects that are remembered, and the bytes of the largest.
_MANY, _LARGE = 500, 1 << 18


@dataclass(frozen=True)
class GitObject:
    """An object: its id, its kind (``commit``, ``tree``, ``blob``, ``tag``) and its bytes."""

    id: str
    kind: str
    data: bytes


class GitObjects:
    """The objects of the repository that a folder is in. Safe to ask from several threads.

    Args:
        root: the folder; ``rev:./path`` counts from it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[str, GitObject] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> GitObject | None:
        """The object that git knows by a name such as ``HEAD:./path``, or None.

        Raises:
            StateError: the folder is in no repository.
            OutsideError: git fails.
        """
        with self._lock:
            found = self._seen.get(name)
            if found is None:
                found = self._find(name)
                if found and len(found.data) <= _LARGE and _FIXED.fullmatch(name):
                    if len(self._seen) >= _MANY:
                        self._seen.clear()
                    self._seen[name] = found
        return found

    def _find(self, name: str) -> GitObject | None:
        if "\n" in name:  # a question is one line
            done = run(self._root, "rev-parse", "--quiet", "--verify", "--end-of-options", name)
            name = done.stdout.decode("ascii", "replace").strip()
            if done.returncode != 0 or not name:
                return None
        for _ in range(2):
            try:
                return self._asked(name)
            except (EOFError, BrokenPipeError):
                self._process = None
                # It ended: outside of a repository, on a damaged object, or killed by Ctrl-C.
                answer(self._root, "cat-file", "-p", name)
        raise OutsideError("git cat-file failed: it ended", next="run it again")

    def _asked(self, name: str) -> GitObject | None:
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None  # noqa: S101 (they are pipes)
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(os.fsencode(name) + b"\n")
        self._process.stdin.flush()
        head = self._process.stdout.readline()
        if not head.endswith(b"\n"):
            raise EOFError
        if head.endswith((b" missing\n", b" ambiguous\n", b" submodule\n")):
            return None
        id_, kind, size = head.decode("ascii").split()
        data = self._process.stdout.read(int(size) + 1)
        if len(data) != int(size) + 1:
            raise EOFError
        return GitObject(id_, kind, data[:-1])

    def _started(self) -> subprocess.Popen[bytes]:
        process = start(self._root, "cat-file", "--batch", pipe=True)
        weakref.finalize(self, _end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Not by closing its input alone: a fork of this process may hold that open."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
