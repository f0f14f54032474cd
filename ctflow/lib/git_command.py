"""Git as a process: what it prints, or why it failed as one of our errors. All calls go this way.

A command works on the repository of its folder whatever a hook's variables say. It asks nobody for
a password on the terminal, and is ended after a time. What it says is masked and has no control
characters. ``subprocess`` is imported late: the command line needs ``REDIRECTIONS`` at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import CtflowError, OutsideError, StateError

if TYPE_CHECKING:
    from subprocess import CompletedProcess, Popen

#: Set by git for a hook's process; with them git works on another repository than its folder's.
REDIRECTIONS = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_PREFIX", "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
)  # fmt: skip
#: Messages in English, for some of them are read; and no question on the terminal: the output is
#: captured, so nobody would see what is asked. SSH asks as the user has set it up.
FIXED = {"LC_ALL": "C", "LANGUAGE": "C", "GIT_TERMINAL_PROMPT": "0"}
#: Seconds after which a command is ended: a server that does not answer would hold it for ever.
TIMEOUT = 600.0
#: The same for what fetches whole repositories, or runs a user's hooks.
LONG = 3600.0
#: Seconds that a command has to clean up when it is asked to end.
_GRACE = 5.0
#: What git says outside of a repository.
_NO_REPOSITORY = "not a git repository"
_NO_PROMPT = "terminal prompts disabled"
_LINE_MAX = 500

_lock = threading.Lock()
_users = 0
_hidden: dict[str, str] = {}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a git process: this process's without redirections, ours, and ``extra``."""
    own = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    return {**own, **FIXED, **(extra or {})}


@contextmanager
def no_redirections() -> Iterator[None]:
    """Within it this process has none, for libraries that start git themselves; thread-safe."""
    global _users
    with _lock:
        if _users == 0:
            _hidden.update(
                {name: os.environ.pop(name) for name in REDIRECTIONS if name in os.environ}
            )
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                os.environ.update(_hidden)
                _hidden.clear()


def start(folder: Path, *words: str, pipe: bool = False) -> Popen[bytes]:
    """``git WORDS`` in a folder, its output in pipes. Raises OutsideError where there is no git.

    Args:
        pipe: its input is a pipe too, and what it complains about is not kept.
    """
    from subprocess import DEVNULL, PIPE, Popen

    try:
        return Popen(
            ["git", *words], cwd=folder, stdin=PIPE if pipe else DEVNULL, stdout=PIPE,
            stderr=DEVNULL if pipe else PIPE, env=environment(),
        )  # fmt: skip
    except FileNotFoundError:
        if not folder.is_dir():
            raise StateError(f"there is no folder {folder}") from None
        raise missing_git() from None


def run(folder: Path, *words: str, timeout: float = TIMEOUT) -> CompletedProcess[bytes]:
    """``git WORDS`` in a folder, to its end.

    Raises:
        OutsideError: there is no git, or it did not end within ``timeout`` seconds.
    """
    return finish(start(folder, *words), words, timeout)


def finish(
    process: Popen[bytes], words: tuple[str, ...], timeout: float, data: bytes | None = None
) -> CompletedProcess[bytes]:
    """Wait for a git that was started.

    Args:
        words: what it was called with.
        data: what it reads from its input.

    Raises:
        OutsideError: it did not end within ``timeout`` seconds.
    """
    from subprocess import CompletedProcess, TimeoutExpired

    try:
        out, err = process.communicate(data, timeout)
    except TimeoutExpired:
        raise OutsideError(
            f"git {verb_of(words)} did not end within {timeout:g} s",
            cause="the server does not answer, or a hook waits for something",
            next="run the command again",
        ) from None
    finally:
        if process.poll() is None:
            _end(process)
    return CompletedProcess(words, process.returncode, out, err)


def _end(process: Popen[bytes]) -> None:
    """Asked first, so that it ends what it started and removes its locks."""
    from subprocess import TimeoutExpired

    process.terminate()
    try:
        process.wait(_GRACE)
    except TimeoutExpired:
        process.kill()
        process.wait()
    # What it started may hold the other ends open: nobody waits for that.
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def answer(folder: Path, *words: str, timeout: float = TIMEOUT) -> str:
    """What git prints, without the newline at the end.

    Raises:
        StateError: the folder is in no repository.
        OutsideError: git fails.
    """
    return text_of(checked(run(folder, *words, timeout=timeout), folder))


def attempt(folder: Path, *words: str) -> str | None:
    """What git prints, as it is; None where it fails, or there is no git."""
    try:
        done = run(folder, *words)
    except CtflowError:
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def checked(done: CompletedProcess[bytes], folder: Path) -> bytes:
    """What a git that ended printed; raises as ``answer`` does."""
    if done.returncode != 0:
        raise failure(done, folder)
    return done.stdout


def text_of(printed: bytes) -> str:
    """Text without the newline at its end; bytes that are no UTF-8 can be written back."""
    return printed.decode("utf-8", "surrogateescape").removesuffix("\n")


def verb_of(words: tuple[str, ...]) -> str:
    """The command among words such as ``-c key=value push``."""
    at = 0
    while at + 2 < len(words) and words[at] in ("-C", "-c"):
        at += 2
    return words[at]


def missing_git() -> OutsideError:
    """There is no git on this machine."""
    return OutsideError("git is not installed", next="install git")


def failure(done: CompletedProcess[bytes], folder: Path) -> CtflowError:
    """Why git failed: its own first reason, and its last lines."""
    from ctflow.lib.secrets import KNOWN
    from ctflow.lib.text import one_line

    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    if f"fatal: {_NO_REPOSITORY}" in text:
        return StateError(
            f"{folder} is not in a git repository", next="run `git init` and commit the project"
        )
    lines = [one_line(KNOWN.mask(line), _LINE_MAX) for line in text.splitlines()]
    lines = [line for line in lines if line]
    said = [line for line in lines if line.startswith(("fatal:", "error:", "!", "remote:"))]
    reason = (said or lines or [f"exit status {done.returncode}"])[0]
    mend = ""
    if _NO_PROMPT in text:
        mend = "log in first: set up a credential helper, or use an SSH remote"
    words = tuple(done.args)
    return OutsideError(
        f"git {verb_of(words)} failed: {reason}", next=mend, details=tuple(lines[-8:])
    )
