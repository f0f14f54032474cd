"""Talks to an environment's front, starts it, and ends one that hangs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError
from ctflow.lib.variables import handed_on
from ctflow.ports import Environment

_PROGRAMS = Path(__file__).parent
#: sockaddr_un holds 108 bytes on Linux, 104 elsewhere, the final NUL included.
_SOCKET_PATH_MAX = 100
_LOG_MAX = 4 << 20


class CommandRefused(Exception):
    """The front answered that it could not do it; the message says why."""


class PortTaken(Exception):
    """Something else listens on the wanted port."""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel gives it back however the process ends."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def variables(environment: Environment, pass_env: Sequence[str] = ()) -> dict[str, str]:
    """The environment variables of a process in ``environment``.

    Args:
        pass_env: names of the caller's variables that it gets besides the usual ones.
    """
    return handed_on(os.environ, pass_env) | dict(environment.variables)


def open_log(file: Path) -> None:
    """Make the log file ready to be appended to; one that has grown long starts anew."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > _LOG_MAX:
        file.write_bytes(b"")


class Front:
    """A control connection. What it leaves uncommitted is undone by the front when it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rwb")

    @classmethod
    def connect(cls, folder: Path, timeout: float = 5.0) -> Front | None:
        """The front of an environment's folder, or None where none listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            with _address(folder) as address:
                connection.connect(address)
        except OSError:
            connection.close()
            return None
        return cls(connection)

    def ask(self, do: str, *, timeout: float = 5.0, **what: Any) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            CommandRefused: the front could not do it.
            OutsideError: the front is gone or does not answer in ``timeout`` seconds.
        """
        self._socket.settimeout(timeout)
        try:
            self._file.write(json.dumps({"do": do, **what}).encode() + b"\n")
            self._file.flush()
            line = self._file.readline()
        except OSError:
            line = b""
        if not line:
            raise OutsideError(
                "the environment's front does not answer",
                cause="it was killed or hangs",
                next="run `ctflow deploy` again",
            )
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise CommandRefused(answer["error"])
        return answer

    def wait_end(self, timeout: float) -> bool:
        """Wait until the front's process has ended."""
        self._socket.settimeout(timeout)
        try:
            while self._file.readline():
                pass
        except OSError as error:
            return not isinstance(error, TimeoutError)
        return True

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A path of the control socket that is short enough for the kernel."""
    path = str(folder / "control.sock")
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        yield path
    elif sys.platform == "linux":
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{handle}/control.sock"
        finally:
            os.close(handle)
    else:
        raise OutsideError(
            f"the path of the state folder is too long for a socket: {folder}",
            next="set CTFLOW_STATE to a shorter one",
        )


def can_listen(port: int) -> bool:
    """Whether ``port`` of 127.0.0.1 is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start_front(
    folder: Path,
    environment: Environment,
    port: int,
    pass_env: Sequence[str] = (),
    timeout: float = 30.0,
) -> int:
    """Start the front of an environment's folder; returns its port once it answers.

    A front that holds the folder and does not answer is ended first.

    Raises:
        PortTaken: ``port`` (0: any) is in use.
        OutsideError: the front ended, with the last line of its log, or did not start in time.
    """
    kill_front(folder)
    log_file = folder / "logs" / "front.log"
    open_log(log_file)
    reader, writer = os.pipe()
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [
                    str(environment.python),
                    str(_PROGRAMS / "front.py"),
                    json.dumps({"port": port, "report": writer}),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=variables(environment, pass_env),
                start_new_session=True,
                pass_fds=[writer],
            )
        os.close(writer)
        writer = -1
        said = _read_report(reader, timeout)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if "port" in said:
        # Only its first seconds are ours: it outlives this process, and init collects it then.
        return int(said["port"])
    process.kill()
    process.wait()
    if said.get("kind") == "port":
        raise PortTaken(said["error"])
    raise OutsideError(
        f"the local server did not start: {said.get('error') or ' '.join(last_lines(log_file, 1))}",
        cause="serving/requirements.txt must hold kserve",
        next=f"read {log_file}",
    )


def _read_report(reader: int, timeout: float) -> Mapping[str, Any]:
    deadline, text = time.monotonic() + timeout, b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        part = os.read(reader, 4096)
        if not part:
            try:
                return dict(json.loads(text))
            except ValueError:
                return {}
        text += part
    return {"error": f"it was not ready after {timeout:g} s"}


def kill_front(folder: Path) -> None:
    """End a front that holds the folder, if there is one; its model servers end with it.

    Its pid is in ``front.lock``, which it keeps locked: another process that has got the same pid
    since would not hold that lock.
    """
    file = folder / "front.lock"
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for signum, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if _lockable(handle, 0.0):
                return
            pid = os.pread(handle, 32, 0).decode("ascii", "replace")
            if pid.isdigit():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signum)
            if _lockable(handle, patience):
                return
    finally:
        os.close(handle)
    raise OutsideError(
        f"the front of {folder.name} cannot be ended", next="end that process yourself"
    )


def _lockable(handle: int, patience: float) -> bool:
    """Whether nobody holds the lock, or gives it back within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not _try_lock(handle):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)  # flock has no timeout
    fcntl.flock(handle, fcntl.LOCK_UN)
    return True


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def last_lines(file: Path, count: int) -> list[str]:
    """The last lines of a log that say something, printable."""
    from ctflow.serving.golden import clean

    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 8192))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    said = [clean(line) for line in lines if line.strip()]
    return said[-count:]
