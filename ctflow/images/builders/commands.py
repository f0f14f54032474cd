"""Runs other programs: their output line by line, and their end where we are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from ctflow.errors import Interrupted, OutsideError, RunFailed
from ctflow.lib.secrets import KNOWN

_LAST_LINES = 15
#: Lines before the end in which the reason is looked for: where platforms are built side by side,
#: the others go on talking after one has failed.
_SEARCHED = 300
#: Seconds that a program has to end before it is made to.
_GRACE = 5.0
_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_stopping = threading.Event()


def execute(
    argv: Sequence[str],
    line: Callable[[str], None],
    *,
    what: str,
    environ: Mapping[str, str],
    feed: Callable[[IO[bytes]], None] | None = None,
    fails: type[RunFailed | OutsideError] = RunFailed,
) -> None:
    """Run a command, its output line by line to ``line``; kill its processes if we are stopped.

    Raises:
        RunFailed or OutsideError (``fails``): it ended with another code than 0; with its last
            lines. OutsideError: it cannot be started. Interrupted: we are being stopped.
    """
    last: deque[str] = deque(maxlen=_SEARCHED)
    process = _started(argv, environ, feed is not None)
    problem: list[BaseException] = []
    feeder = None
    try:
        if feed is not None:
            feeder = threading.Thread(target=_feed, args=(process, feed, problem))
            feeder.start()
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        for raw in process.stdout:
            text = KNOWN.mask(raw.decode("utf-8", "replace").rstrip("\r\n"))
            last.append(text)
            line(text)
        code = process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        _running.discard(process)
        if feeder is not None:
            feeder.join()
        if process.stdout is not None:
            process.stdout.close()
    if problem:
        raise problem[0]
    if code != 0:
        raise _failure(fails, what, code, tuple(last))


def _started(
    argv: Sequence[str], environ: Mapping[str, str], is_fed: bool
) -> subprocess.Popen[bytes]:
    # Started and noted in one step: ``stopped`` finds a program that has only just started, too.
    with _starting:
        if _stopping.is_set():
            raise Interrupted(f"stopped before {argv[0]} was started")
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if is_fed else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            raise OutsideError(
                f"cannot start {argv[0]}: {error.strerror}", next=f"install {argv[0]}"
            ) from None
        _running.add(process)
        return process


@contextmanager
def stopped() -> Iterator[None]:
    """End the programs that ``execute`` runs in other threads, which Ctrl-C does not reach.

    While in the block no other one starts: a thread may be between two of them. Where a second
    Ctrl-C ends the block, none starts any more: the process is about to end.
    """
    _stopping.set()
    with _starting:
        ours = list(_running)
    try:
        _signal(ours, signal.SIGTERM)
        end = time.monotonic() + _GRACE
        for process in ours:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:  # also where a second Ctrl-C cuts the wait short
        _signal(ours, signal.SIGKILL)
    yield
    _stopping.clear()


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def _feed(
    process: subprocess.Popen[bytes],
    feed: Callable[[IO[bytes]], None],
    problem: list[BaseException],
) -> None:
    assert process.stdin is not None  # noqa: S101 (it is a pipe)
    try:
        feed(process.stdin)
    except BrokenPipeError:
        pass  # the engine has ended; its exit code tells
    except Exception as error:  # noqa: BLE001 (raised again by the other thread)
        problem.append(error)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()


#: (words of the engine's last lines, what they mean, what to do)
_KNOWN = (
    ("no space left on device", "the disk is full", "make room, and run it again"),
    (
        "not supported for the docker driver",
        "docker's built-in builder cannot do this",
        "make a builder that can with `docker buildx create --use`",
    ),
    (
        "exec format error",
        "this machine cannot run programs of that platform",
        "install emulation with `apt-get install qemu-user-static`, or build on such a machine",
    ),
)


def _failure(
    fails: type[RunFailed | OutsideError], what: str, code: int, last: tuple[str, ...]
) -> RunFailed | OutsideError:
    text = "\n".join(last).lower()
    last = last[-_LAST_LINES:]
    for words, fact, step in _KNOWN:
        if words in text:
            return OutsideError(f"{what}: {fact}", next=step, details=last)
    if fails is OutsideError or code < 0:
        return OutsideError(f"{what} failed (exit code {code})", details=last,
                            next="see its last lines, and run the same command again")  # fmt: skip
    return RunFailed(f"{what} failed (exit code {code})", details=last,
                     next="correct the Dockerfile; its last lines are below")  # fmt: skip


def ask(argv: Sequence[str], environ: Mapping[str, str], seconds: float = 30.0) -> str | None:
    """A command's standard output, or None where it fails, is missing or takes too long."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, env=dict(environ), timeout=seconds,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def complaint(argv: Sequence[str], environ: Mapping[str, str], seconds: float = 30.0) -> str:
    """The last line that a failing command prints; ``""`` where it says nothing."""
    try:
        done = subprocess.run(
            list(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(environ),
            timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer in {seconds:g} s"
    except OSError as error:
        return str(error.strerror)
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
