"""Task processes, seen from the engine: start one, read its output, stop it, learn how it ended."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctflow.errors import OutsideError

_LENGTH = struct.Struct("!I")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


@dataclass(frozen=True)
class Command:
    """What to run. ``memory`` is a limit in bytes (0: none)."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    memory: int = 0


@dataclass(frozen=True)
class Exit:
    """How a task's process ended: its exit code, or the signal that killed it.

    ``peak`` is the largest resident size of one of its processes, in bytes. ``lost``: its keeper
    was killed and could tell nothing, so processes of it may be left.
    """

    code: int | None
    signal: int = 0
    seconds: float = 0.0
    peak: int = 0
    lost: bool = False

    @property
    def good(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0

    def text(self) -> str:
        """How it ended, for people."""
        if self.code is not None:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class Process:
    """A running task. ``output`` is the pipe's end to read from, ``control`` reports its end."""

    def __init__(self, output: int, control: socket.socket) -> None:
        self.output = output
        self.control = control

    def stop(self, grace: float) -> None:
        """SIGTERM to all its processes now, SIGKILL to those that are left after ``grace`` s."""
        with contextlib.suppress(OSError):
            self.control.send(repr(float(grace)).encode())

    def result(self) -> Exit:
        """How it ended; call when ``control`` is readable."""
        try:
            report = self.control.recv(256)
        except OSError:
            report = b""
        if not report:
            return Exit(None, signal.SIGKILL, lost=True)
        status, user, system, peak = marshal.loads(report)  # noqa: S302 (our own keeper's)
        used, size = user + system, peak * 1024
        if os.WIFSIGNALED(status):
            return Exit(None, os.WTERMSIG(status), used, size)
        return Exit(os.WEXITSTATUS(status), 0, used, size)

    def close(self) -> None:
        """Let go of both descriptors; a process that still runs is killed by this."""
        self.control.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1


def kill_marked(variables: Mapping[str, str], patience: float = 2.0) -> None:
    """Kill every process of ours whose environment has these variables.

    For a task whose keeper was killed with -9, and that nobody is the parent of any more. Where
    there is no /proc nothing is found, and nothing is done.
    """
    wanted = [f"{name}={value}".encode() for name, value in variables.items()]
    deadline = time.monotonic() + patience
    quiet = 0  # a process that is just being executed shows no environment: look again
    while quiet < 5 and time.monotonic() < deadline:
        found = [pid for pid in _own_processes() if _marked(pid, wanted)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(0.01)


def _own_processes() -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _marked(pid: int, wanted: list[bytes]) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(one in environ for one in wanted)


class Launcher:
    """Starts task processes through one supervisor (see ``supervisor``), itself started late."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the supervisor, if it is not there yet."""
        if self._channel is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise OutsideError(f"cannot start a process: {error.strerror}") from None
        finally:
            theirs.close()
        self._channel = ours

    def start(self, command: Command) -> Process:
        """Start a task.

        Raises:
            OutsideError: the supervisor is gone.
        """
        self.open()
        assert self._channel is not None  # noqa: S101 (open made it)
        control, theirs = socket.socketpair()
        read, write = os.pipe()
        body = marshal.dumps(
            {
                "argv": list(command.argv),
                "env": dict(command.env),
                "cwd": command.cwd,
                "memory": command.memory,
            }
        )
        try:
            socket.send_fds(self._channel, [_LENGTH.pack(len(body))], [write, theirs.fileno()])
            self._channel.sendall(body)
        except OSError:
            control.close()
            os.close(read)
            raise OutsideError(
                "the process that starts the tasks is gone", next="run the same command again"
            ) from None
        finally:
            os.close(write)
            theirs.close()
        os.set_blocking(read, False)
        return Process(read, control)

    def close(self) -> None:
        """End the supervisor and everything below it, and wait until it has ended."""
        if self._channel is None or self._supervisor is None:
            return
        self._channel.close()
        self._channel = None
        self._supervisor.wait()
