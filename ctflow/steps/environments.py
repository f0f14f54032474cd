"""Python environments of the steps, made with uv: one for each content, shared by all projects.

Layout below the user's cache folder::

    environments/<key>/            a virtual environment
    environments/<key>.complete    written last; its absence means half made, its mtime last use
    locks/<key>                    held (flock) while an environment is made or removed
    locks/<key>.use                shared by each process that needs it, exclusive to remove it

The first lock's descriptor is inherited by uv, so that a ctflow that was killed with -9 while uv
works on leaves the lock with uv: nobody wipes a folder that is still being written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.locks import lock, locked
from ctflow.lib.requirements import normalise
from ctflow.ports import Environment, Event, Watch
from ctflow.steps.cached_environment import MARKER, CachedEnvironment, entry_of, marker_of
from ctflow.steps.uv_tool import (
    find_python,
    find_uv,
    install_python,
    no_uv,
    uv_environ,
    uv_error,
)

#: Raised when what an environment holds changes, so that old ones are not taken for new ones.
LAYOUT = 2
#: The last-used mark is as fine as this (seconds): a write on every look-up would buy nothing.
USED_GRAIN = 3600.0
#: Seconds until uv is asked again for a Python that it could not bring.
_AGAIN = 86400.0
_OTHER_FILE = re.compile(
    r"(?:-r|-c|-e|--requirements?|--constraints?|--editable)(?:[\s=]|(?<=-[rce])\S)|\.{0,2}/|file:"
)


class UvEnvironments:
    """Implements the ``Environments`` port with uv.

    Args:
        root: the user's cache folder; see ``cache_root``.
        environ: variables for uv and for ``PATH``; the process's own unless given.
    """

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._given = environ
        #: The environments that this process has asked for: the descriptors of their locks.
        self._held: dict[str, int] = {}
        weakref.finalize(self, _let_go, self._held)

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        """As the port says. Raises ConfigError, OutsideError."""
        found = self.find(requirements, python)
        if found is not None:
            return found
        lines = normalise(requirements)
        _refuse_other_files(lines)
        interpreter = self._interpreter_of(python, watch) if python else _base_python()
        if interpreter is None:
            text = f"Python {python} is not available; using {platform.python_version()}"
            watch(Event("note", text=text))
            return self.ensure(requirements, watch)
        key = self.key(requirements, python)
        with self._lock(key, watch) as descriptor:
            # Whoever held the lock before us may have made it.
            found = self.find(requirements, python)
            if found is None:
                watch(Event("note", text=f"making a Python environment ({_count(lines)})"))
                try:
                    self._make(key, lines, descriptor, interpreter)
                except OSError as error:
                    raise _disk_error(error, self._folder(key)) from None
                found = self.find(requirements, python)
        if found is None:
            raise OutsideError(
                f"the Python environment {self._folder(key)} does not work after it was made",
                next="remove it with `ctflow cache prune` and run the same command again",
            )
        return found

    def find(self, requirements: str, python: str = "") -> Environment | None:
        """As the port says: a few stats, and a write at most once an hour.

        What was found is not pruned as long as this process, or this object, lives.
        """
        key = self.key(requirements, python)
        folder = self._folder(key)
        python = f"{folder}/bin/python"
        if not self._usable(folder) or not self._hold(key):
            return None
        path = self._environ().get("PATH", os.defpath)
        variables = {"PATH": f"{folder}/bin{os.pathsep}{path}", "VIRTUAL_ENV": folder}
        return Environment(key, Path(folder), Path(python), variables)

    def _interpreter_of(self, python: str, watch: Watch) -> str | None:
        """An interpreter of that version; uv is asked for a missing one once a day."""
        found = find_python(python, self._environ())
        asked = self._root / "environments" / f"python-{python}.asked"
        if found is not None or not (re.fullmatch(r"\d+\.\d+", python) and _older(asked, _AGAIN)):
            return found
        watch(Event("note", text=f"asking uv for Python {python}"))
        found = install_python(python, self._environ())
        if found is None:
            with suppress(OSError):
                asked.parent.mkdir(parents=True, exist_ok=True)
                asked.touch()
        return found

    def _usable(self, folder: str) -> bool:
        marker = f"{folder}{MARKER}"
        try:
            used = os.stat(marker).st_mtime  # noqa: PTH116 (the cheap way, many times a run)
            os.stat(f"{folder}/bin/python")  # noqa: PTH116 (through the link: it may be gone)
        except OSError:
            return False
        now = time.time()
        if abs(now - used) > USED_GRAIN:
            with suppress(OSError):  # a cache that is only readable is a cache all the same
                os.utime(marker, (now, now))
        return True

    def _hold(self, key: str) -> bool:
        """Keep an environment from being pruned; False where it was, just before."""
        if key in self._held:
            return True
        try:
            descriptor = lock(self._use_lock(key), shared=True, wait=True)
        except (OSError, OutsideError):
            return True  # whoever may not write here does not prune here either
        assert descriptor is not None  # noqa: S101 (it was waited for)
        if not self._usable(self._folder(key)):
            os.close(descriptor)
            return False
        self._held[key] = descriptor
        return True

    def release(self) -> None:
        """Let go of what this process has asked for: it may be pruned."""
        _let_go(self._held)

    def key(self, requirements: str, python: str = "") -> str:
        """64 hexadecimal digits that name the environment."""
        interpreter = f"cpython {python} {sysconfig.get_platform()}" if python else _interpreter()
        parts = (str(LAYOUT), interpreter, *normalise(requirements))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def entries(self) -> list[CachedEnvironment]:
        """All environments, the one used last first; half-made ones too."""
        try:
            folders = [one for one in (self._root / "environments").iterdir() if one.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(map(entry_of, folders), key=lambda entry: -entry.used)

    def prune(self, older_than: float | None = None, *, dry_run: bool = False) -> int:
        """Remove environments not used for ``older_than`` seconds (None: all of them).

        One that is being made, or that a process needs, is left alone. Returns the bytes freed, or
        that would be: files that uv's own cache holds too (hard links) free nothing and do not
        count.
        """
        return sum(entry.size for entry in self.pruned(older_than, dry_run=dry_run))

    def pruned(
        self, older_than: float | None = None, *, dry_run: bool = False
    ) -> list[CachedEnvironment]:
        """What ``prune`` removes, or would remove."""
        now = time.time()
        chosen = [e for e in self.entries() if older_than is None or now - e.used >= older_than]
        return [entry for entry in chosen if self._remove(entry, dry_run=dry_run)]

    def _remove(self, entry: CachedEnvironment, *, dry_run: bool) -> bool:
        name = Path(entry.path).name
        key = name.split(".")[0]
        folder = Path(entry.path)
        trash = folder if "." in name else folder.with_name(f"{name}.trash-{secrets.token_hex(4)}")
        places = (self._make_lock(key), self._use_lock(key))
        with locked(places[0]) as unmade, locked(places[1]) as unused:
            if not (unmade and unused):
                return False
            if dry_run:
                return True
            # First out of sight in one go, then piece by piece: never a half-removed environment.
            marker_of(folder).unlink(missing_ok=True)
            if trash != folder:
                with suppress(FileNotFoundError):  # another process was first
                    folder.rename(trash)
            for place in places:
                place.unlink()
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _environ(self) -> Mapping[str, str]:
        return os.environ if self._given is None else self._given

    def _folder(self, key: str) -> str:
        return f"{self._root}/environments/{key}"

    def _make_lock(self, key: str) -> Path:
        folder = self._root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _disk_error(error, str(folder)) from None
        return folder / key

    def _use_lock(self, key: str) -> Path:
        return self._root / "locks" / f"{key}.use"

    @contextmanager
    def _lock(self, key: str, watch: Watch) -> Iterator[int]:
        place = self._make_lock(key)
        try:
            descriptor = lock(place)
            if descriptor is None:
                watch(Event("note", text="waiting for another process that makes this environment"))
                descriptor = lock(place, wait=True)
        except OSError as error:
            raise _disk_error(error, str(place)) from None
        assert descriptor is not None  # noqa: S101 (it was waited for)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _make(self, key: str, lines: tuple[str, ...], descriptor: int, interpreter: str) -> None:
        folder = Path(self._folder(key))
        marker_of(folder).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv = find_uv(self._environ())
        venv = [uv, "venv", "-q", "--no-project", "--python", interpreter, str(folder)]
        self._uv(venv, descriptor)
        listed = folder.with_name(f"{key}.requirements.txt")
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
        finally:
            listed.unlink(missing_ok=True)

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


def _older(file: Path, seconds: float) -> bool:
    try:
        return time.time() - file.stat().st_mtime > seconds
    except OSError:
        return True


def _let_go(held: dict[str, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)
    held.clear()


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
        next="make room or give access there, or name another folder in CTFLOW_CACHE",
    )


def _base_python() -> str:
    """The interpreter that this one's virtual environment was made of, which may go away.

    Python itself tells it from 3.11 on; before, it names the environment's own.
    """
    own: str = getattr(sys, "_base_executable", "") or sys.executable
    if sys.prefix == sys.base_prefix or own != sys.executable:
        return own
    installed = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    return installed if os.path.isfile(installed) else own  # noqa: PTH113


def _write_marker(folder: Path, lines: tuple[str, ...]) -> None:
    text = json.dumps({"layout": LAYOUT, "python": _interpreter(), "requirements": lines})
    half = folder.with_name(f"{folder.name}{MARKER}.half")
    with half.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.rename(marker_of(folder))
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
