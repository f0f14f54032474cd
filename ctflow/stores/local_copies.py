"""This user's local copies of models in object stores: who needs them, and removing the others.

Below ``models/`` of the user's cache folder::

    sha256-<digest>/<name>             a model, whole or not there
    predictions/<digest>/...           predictions of that model
    .used/<digest>                     a lock: shared by each process that needs either of them
    .used/projects/<digest of a path>  the local state of a project that fetched something

What a process needs is held until it ends. A local model server reads its model from here long
after the process that deployed it: what the state of a project's servers names is needed, too.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

from ctflow.lib.digests import digest_bytes, hexadecimal
from ctflow.lib.files import write_file
from ctflow.lib.locks import lock, locked
from ctflow.lib.quick import dataclass
from ctflow.ports import state_places

_MODEL = "sha256-"
_UNFINISHED = ".new-"
_DAY = 86400.0


@dataclass(frozen=True)
class CachedModel:
    """A copy of a model, of its predictions, or of both.

    Attributes:
        digest: the model's, as 64 digits.
        size: in bytes.
        used: seconds since the epoch.
    """

    digest: str
    path: str
    size: int
    used: float


class LocalCopies:
    """The copies below ``root``.

    Args:
        project: the local state of the project that fetches; None: no project does.
    """

    def __init__(self, root: Path, project: Path | None = None) -> None:
        self._root = root
        self._project = project
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _let_go, self._held)

    def hold(self, digest: str) -> None:
        """Say, until this process ends, that it needs a model's copies, which it now uses."""
        name = hexadecimal(digest)
        with self._lock:
            if name in self._held:
                return
            (self._root / ".used").mkdir(parents=True, exist_ok=True)
            descriptor = lock(self._root / ".used" / name, shared=True, wait=True)
            assert descriptor is not None  # noqa: S101 (it was waited for)
            self._held[name] = descriptor
            os.utime(descriptor)
        if self._project is not None:
            path = os.fsencode(self._project.absolute())
            place = self._root / ".used" / "projects" / hexadecimal(digest_bytes(path))
            if not place.exists():
                write_file(place, path)

    def entries(self) -> list[CachedModel]:
        """All models with copies, the one used last first."""
        found = [self._entry(name) for name in self._names()]
        return sorted(found, key=lambda one: (-one.used, one.digest))

    def prune(self, older_than: float | None = None, *, dry_run: bool = False) -> list[CachedModel]:
        """Remove the copies that nothing needs, the one used longest ago first.

        Args:
            older_than: only what was not used for so many seconds.

        Returns:
            What was removed, or would be.
        """
        removed = []
        now = time.time()
        for one in reversed(self.entries()):
            if older_than is not None and -_DAY <= now - one.used < older_than:
                continue
            (self._root / ".used").mkdir(exist_ok=True)
            place = self._root / ".used" / one.digest
            with locked(place) as is_free:
                # Looked at with the lock held: who deploys writes the state before it lets go.
                if is_free and not self._is_served(one.digest):
                    removed.append(one)
                    if not dry_run:
                        self._remove(one.digest)
                        continue
                if is_free:  # the lock may be new, and its time says when the copy was used
                    os.utime(place, (one.used, one.used))
        if not dry_run:
            self._sweep(now)
        return removed

    def _names(self) -> set[str]:
        folders = [*_below(self._root), *_below(self._root / "predictions")]
        names = {place.name.removeprefix(_MODEL) for place in folders}
        return {name for name in names if len(name) == 64 and not set(name) - _DIGITS}

    def _places(self, name: str) -> tuple[Path, Path]:
        return self._root / f"{_MODEL}{name}", self._root / "predictions" / name

    def _entry(self, name: str) -> CachedModel:
        places = [place for place in self._places(name) if place.exists()]
        used = 0.0
        for place in (*places, self._root / ".used" / name):
            with suppress(OSError):
                used = max(used, place.stat().st_mtime)
        path = str(places[0] if places else self._places(name)[0])
        return CachedModel(name, path, sum(map(_size, places)), used)

    def _is_served(self, name: str) -> bool:
        """Whether the state of a local server of any project here names the model."""
        states = {self._project} if self._project is not None else set()
        for note in _below(self._root / ".used" / "projects"):
            with suppress(OSError):
                states.add(Path(os.fsdecode(note.read_bytes())))
        for state in states:
            for file in state_places(state)["serving"].glob("*/state.json"):
                with suppress(OSError):
                    if name.encode() in file.read_bytes():
                        return True
        return False

    def _remove(self, name: str) -> None:
        """Out of sight first: who is killed on the way leaves only what is removed later."""
        for number, place in enumerate(self._places(name)):
            trash = self._root / f"{_UNFINISHED}removed-{name[:16]}-{number}-{os.getpid()}"
            with suppress(FileNotFoundError):
                place.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)
        (self._root / ".used" / name).unlink(missing_ok=True)

    def _sweep(self, now: float) -> None:
        """Remove what killed processes left."""
        for place in _below(self._root):
            with suppress(OSError):
                if place.name.startswith(_UNFINISHED) and now - place.stat().st_mtime > _DAY:
                    shutil.rmtree(place, ignore_errors=True)


_DIGITS = set("0123456789abcdef")


def _below(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(folder: Path) -> int:
    return sum(os.lstat(f"{at}/{name}").st_size for at, _, names in os.walk(folder)
               for name in names)  # fmt: skip


def _let_go(held: dict[str, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)
    held.clear()
