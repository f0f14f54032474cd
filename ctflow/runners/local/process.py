"""Task processes, seen from the engine: start one, read its output, stop it, learn how it ended."""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.lib.quick import dataclass

_LENGTH = struct.Struct("!I")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_WARM = Path(__file__).with_name("warm.py")
#: Seconds that a supervisor has to start, and to end.
_PATIENCE = 20.0
#: The variable that names the task to its process.
TASK_VARIABLE = "CTFLOW_TASK"
#: Runs ``warm`` in a Python whose path must not name our folder, and then, forked, the task.
_START_WARM = """\
import os, runpy, sys
os.write(0, b".")
task = runpy.run_path(sys.argv[1])["main"](sys.argv[2])
if task: task()
"""


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        memory: a limit in bytes; 0: none.
        module: set when ``argv`` is ``python3 -m MODULE ...``: it may run in an interpreter that
            has imported the module before.
        home: the folder where such an interpreter is started: what lies there can be imported.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    memory: int = 0
    module: str = ""
    home: str = "/"


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


class _Supervisor:
    """A running ``supervisor``, and the socket to it."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str] | None, cwd: str) -> None:
        self.channel, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                words,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None if env is None else subprocess.DEVNULL,  # the tasks show it again
                start_new_session=True,
                cwd=cwd,
                env=env,
            )
        except OSError as error:
            self.channel.close()
            raise OutsideError(f"cannot start a process: {error.strerror}") from None
        finally:
            theirs.close()

    def speaks(self) -> bool:
        """Whether a warm one has started: an interpreter may also die of its variables."""
        self.channel.settimeout(_PATIENCE)
        try:
            return self.channel.recv(1) != b""
        except OSError:
            return False
        finally:
            self.channel.settimeout(None)

    def end(self) -> None:
        """Wait until it has ended, and all below it; kill it if that takes too long."""
        self.channel.close()
        with contextlib.suppress(AttributeError, OSError):  # Linux only; else wait() looks often
            process = os.pidfd_open(self.process.pid)
            select.select([process], [], [], _PATIENCE)
            os.close(process)
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def send(self, command: Command, output: int, control: int) -> None:
        """Ask for a task."""
        body = marshal.dumps(
            {
                "argv": list(command.argv),
                "env": dict(command.env),
                "cwd": command.cwd,
                "memory": command.memory,
            }
        )
        socket.send_fds(self.channel, [_LENGTH.pack(len(body))], [output, control])
        self.channel.sendall(body)


class Launcher:
    """Starts task processes through supervisors, themselves started when they are first needed.

    One (see ``supervisor``) starts any command. Besides, there is a ``warm`` one for
    each environment and set of variables that Python components run in; the longest unused is let
    go when there are too many.
    """

    #: Warm supervisors at a time; each holds the memory of one idle interpreter (about 25 MB).
    WARM = 4

    def __init__(self) -> None:
        self._cold: _Supervisor | None = None
        self._warm: dict[object, _Supervisor] = {}
        self._leaving: list[_Supervisor] = []
        self._mute: set[object] = set()

    def start(self, command: Command) -> Process:
        """Start a task.

        Raises:
            OutsideError: the supervisor is gone.
        """
        read, write = os.pipe()
        try:
            control = self._begin(command, write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        os.set_blocking(read, False)
        return Process(read, control)

    def start_talking(self, command: Command) -> tuple[Process, socket.socket]:
        """Start a process that both listens and answers: its output is a socket, which is ours.

        Raises:
            OutsideError: the supervisor is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            control = self._begin(command, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Process(-1, control), ours

    def _begin(self, command: Command, output: int) -> socket.socket:
        """Ask a supervisor for a task; the socket that reports its end."""
        supervisor = self._find(command)
        control, theirs = socket.socketpair()
        try:
            supervisor.send(command, output, theirs.fileno())
        except BaseException as error:
            control.close()  # Ctrl-C too: whoever has taken the task ends it by this
            if not isinstance(error, OSError):
                raise
            raise OutsideError(
                "the process that starts the tasks has ended", next="run the same command again"
            ) from None
        finally:
            theirs.close()
        return control

    def _find(self, command: Command) -> _Supervisor:
        warm = self._find_warm(command) if command.module else None
        if warm is not None:
            return warm
        if self._cold is None:
            self._cold = _Supervisor([sys.executable, "-I", "-S", str(_SUPERVISOR)], None, "/")
        return self._cold

    def _find_warm(self, command: Command) -> _Supervisor | None:
        """The warm supervisor of a command, started if need be.

        Its variables are the task's, but for the task's name: some are read only when an
        interpreter starts, or a module is imported.
        """
        if not sys.platform.startswith("linux"):  # elsewhere forks without exec are not safe
            return None
        env = {name: value for name, value in command.env.items() if name != TASK_VARIABLE}
        python = shutil.which(command.argv[0], path=env.get("PATH", os.defpath))
        if python is None:
            return None
        key = (python, command.module, command.home, frozenset(env.items()))
        if key in self._mute:
            return None
        found = self._warm.pop(key, None)
        if found is not None and found.process.poll() is not None:
            return None  # whatever ended it: the task is started the plain way
        if found is None:
            words = [python, "-c", _START_WARM, str(_WARM), command.module]
            found = _Supervisor(words, env, command.home)
            if not found.speaks():
                found.end()
                self._mute.add(key)
                return None
        self._warm[key] = found
        if len(self._warm) > self.WARM:
            oldest = self._warm.pop(next(iter(self._warm)))
            oldest.channel.close()  # it ends when its tasks have
            left = (one for one in self._leaving if one.process.poll() is None)
            self._leaving = [oldest, *left]
        return found

    def close(self) -> None:
        """End the supervisors and everything below them, and wait until they have ended."""
        all_of_them = [*self._leaving, *self._warm.values()]
        if self._cold is not None:
            all_of_them.append(self._cold)
        self._cold, self._warm, self._leaving = None, {}, []
        for supervisor in all_of_them:
            supervisor.channel.close()
        for supervisor in all_of_them:
            supervisor.end()
