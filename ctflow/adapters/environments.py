"""Python environments of the steps, made with uv: one for each content, shared by all projects.

Layout below the user's cache folder::

    environments/<key>/            a virtual environment
    environments/<key>/.complete   written last; its absence means half made, its mtime last use
    locks/<key>                    held (flock) while an environment is made or removed

The lock's descriptor is inherited by uv, so that a ctflow that was killed with -9 while uv works on
leaves the lock with uv: nobody wipes a folder that is still being written to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctflow.adapters.uv_tool import find_uv, no_uv, uv_environ, uv_error
from ctflow.errors import ConfigError, OutsideError
from ctflow.ports import Environment, Event, Watch

#: Raised when what an environment holds changes, so that old ones are not taken for new ones.
LAYOUT = 1
MARKER = ".complete"
#: The last-used mark is as fine as this (seconds): a write on every look-up would buy nothing.
USED_GRAIN = 3600.0
_OTHER_FILE = re.compile(
    r"(?:-r|-c|-e|--requirements?|--constraints?|--editable)(?:[\s=]|(?<=-[rce])\S)|\.{0,2}/|file:"
)


@dataclass(frozen=True)
class CachedEnvironment:
    """One entry of the cache. ``size`` in bytes; ``used``: seconds since the epoch, by the mark."""

    key: str
    path: str
    size: int
    used: float
    complete: bool
    requirements: tuple[str, ...] = ()


def cache_root(environ: Mapping[str, str]) -> Path:
    """The user's cache folder: CTFLOW_CACHE, else XDG_CACHE_HOME/ctflow, else ~/.cache/ctflow."""
    if environ.get("CTFLOW_CACHE"):
        return Path(environ["CTFLOW_CACHE"]).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "ctflow"


def normalise(requirements: str) -> tuple[str, ...]:
    """The lines that count: continuations joined, comments and blank lines left out."""
    joined = requirements.replace("\r\n", "\n").replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line) for line in joined.split("\n"))
    return tuple(" ".join(line.split()) for line in lines if line.strip())


class UvEnvironments:
    """Implements the ``Environments`` port with uv.

    Args:
        root: the user's cache folder; see ``cache_root``.
        environ: variables for uv and for ``PATH``; the process's own unless given.
    """

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._given = environ

    def ensure(self, requirements: str, watch: Watch) -> Environment:
        """As the port says. Raises ConfigError, OutsideError."""
        found = self.find(requirements)
        if found is not None:
            return found
        lines = normalise(requirements)
        _refuse_other_files(lines)
        key = self.key(requirements)
        with self._lock(key, watch) as descriptor:
            # Whoever held the lock before us may have made it.
            found = self.find(requirements)
            if found is None:
                watch(Event("note", text=f"making a Python environment ({_count(lines)})"))
                try:
                    self._make(key, lines, descriptor)
                except OSError as error:
                    raise _disk_error(error, self._folder(key)) from None
                found = self.find(requirements)
        if found is None:
            raise OutsideError(
                f"the Python environment {self._folder(key)} does not work after it was made",
                next="remove it with `ctflow cache prune` and run the same command again",
            )
        return found

    def find(self, requirements: str) -> Environment | None:
        """As the port says: two stats, and a write at most once an hour."""
        key = self.key(requirements)
        folder = self._folder(key)
        marker = f"{folder}/{MARKER}"
        python = f"{folder}/bin/python"
        try:
            used = os.stat(marker).st_mtime  # noqa: PTH116 (the cheap way, many times a run)
            os.stat(python)  # noqa: PTH116 (follows the link: the base interpreter may be gone)
        except OSError:
            return None
        now = time.time()
        if now - used > USED_GRAIN:
            with suppress(OSError):  # a cache that is only readable is a cache all the same
                os.utime(marker, (now, now))
        path = self._environ().get("PATH", os.defpath)
        variables = {"PATH": f"{folder}/bin{os.pathsep}{path}", "VIRTUAL_ENV": folder}
        return Environment(key, Path(folder), Path(python), variables)

    def key(self, requirements: str) -> str:
        """64 hexadecimal digits that name the environment."""
        parts = (str(LAYOUT), _interpreter(), *normalise(requirements))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def entries(self) -> list[CachedEnvironment]:
        """All environments, the one used last first; half-made ones too."""
        try:
            folders = [one for one in (self._root / "environments").iterdir() if one.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(map(_entry, folders), key=lambda entry: -entry.used)

    def prune(self, older_than: float | None = None, *, dry_run: bool = False) -> int:
        """Remove environments not used for ``older_than`` seconds (None: all of them).

        One that is being made is left alone. Returns the bytes freed, or that would be: files that
        uv's own cache holds too (hard links) free nothing and do not count.
        """
        return sum(entry.size for entry in self.pruned(older_than, dry_run=dry_run))

    def pruned(
        self, older_than: float | None = None, *, dry_run: bool = False
    ) -> list[CachedEnvironment]:
        """What ``prune`` removes, or would remove."""
        now = time.time()
        chosen = [e for e in self.entries() if older_than is None or now - e.used >= older_than]
        return [entry for entry in chosen if dry_run or self._remove(entry)]

    def _remove(self, entry: CachedEnvironment) -> bool:
        name = Path(entry.path).name
        key = name.split(".")[0]
        with self._try_lock(key) as held:
            if not held:
                return False
            folder = Path(entry.path)
            trash = folder if "." in name else folder.with_name(f"{name}.trash-{os.getpid()}")
            # First out of sight in one go, then piece by piece: never a half-removed environment.
            if trash != folder:
                folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
            return True

    def _environ(self) -> Mapping[str, str]:
        return os.environ if self._given is None else self._given

    def _folder(self, key: str) -> str:
        return f"{self._root}/environments/{key}"

    def _lock_file(self, key: str) -> int:
        folder = self._root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _disk_error(error, str(folder)) from None

    @contextmanager
    def _lock(self, key: str, watch: Watch) -> Iterator[int]:
        descriptor = self._lock_file(key)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                watch(Event("note", text="waiting: another process makes this environment"))
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _try_lock(self, key: str) -> Iterator[bool]:
        descriptor = self._lock_file(key)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _make(self, key: str, lines: tuple[str, ...], descriptor: int) -> None:
        folder = Path(self._folder(key))
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv = find_uv(self._environ())
        base: str = getattr(sys, "_base_executable", "") or sys.executable
        self._uv([uv, "venv", "-q", "--no-project", "--python", base, str(folder)], descriptor)
        listed = folder / "requirements.txt"
        python = str(folder / "bin" / "python")
        try:
            listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            if lines:
                install = [uv, "pip", "install", "-q", "--python", python, "-r", str(listed)]
                self._uv(install, descriptor)
            _write_marker(folder, lines)
        except (ConfigError, OutsideError, OSError):
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _uv(self, command: list[str], descriptor: int) -> None:
        """Run uv in the folder of all environments: no project's own uv settings apply there."""
        try:
            done = subprocess.run(
                command, cwd=self._root / "environments", env=uv_environ(self._environ()),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
            )  # fmt: skip
        except FileNotFoundError:
            raise no_uv() from None
        if done.returncode:
            raise uv_error(done.returncode, done.stdout.decode(errors="replace"))


@cache
def _interpreter() -> str:
    """What must be the same for a compiled package to fit."""
    implementation = sys.implementation.name
    return f"{implementation} {platform.python_version()} {sysconfig.get_platform()}"


def _refuse_other_files(lines: tuple[str, ...]) -> None:
    for line in lines:
        if _OTHER_FILE.match(line) or re.search(r"@ *(?:\.{0,2}/|file:)", line):
            raise ConfigError(
                f"requirements.txt: {line!r} names another file, which is not part of its content",
                next="write the requirements themselves there",
            )


def _count(lines: tuple[str, ...]) -> str:
    return "empty" if not lines else f"{len(lines)} requirement{'s' * (len(lines) > 1)}"


def _disk_error(error: OSError, folder: str) -> OutsideError:
    return OutsideError(
        f"cannot write below {folder}: {error.strerror or error}",
        next="make room or give access there, or name another place in CTFLOW_CACHE",
    )


def _write_marker(folder: Path, lines: tuple[str, ...]) -> None:
    text = json.dumps({"layout": LAYOUT, "python": _interpreter(), "requirements": lines})
    half = folder / f"{MARKER}.half"
    with half.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.rename(folder / MARKER)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(folder: Path) -> CachedEnvironment:
    marker = folder / MARKER
    try:
        used = marker.stat().st_mtime
        lines = tuple(json.loads(marker.read_text(encoding="utf-8"))["requirements"])
        complete = True
    except (OSError, ValueError, KeyError, TypeError):
        try:
            used = folder.stat().st_mtime
        except OSError:
            used = 0.0
        lines, complete = (), False
    return CachedEnvironment(folder.name, str(folder), _size(folder), used, complete, lines)


def _size(folder: Path) -> int:
    """Bytes on the disk that only this folder holds."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(f"{at}/{name}")
            except OSError:
                continue
            if status.st_nlink == 1:
                total += status.st_blocks * 512
    return total
