"""Copies of step contexts on disk, and a memory of file digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ctflow.lib.files import new_file, sync_folder, write_file
from ctflow.steps.context import ContextFile

_CHUNK = 1 << 20
#: A file changed this recently (ns) may change again without its time stamp telling: some file
#: systems count in whole seconds. Its digest is not remembered.
_RACY_NS = 2_000_000_000
#: What running Python leaves behind; it depends on nothing but the files beside it.
_TOLERATED = "__pycache__"
_PREFIX = ".new-"

#: path -> [size, mtime in ns, mode]; a folder, whose size and time are its content's: [0, 0, mode].
Signature = dict[str, list[int]]


class Changed(Exception):  # not an error: the signal to read again
    """A file is not any more what it was when it was hashed."""


class StatCache:
    """The digests of files that did not change since they were read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[object]] = {}
        self._dirty = False
        try:
            data = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
            if isinstance(data, dict):
                self._known = data
        except (OSError, ValueError):
            pass  # none yet, or cut short by a crash: read the files

    def digest(self, one: ContextFile) -> str:
        """The hexadecimal SHA-256 of a file. Raises OSError."""
        known = self._known.get(one.source)
        if isinstance(known, list) and known[:-1] == list(one.mark):
            return str(known[-1])
        sha = hashlib.sha256()
        with open(one.source, "rb") as stream:  # noqa: PTH123
            while chunk := stream.read(_CHUNK):
                sha.update(chunk)
        if time.time_ns() - max(one.mark[1], one.mark[2]) > _RACY_NS:
            self._known[one.source] = [*one.mark, sha.hexdigest()]
            self._dirty = True
        return sha.hexdigest()

    def save(self) -> None:
        """Keep it for the next process; a lost one costs time only, so nothing is synced."""
        if not self._dirty:
            return
        write_file(self._file, json.dumps(self._known))
        self._dirty = False


def make(folder: Path, files: Sequence[ContextFile], cache: StatCache) -> Signature:
    """A new snapshot at ``folder``, there whole or not at all. Raises Changed, OSError."""
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        scratch.chmod(0o755)
        for one in files:
            _write(scratch / one.path, one, cache)
        state = signature(scratch, {one.path: [] for one in files})
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    # The files' data need no sync: one that a power cut lost has another size, and is mended.
    sync_folder(folder.parent)
    return state


def mend(
    folder: Path,
    files: Sequence[ContextFile],
    was: Mapping[str, list[int]],
    cache: StatCache,
    *,
    extras: bool,
) -> Signature:
    """Write again what is not as it ``was``; with ``extras`` also remove what was added."""
    if extras:
        known = set(was)
        for path in _others(folder, known):
            target = folder / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
    now = signature(folder, was)
    for one in files:
        if now.get(one.path) != was.get(one.path, []):
            _write(folder / one.path, one, cache)
    return signature(folder, {one.path: [] for one in files})


def signature(folder: Path, files: Mapping[str, object], *, extras: bool = False) -> Signature:
    """What tells cheaply that a snapshot is as it was made; with ``extras``, added paths too."""
    found: Signature = {}
    if not folder.is_dir():
        return found
    base = f"{folder}/"
    for path in files:
        with suppress(OSError):
            status = os.lstat(base + path)
            if stat.S_ISDIR(status.st_mode):
                found[path] = [0, 0, status.st_mode]
            else:
                found[path] = [status.st_size, status.st_mtime_ns, status.st_mode]
    if extras:
        for path in _others(folder, set(files)):
            found[path] = [0, 0, 0]
    return found


def leftovers(folder: Path) -> None:
    """Remove what builders that were killed left half made."""
    with os.scandir(folder) as scan:
        stale = [Path(entry.path) for entry in scan if entry.name.startswith(_PREFIX)]
    for path in stale:
        with suppress(OSError):
            # Nobody copies a context for an hour; a younger one may be at work right now.
            if time.time() - path.lstat().st_mtime < 3600:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _others(folder: Path, known: set[str]) -> list[str]:
    """Paths below ``folder`` that are not in ``known`` nor lead to one that is."""
    parents = {path[:at] for path in known for at in _slashes(path)}
    found: list[str] = []
    stack = [""]
    while stack:
        prefix = stack.pop()
        with os.scandir(folder / prefix) as scan:
            for entry in scan:
                path = prefix + entry.name
                if entry.name == _TOLERATED:
                    continue
                # A known folder is one that is to be empty.
                leads = path in parents or path in known
                if leads and entry.is_dir(follow_symlinks=False):
                    stack.append(f"{path}/")
                elif path not in known:
                    found.append(path)
    return found


def _slashes(path: str) -> list[int]:
    return [at for at, character in enumerate(path) if character == "/"]


def _write(target: Path, one: ContextFile, cache: StatCache) -> None:
    """Copy one entry, replacing what is there. Raises Changed when the source moved on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    if one.kind == "folder":
        target.unlink(missing_ok=True)
        target.mkdir()
        return
    if one.kind == "link":
        target.unlink(missing_ok=True)
        target.symlink_to(one.target)
        return
    sha = hashlib.sha256()
    with new_file(target) as out, open(one.source, "rb") as source:  # noqa: PTH123
        while chunk := source.read(_CHUNK):
            sha.update(chunk)
            out.write(chunk)
        if sha.hexdigest() != cache.digest(one):
            raise Changed
        # Read-only: a step that writes over its own source by mistake is told so at once.
        os.fchmod(out.fileno(), 0o555 if one.kind == "exec" else 0o444)
