"""The process that starts tasks and leaves none behind; run as a script of its own.

``process.Launcher`` starts it with a Unix socket as its standard input. Each message there (four
bytes of length, then ``marshal``) asks for one task and carries two file descriptors: where the
task's output goes, and a control socket. For each task a *keeper* is forked (one always waits for
the next). It is the parent of the task's process and, by ``PR_SET_CHILD_SUBREAPER``, of all that
the task leaves behind. When the task ends, or the control socket closes because whoever asked is
gone, the keeper kills what is left and waits until nothing is: no descendant can escape it,
whatever session or group it made.

It imports nothing of ctflow and as little else as possible, for it is forked for each task.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: What a supervisor does not die of; a task does.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
#: The exit code of a task whose program could not be started, as shells have it.
CANNOT_START = 127
#: How a keeper ends that found the channel closed.
_CLOSED = 3

_LENGTH = struct.Struct("!I")
_libc: Any = None
#: Whether a task is to be a fork of this interpreter (see ``warm``).
_may_become: Callable[[dict[str, Any]], bool] | None = None


class Become(BaseException):
    """Raised in a forked process that is to be the task: it leaves all code of the supervisor."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__()
        self.message = message


def prctl(option: int, value: int) -> None:
    """prctl(2) where there is one; elsewhere process groups alone have to do."""
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)


def load_prctl() -> None:
    """Find prctl before the first fork, so that no child pays for it."""
    global _libc
    if sys.platform.startswith("linux"):
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)


def descendants(pid: int) -> list[int]:
    """The process ids below ``pid``, as far as /proc tells."""
    found = _children(pid)
    for child in found:  # also over those that come here
        found += _children(child)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                found += map(int, file.read().split())
    return found


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _reap(ended: dict[int, int]) -> bool:
    """Put the wait statuses of all children that have ended into ``ended``; are there others?"""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
        return True
    return False


def kill_below(first: int) -> dict[int, int]:
    """Kill all descendants of this process, and return when there are none.

    ``first`` is the task's own process, whose group is killed where /proc says nothing.
    """
    ended: dict[int, int] = {}
    pause = 0.0005
    while _reap(ended):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(first, signal.SIGKILL)
        _signal_all(descendants(os.getpid()), signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return ended


def _fork_task(channel: socket.socket, ours: socket.socket, keeper: socket.socket) -> int:
    """Fork the process of the next task; its pid. In the child this never returns.

    It waits for the message itself, with all done that can be done before, for every millisecond
    from there to the task's program is one that a slot stands empty.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(OSError):
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_IGNORED):
            signal.signal(number, signal.SIG_DFL)
        ours.close()
        code = _be_task(channel.detach(), keeper.detach())
    os._exit(code)


def _be_task(channel: int, keeper: int) -> int:
    """Wait for the message and execute it; the exit code when that cannot be done.

    Plain descriptors, all closed here: a socket object that outlives this would close one again,
    when it may be somebody else's.
    """
    received = _receive(channel)
    if received is None:
        return _CLOSED
    message, (output, control) = received
    with socket.socket(fileno=keeper) as to_keeper:
        socket.send_fds(to_keeper, [b"."], [control])
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, max(output, 256) + 1)
        if message["memory"]:
            resource.setrlimit(resource.RLIMIT_DATA, (message["memory"], message["memory"]))
        os.chdir(message["cwd"])
        if _may_become is not None and _may_become(message):
            raise Become(message)
        _exec(message["argv"], message["env"])
    except Exception as error:  # noqa: BLE001 (a forked child must not go on)
        with contextlib.suppress(OSError):
            os.write(2, f"cannot start {message['argv'][0]}: {error}\n".encode())
    return CANNOT_START


def _exec(argv: list[str], env: dict[str, str]) -> None:
    """execve along the PATH of the task's own environment.

    What ``os.execvpe`` does, without what that imports in each new process (over a millisecond).
    """
    program, refused = argv[0], None
    if "/" in program:
        os.execve(program, argv, env)  # noqa: S606
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        try:
            os.execve(f"{folder or '.'}/{program}", argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = refused or error
    raise refused or FileNotFoundError(errno.ENOENT, "it is not on the PATH", program)


def keep(channel: socket.socket, taken: int) -> int:
    """Be the keeper of the next task: wait for it, stop it on request, kill what it leaves.

    Writes to ``taken`` when there is one. Reports ``(wait status, user seconds, system seconds,
    peak memory in kB)`` on the task's control socket. Returns its own exit code.
    """
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read = _wake_up()
    ours, theirs = socket.socketpair()
    pid = _fork_task(channel, ours, theirs)
    channel.close()
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:  # it has ended without a task
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or 1
    os.write(taken, b".")
    control = socket.socket(fileno=descriptors[0])
    status = _wait(pid, control, wake_read)
    ended = kill_below(pid)
    if status is None:
        status = ended.get(pid, signal.SIGKILL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with contextlib.suppress(OSError):
        control.send(marshal.dumps((status, used.ru_utime, used.ru_stime, used.ru_maxrss)))
    return 0


def _wait(pid: int, control: socket.socket, wake: int) -> int | None:
    """Wait for the task's process; its wait status, or None when it has to be killed."""
    deadline: float | None = None
    watched: list[Any] = [control, wake]
    while True:
        ended: dict[int, int] = {}
        _reap(ended)
        if pid in ended:
            return ended[pid]
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        readable, _, _ = select.select(watched, [], [], left)
        if wake in readable:
            _drain(wake)
        if control in readable:
            if not (words := control.recv(64)):  # whoever asked for the task is gone
                return None
            deadline = time.monotonic() + float(words)
            _signal_all(descendants(os.getpid()) or [pid], signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            return None


def _receive(channel: int) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None when there are no more. Closes ``channel``."""
    with socket.socket(fileno=channel) as source:
        head, descriptors, _, _ = socket.recv_fds(source, _LENGTH.size, 2)
        if not head:
            return None
        while len(head) < _LENGTH.size:
            head += source.recv(_LENGTH.size - len(head))
        (length,) = _LENGTH.unpack(head)
        data = bytearray()
        while len(data) < length:
            if not (part := source.recv(min(length - len(data), 1 << 20))):
                return None
            data += part
    return marshal.loads(data), descriptors  # noqa: S302 (from our own parent only)


def _fork_keeper(channel: socket.socket, taken: int) -> int:
    """Fork a keeper that waits for the next task; it writes to ``taken`` when there is one."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        code = keep(channel, taken)
    except Become:
        raise
    except BaseException:  # noqa: BLE001 (a keeper must never go on as the supervisor)
        code = 1
    os._exit(code)


def serve(channel: socket.socket) -> None:
    """Keep one keeper in waiting, until the channel closes; then leave nothing behind."""
    wake_read = _wake_up()
    taken_read, taken_write = os.pipe()
    os.set_blocking(taken_read, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    keepers = {spare := _fork_keeper(channel, taken_write)}
    while True:
        select.select([taken_read, wake_read], [], [])
        _drain(wake_read)
        ended = _collect(keepers)
        # Looked at after the ends: one that took its task and has ended since is replaced once.
        # Two in waiting would each get a part of the next message.
        taken = _drain(taken_read)
        if not taken and os.waitstatus_to_exitcode(ended.get(spare, 0)) == _CLOSED:
            break
        if any(status for pid, status in ended.items() if taken or pid != spare):
            _kill_strays(keepers)
            taken += _drain(taken_read)
        if taken or spare not in keepers:
            keepers.add(spare := _fork_keeper(channel, taken_write))
    # The keepers see their control sockets close too, and end what they keep.
    while keepers:
        select.select([wake_read], [], [], 0.2)  # a keeper's end may come before we look
        _drain(wake_read)
        _collect(keepers)
    kill_below(0x7FFFFFFF)


def _wake_up() -> int:
    """A pipe that each signal writes to, its end to read; neither end blocks."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def _drain(pipe: int) -> bytes:
    """What is in a pipe that does not block."""
    try:
        return os.read(pipe, 4096)
    except BlockingIOError:
        return b""


def _collect(keepers: set[int]) -> dict[int, int]:
    """The keepers that have ended, with their wait statuses."""
    every: dict[int, int] = {}
    _reap(every)
    ended = {pid: status for pid, status in every.items() if pid in keepers}
    keepers.difference_update(ended)
    return ended


def _kill_strays(keepers: set[int]) -> None:
    """A keeper was killed: what it kept has come to us."""
    while strays := [pid for pid in _children(os.getpid()) if pid not in keepers]:
        for pid in strays:
            _signal_all([pid, *descendants(pid)], signal.SIGKILL)
        time.sleep(0.001)
        _collect(keepers)


def main(may_become: Callable[[dict[str, Any]], bool] | None = None) -> None:
    """Serve the socket that is standard input.

    Args:
        may_become: whether a task is to be a fork of this interpreter, by its message.

    Raises:
        Become: in such a forked process.
    """
    global _may_become
    _may_become = may_become
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    load_prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    serve(channel)


if __name__ == "__main__":
    main()
