"""What the README and other pages show is what happens: their commands run, in order.

A ``console`` block holds commands (``$ ``, continued with ``> ``) and lines of their output. All
blocks of a page run in one shell, in an empty folder. Each shown line must be printed, in that
order; lines may be left out. Digests, ids, times and ports are whatever they are, and a number with
a decimal point may differ by 0.02: other processors round otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEAR = 0.02
#: Pages that are about an existing project start in one.
PROJECT = "ctflow new --no-input project=digits && cd digits"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@dataclass
class Command:
    words: str
    shown: list[str] = field(default_factory=list)


def commands(text: str) -> Iterator[Command]:
    command: Command | None = None
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        if command:
            yield command
        command = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command
                command = Command(line[2:])
            elif command is None:
                raise AssertionError(f"output before a command: {line}")
            elif line.startswith("> ") and not command.shown:
                command.words += "\n" + line[2:]
            elif line.strip():
                command.shown.append(line)
    if command:
        yield command


class Shell:
    """One bash for all commands of a page, so that ``cd`` and variables last."""

    def __init__(self, folder: Path) -> None:
        # No pipes: the model server outlives a command and would hold them open.
        self._bin = folder / "bin"
        self._bin.mkdir()
        program = self._bin / "ctflow"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ctflow "$@"\n')
        program.chmod(0o755)
        self._output = folder / "output"
        self._output.touch()
        self._seen = 0
        work = folder / "work"
        work.mkdir()
        environ = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"}
        environ.pop("CTFLOW_CI", None)  # the suite's own; a reader's shell has none
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=work,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=self._output.open("ab"),
            stderr=subprocess.STDOUT,
        )
        self._ports: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def run(self, command: Command) -> tuple[int, str]:
        """Exit code and output. A port, or an id, in the page stands for the one printed there."""
        words = command.words
        for shown, real in self._ids.items():
            words = words.replace(shown, real)
        for shown, real in self._ports.items():
            words = words.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
        done = self._output.with_name("done")
        os.mkfifo(done)
        assert self.process.stdin is not None
        script = f"{words}\necho $? > {done}\n"
        self.process.stdin.write(script.encode())
        self.process.stdin.flush()
        code = int(done.read_text())  # waits for the command's end
        done.unlink()
        whole = self._output.read_text(encoding="utf-8")
        output, self._seen = whole[self._seen :], len(whole)
        self._learn_port(command.shown, output)
        self._learn_id(command.shown, output)
        return code, output

    def _learn_port(self, shown: list[str], output: str) -> None:
        pattern = re.compile(r"^\s+deploy\s+(\S+).*127\.0\.0\.1:(\d+)", re.M)
        real = dict(pattern.findall(output))
        for environment, port in pattern.findall("\n".join(shown)):
            if environment in real:
                self._ports[port] = real[environment]

    def _learn_id(self, shown: list[str], output: str) -> None:
        pattern = re.compile(r"^\s+promote\s+(\S+)\s+proposed as (\w+)", re.M)
        real = dict(pattern.findall(output))
        for environment, proposed in pattern.findall("\n".join(shown)):
            if environment in real:
                self._ids[proposed] = real[environment]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def pattern_of(line: str) -> tuple[str, list[float]]:
    """A line with everything that differs from run to run made alike, and its decimals."""
    line = line.split("#")[0] if line.lstrip().startswith("ctflow ") else line
    line = re.sub(r"/\S*/", "/", line)
    line = re.sub(r"\br-[2-9a-z]{4,}\b", "r-ID", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", line)
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( UTC)?", "TIME", line)
    line = re.sub(r"\b\d+(\.\d+)?s\b", "SECONDS", line)
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b", "HEX", line)
    numbers = [float(one) for one in re.findall(r"[+-]?\d+\.\d+", line)]
    line = re.sub(r"[+-]?\d+\.\d+", "N", line)
    return " ".join(line.split()), numbers


def same(shown: str, printed: str) -> bool:
    (text, numbers), (other, others) = pattern_of(shown), pattern_of(printed)
    near = all(abs(a - b) <= NEAR for a, b in zip(numbers, others, strict=False))
    return text == other and len(numbers) == len(others) and near


def missing(shown: list[str], output: str) -> str | None:
    """The first shown line that is not printed after the one before it."""
    printed = iter(output.splitlines())
    return next((line for line in shown if not any(same(line, one) for one in printed)), None)


@pytest.mark.parametrize(
    ("page", "before"),
    [
        ("README.md", ""),
        ("docs/quickstart.md", ""),
        ("docs/configuration.md", PROJECT),
        ("docs/gate-example.md", ""),
    ],
    ids=["readme", "quickstart", "configuration", "gate-example"],
)
def test_the_walk(page: str, before: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        shell.run(Command(before))
        walked = list(commands((ROOT / page).read_text(encoding="utf-8")))
        assert walked
        for command in walked:
            code, output = shell.run(command)
            assert code == 0, f"$ {command.words}\n{output}"
            lost = missing(command.shown, output)
            assert lost is None, f"$ {command.words}\n{output}\nis without\n{lost}"
    finally:
        shell.close()
        for project in (tmp_path / "work").glob("*/ctflow.yaml"):
            stop = [sys.executable, "-m", "ctflow", "deploy", "--stop", "-C", str(project.parent)]
            subprocess.run(stop, check=True, capture_output=True)


def test_lines_are_compared() -> None:
    shown = ["  run  r-ab2c  train ✓ 2.1s", "  accuracy 0.945 at 127.0.0.1:80 of 2a5f220269be"]
    printed = "note\n  run  r-zz9y  train ✓ 0.4s\n accuracy 0.950 at 127.0.0.1:9 of 0123456789ab\n"
    assert missing(shown, printed) is None
    assert missing(shown[::-1], printed) == shown[0]
    assert missing(["accuracy 0.90 at 127.0.0.1:80 of 2a5f220269be"], printed) is not None
    assert missing(["  run  r-ab2c  train ✗ 2.1s"], printed) is not None
