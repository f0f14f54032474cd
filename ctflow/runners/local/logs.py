"""A task's log: kept in a file up to a limit, and streamed line by line, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

#: Bytes kept of one task's log from its start, and from its end; what is between is only counted.
KEPT = 100 << 20
TAIL = 64 << 10
#: Longer lines are cut when they are streamed.
LINE = 4000
#: Lines streamed of one task; the log file has the others.
STREAMED = 20_000
#: How kfp.dsl.executor_main begins its lines, and ends the one that a JSON object follows.
_EXECUTOR, _MESSAGE = "[KFP Executor ", "Got executor_input:"


class Log:
    """Takes a task's output in chunks. Memory is bounded by one chunk and one line.

    Args:
        path: the kept log, which is appended to.
        emit: gets each line.
        kept: bytes that are kept.
        changes: (text, what stands there instead), the first first: secrets, and folders' names.
    """

    def __init__(
        self,
        path: Path,
        emit: Callable[[str], None],
        *,
        kept: int | None = None,
        changes: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self._file = path.open("ab")
        self._emit = emit
        self._left = (KEPT if kept is None else kept) - self._file.tell()
        self._dropped = 0
        self._lines = 0
        self._partial = b""
        self._tail = b""
        self._waiting = b""
        self._changes = tuple(change for change in changes if change[0])

    def write(self, data: bytes) -> None:
        """Keep and stream a chunk."""
        if self._changes:
            data = self._changed(data)
        self._keep(data)
        if self._lines >= STREAMED:
            return
        lines = data.split(b"\n")
        lines[0] = self._partial + lines[0]
        self._partial = lines.pop()
        for line in lines:
            self._stream(line)
            if self._lines >= STREAMED:
                self._emit("... more lines are in the log file")
                self._partial = b""
                return
        if len(self._partial) > LINE * 4:
            self._partial = self._partial[: LINE * 4]

    def _changed(self, data: bytes, *, last: bool = False) -> bytes:
        """``data`` with the changes; what may be the start of one waits for what follows."""
        data = self._waiting + data
        for text, instead in self._changes:
            data = data.replace(text, instead)
        longest = 0 if last else max(len(text) for text, _ in self._changes) - 1
        waits = next(
            (n for n in range(min(longest, len(data)), 0, -1)
             if any(text.startswith(data[-n:]) for text, _ in self._changes)),
            0,
        )  # fmt: skip
        self._waiting = data[len(data) - waits :]
        return data[: len(data) - waits]

    def _keep(self, data: bytes) -> None:
        if len(data) > self._left:
            self._tail = (self._tail + data[self._left :])[-TAIL:]
            self._dropped += len(data) - self._left
            data = data[: self._left]
        if data:
            self._file.write(data)
            self._left -= len(data)

    def _stream(self, line: bytes) -> None:
        self._lines += 1
        shown = line[: LINE * 4].rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
        self._emit(shown if len(shown) <= LINE else shown[:LINE] + "...")

    def note(self, text: str) -> None:
        """A line of the runner's own in the log."""
        self._file.write(f"[ctflow] {text}\n".encode())

    def flush(self) -> None:
        """Let readers see what has come so far."""
        self._file.flush()

    def close(self) -> None:
        """Stream what is left of the last line, and say what was dropped."""
        if self._waiting:
            rest, self._waiting = self._changed(b"", last=True), b""
            self._keep(rest)
            self._partial += rest
        if self._partial and self._lines < STREAMED:
            self._stream(self._partial)
        self._partial = b""
        if self._dropped:
            lost = self._dropped - len(self._tail)
            self._file.write(b"\n")
            self.note(f"{lost} bytes of output are left out here; the end of the output follows")
            self._file.write(self._tail)
        self._file.close()


def without_executor(emit: Callable[[str], None]) -> Callable[[str], None]:
    """``emit`` without what KFP's executor says of itself around a Python component.

    Its message of the inputs and outputs alone takes dozens of lines. The kept log has all.
    """
    inside = False

    def filtered(line: str) -> None:
        nonlocal inside
        if line.startswith(_EXECUTOR) and " INFO]: " in line:
            inside = line.endswith(_MESSAGE)
        elif inside:
            inside = line.rstrip() != "}"
        else:
            emit(line)

    return filtered


def last_lines(path: Path, count: int = 10, window: int = 16 << 10) -> tuple[str, ...]:
    """The last lines of a log, each cut to a readable length."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - window))
            data = file.read()
    except OSError:
        return ()
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    if size > window and len(lines) > 1:
        lines = lines[1:]
    return tuple(line[:500] for line in lines[-count:])


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a kept log, in bounded memory."""
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE * 16):
                yield line.rstrip(b"\r\n").decode(errors="replace")
    except FileNotFoundError:
        return
