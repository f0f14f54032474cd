"""What a build engine is asked for, and how its commands are run: streamed, logged, in one place.

An engine is a module of this package with a class that satisfies ``Engine``. Those that are
programs only say their command lines; ``execute`` runs them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from ctflow.adapters.builders.tarball import Pipe, write_tar
from ctflow.context import DOCKERFILE, ContextFile
from ctflow.errors import Interrupted, OutsideError, RunFailed, StateError
from ctflow.secrets import KNOWN

LAST_LINES = 15
#: Lines before the end in which the reason is looked for: where platforms are built side by side,
#: the others go on talking after one has failed.
_SEARCHED = 300
#: Seconds that a program has to end before it is made to.
_GRACE = 5.0
_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_stopped = threading.Event()


@dataclass(frozen=True)
class Target:
    """One image to be built. ``content`` is the digest of all that goes in, ``name`` has no tag."""

    step: str
    files: tuple[ContextFile, ...]
    content: str
    name: str
    base: str = ""

    @property
    def tag(self) -> str:
        """The content tag."""
        return content_tag(self.content)

    @property
    def reference(self) -> str:
        """Name and content tag."""
        return f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class Options:
    """How images are built.

    Attributes:
        args: build arguments, BASE among them (pinned by digest).
        secrets: id -> file that holds it.
        created: seconds since 1970 that the image says it was made at; None: now.
    """

    args: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache: str | None = None
    insecure: bool = False
    created: int | None = None


Line = Callable[[str], None]


class Engine(Protocol):
    """Builds images."""

    name: str

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """Build into the engine's own store; the image's id there (``sha256:...``), or ``""``.

        Args:
            work: an empty folder for this build's own files.
            line: gets each line of the engine's output.

        Raises:
            RunFailed: the Dockerfile fails. OutsideError: the engine does.
        """
        ...

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """Push what ``build`` has built to ``target.reference``."""
        ...

    def find(self, target: Target) -> str | None:
        """The id of an image of this content in the engine's own store."""
        ...


def content_tag(content: str) -> str:
    """``ctx-`` and the first 32 hexadecimal digits of a content digest."""
    return f"ctx-{content.removeprefix('sha256:')[:32]}"


def insecure_host(reference: str, options: Options) -> bool:
    """Whether the registry is spoken to without TLS."""
    from ctflow.adapters.registry.http import is_loopback

    return options.insecure or is_loopback(reference.partition("/")[0])


def step_cache(target: Target, options: Options) -> str:
    """Where BuildKit keeps this step's cache; ``""``: nowhere.

    BuildKit writes a cache as one manifest under one reference: steps that shared it would
    overwrite each other's. A repository gets a tag for each step, a tag the step's name behind it.
    """
    if not options.cache:
        return ""
    joint = "-" if ":" in options.cache.rpartition("/")[2] else ":"
    return f"{options.cache}{joint}{target.step}"


def sent_files(target: Target) -> tuple[ContextFile, ...]:
    """The context as docker's client sends it: with the rules, also where they name themselves.

    The engine takes out what they ignore; without them, a ``.dockerignore`` that ignores itself and
    the Dockerfile would let both into the image.
    """
    dockerfile = next((one for one in target.files if one.path == DOCKERFILE), None)
    if dockerfile is None:
        return target.files
    folder = Path(dockerfile.source).parent
    for name in (f"{DOCKERFILE}.dockerignore", ".dockerignore"):
        file = folder / name
        if any(one.path == name for one in target.files):
            break
        if file.is_file():
            return (*target.files, ContextFile(name, str(file), "file", "", file.stat().st_size))
    return target.files


def feed_context(target: Target, stream: IO[bytes]) -> None:
    """The context as a tar stream; a context that changes meanwhile is a StateError."""
    write_tar(
        Pipe(stream.write),  # type: ignore[arg-type]
        sent_files(target),
        folders=True,  # else buildah makes them, with the umask's modes
        changed=lambda one: _changed(target, one),
    )


def lay_out(target: Target, folder: Path) -> None:
    """Copy the context to a folder, for what takes no tar stream; modes as the stream has them.

    Raises:
        StateError: a file is not any more as long as it was.
    """
    _make_folder(folder)
    for one in sent_files(target):
        place = folder / one.path
        _make_folder(place.parent)
        if one.kind == "folder":
            _make_folder(place)
        elif one.kind == "link":
            place.symlink_to(one.target)
        else:
            shutil.copyfile(one.source, place)
            place.chmod(0o755 if one.kind == "exec" else 0o644)
            if place.stat().st_size != one.size:
                raise _changed(target, one)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask


def _changed(target: Target, one: ContextFile) -> StateError:
    return StateError(
        f"step {target.step}: {one.path!r} changed while it was read",
        next="run the same command again",
    )


def execute(
    argv: Sequence[str],
    line: Line,
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
    # One step with its place in _running: a program that has just been started is stopped as well.
    with _starting:
        if _stopped.is_set():
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

    While in the block no other one starts: a thread may be between two of them.
    """
    _stopped.set()
    try:
        with _starting:
            ours = list(_running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in ours:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
            end = time.monotonic() + _GRACE
            for process in ours:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
        yield
    finally:
        _stopped.clear()


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
    last = last[-LAST_LINES:]
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
