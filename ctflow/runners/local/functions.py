"""Functions of the project, asked in the environment of the step that a run used.

Each has one process, started when it is first asked and ended with the whole. It is kept as a
task's is (see ``supervisor``): whatever happens to it or to us, nothing of it is left.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ctflow.config.functions import shown, steps_with
from ctflow.errors import ConfigError, StateError
from ctflow.lib.variables import handed_on
from ctflow.model import Image, Run
from ctflow.ports import Columns, Event, StepSource, Watch, Workspaces
from ctflow.runners.local.process import Command, Launcher, Process, kill_marked

if TYPE_CHECKING:
    from ctflow.ports.functions import Rows

_DRIVER = Path(__file__).with_name("function_driver.py")
_LENGTH = struct.Struct("!I")
#: Bytes that an answer may have besides the numbers, which take at most the second each.
_LEAST_ANSWER, _NUMBER = 4_096, 32
#: Names a function's processes, should their keeper be killed.
_MARK = "CTFLOW_FUNCTION"
#: Seconds that the keeper of an ended process has to say how it ended.
_PATIENCE = 20.0


@contextmanager
def local_functions(
    run: Run,
    watch: Watch,
    *,
    workspaces: Workspaces,
    steps: Callable[[], Sequence[StepSource]],
    root: Path,
    pass_env: Sequence[str] = (),
) -> Iterator[LocalFunctions]:
    """The functions of a run; their processes end with the context.

    Args:
        workspaces: finds the steps' folders and environments.
        steps: the project's steps, as the checkout has them; asked for when it must be.
        root: the project's folder.
        pass_env: names of variables that the functions get besides the usual ones.
    """
    made = LocalFunctions(run, watch, workspaces, steps, root, handed_on(os.environ, pass_env))
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class _Place:
    """Where a function is: its step's image, and the file in that."""

    image: Image
    file: PurePosixPath


class LocalFunctions:
    """Implements ``Functions``; see ``local_functions``."""

    def __init__(
        self,
        run: Run,
        watch: Watch,
        workspaces: Workspaces,
        steps: Callable[[], Sequence[StepSource]],
        root: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._run = run
        self._watch = watch
        self._workspaces = workspaces
        self._steps = steps
        self._root = root
        self._environ = environ
        self._launcher = Launcher()
        self._started: dict[str, _Asked] = {}
        #: See ``Functions``.
        self.used: dict[str, str] = {}

    def of(self, output: str) -> Callable[[str, float, Columns, Sequence[Rows]], list[float]]:
        """See ``Functions``."""
        return partial(self._ask, output.rpartition(".")[0])

    def close(self) -> None:
        """End all processes, and wait until they have ended."""
        for asked in self._started.values():
            asked.close()
        self._started = {}
        self._launcher.close()

    def _ask(
        self, task: str, function: str, timeout: float, columns: Columns, draws: Sequence[Rows]
    ) -> list[float]:
        if function not in self._started:
            self._started[function] = self._start(task, function, timeout)
        return self._started[function].ask(columns, draws)

    def _start(self, task: str, function: str, timeout: float) -> _Asked:
        place = self._place(task, function)
        image = place.image
        workspace = self._workspaces.open(image.reference)
        if workspace is None:
            raise StateError(
                f"{shown(function)} cannot be asked: step {image.step} is not here as run"
                f" {self._run.id} used it",
                cause="its snapshot was pruned, or the run was made with --engine or elsewhere",
                next="judge a run that was made here without --engine: `ctflow ct`",
            )
        file = workspace.folder / place.file
        if not file.resolve().is_relative_to(workspace.folder.resolve()) or not file.is_file():
            raise ConfigError(
                f"step {image.step} of run {self._run.id} has no file {shown(str(place.file))},"
                f" which the gate's {shown(function)} names",
                next="commit it (and see .dockerignore), and run the pipeline again",
            )
        self.used[function] = image.digest
        text = f"asking {shown(function)} in step {image.step}"
        self._watch(Event("note", "gate", text))
        mark = uuid.uuid4().hex
        env = {
            name: value
            for name, value in self._environ.items()
            if not name.startswith(("CTFLOW_", "GIT_"))
        }
        env |= {"PYTHONUNBUFFERED": "1", **workspace.environment.variables}
        env |= {"CTFLOW_RUN": self._run.id, _MARK: mark}
        name = function.rpartition(":")[2]
        words = (str(workspace.environment.python), str(_DRIVER), str(file), name)
        process, channel = self._launcher.start_talking(Command(words, env, str(workspace.folder)))
        return _Asked(function, process, channel, timeout, {_MARK: mark})

    def _place(self, task: str, function: str) -> _Place:
        """The step of the run that holds the function's file; the task's own where several do."""
        images = {image.step: image for image in self._run.images}
        found = steps_with(function, self._steps(), self._root)
        done = self._run.task(task)
        own = done.step if done and done.step else ""
        step = own if own in found else next(iter(found))
        if len(found) > 1 and own not in found:
            raise ConfigError(
                f"gate: {shown(function)} is part of several steps: {', '.join(found)}",
                next=f"include it in the step of task {shown(task)}, which then asks it",
            )
        if step not in images:
            raise StateError(
                f"{shown(function)} cannot be asked: run {self._run.id} has no step {step}",
                next="run the pipeline again, with that step in it",
            )
        return _Place(images[step], found[step])


class _Asked:
    """A function's running process."""

    def __init__(
        self,
        function: str,
        process: Process,
        channel: socket.socket,
        timeout: float,
        mark: Mapping[str, str],
    ) -> None:
        self._name = shown(function)
        self._process, self._channel, self._mark = process, channel, mark
        self._timeout, self._left = timeout, timeout
        self._answers = 0
        self._is_ready = False
        #: What the process has been handed, by identity; kept, so that no other has its id.
        self._tables: list[Columns] = []

    def close(self) -> None:
        """Let go of it, which ends it."""
        self._channel.close()
        self._process.close()

    def ask(self, columns: Columns, draws: Sequence[Rows]) -> list[float]:
        """See ``Calls``."""
        started = time.monotonic()
        deadline = started + self._left
        try:
            if not self._is_ready:
                self._is_ready = "ready" in self._message(deadline, 0)
            table = next((k for k, one in enumerate(self._tables) if one is columns), None)
            if table is None:
                table = len(self._tables)
                self._tables.append(columns)
                self._send({"columns": dict(columns)}, deadline)
            sizes = [len(rows) for rows in draws]
            whole = array.array("i")
            for rows in draws:
                whole.frombytes(rows.astype("i").tobytes())
            self._send({"table": table, "sizes": sizes}, deadline, whole.tobytes())
            values: Any = self._message(deadline, len(sizes)).get("values")
        except TimeoutError:
            raise ConfigError(
                f"gate: {self._name} did not answer in {self._timeout:g} s, in which it made"
                f" {self._answers:,} answers",
                next="make it faster, give it fewer examples, or raise `timeout` in its `of`",
            ) from None
        except OSError:
            raise self._ended() from None
        if not _are_numbers(values, len(sizes)):
            raise self._no_answer()
        self._left -= time.monotonic() - started
        self._answers += len(sizes)
        return [float("nan") if one is None else float(one) for one in values]

    def _send(self, head: Any, deadline: float, rest: bytes = b"") -> None:
        body = json.dumps(head).encode()
        self._patience(deadline)
        self._channel.sendall(_LENGTH.pack(len(body)) + body + rest)

    def _message(self, deadline: float, numbers: int) -> dict[str, Any]:
        (size,) = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))
        if size > _LEAST_ANSWER + _NUMBER * numbers:
            raise self._no_answer()
        try:
            found = json.loads(self._receive(size, deadline))
        except ValueError:
            raise self._no_answer() from None
        if not isinstance(found, dict):
            raise self._no_answer()
        if "error" in found:
            raise ConfigError(
                f"gate: {self._name} failed: {shown(str(found['error']), 300)}",
                next="mend it; where it is undefined for some examples let it return float('nan')",
            )
        return found

    def _receive(self, size: int, deadline: float) -> bytes:
        parts = []
        while size:
            self._patience(deadline)
            part = self._channel.recv(min(size, 1 << 20))
            if not part:
                raise ConnectionResetError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _patience(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)

    def _ended(self) -> ConfigError:
        self._process.control.settimeout(_PATIENCE)
        ended = self._process.result()
        if ended.lost:
            kill_marked(self._mark)
        return ConfigError(
            f"gate: {self._name} ended its process ({ended.text()}) and gave no answer",
            next="a function returns a number; see that it neither exits nor needs more memory",
        )

    def _no_answer(self) -> ConfigError:
        return ConfigError(
            f"gate: what answers for {self._name} is not its number",
            cause="something else in its process writes where it answers",
            next="look for what its step's Python starts",
        )


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(one is None or type(one) in (int, float) for one in values)
    )
