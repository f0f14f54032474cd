"""Progress: plain lines, a live line on a terminal, and nothing of a step's that could harm one."""

from __future__ import annotations

import io

import pytest

from ctflow.cli.progress import Progress, seconds, show, summary, task_words
from ctflow.model import Task
from ctflow.ports import Event

ENDED = Task("train", "succeeded", started=1.0, ended=3.1)


class Stream(io.TextIOWrapper):
    """Text in memory, in an encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


def play(stream: Stream, *, live: bool) -> str:
    progress = Progress(stream, live=live, logs=True)
    progress(Event("note", "run", "r-7k2m", run="r-7k2m"))
    progress(Event("task", "train", task=Task("train", "running", started=1.0)))
    progress(Event("log", "train", "epoch 1 \x1b[2J\r\x07\u202e"))
    progress(Event("task", "train", task=ENDED))
    progress(Event("task", "condition-1", task=Task("condition-1", "succeeded", group=True)))
    progress.close()
    return stream.text()


def test_plain_lines() -> None:
    assert play(Stream(), live=False).splitlines() == [
        "            train | epoch 1 \\x1b[2J\\x0d\\x07\\x202e",
        "            train ✓ 2.1s",
        "  run       r-7k2m  train ✓ 2.1s",
    ]


def test_encoding_without_the_signs() -> None:
    assert "train ok 2.1s" in play(Stream("ascii"), live=False)


def test_live_line_is_redrawn_and_left_clean() -> None:
    text = play(Stream(), live=True)
    assert text.endswith("\r\x1b[2K  run       r-7k2m  train ✓ 2.1s\n")
    assert text.count("\n") == 1
    assert "\x1b[2J" not in text


def test_many_tasks_are_counted_and_the_bad_ones_named() -> None:
    tasks = [Task(f"t{i}", "cached") for i in range(198)]
    tasks += [Task("bad", "failed", started=0.0, ended=65.0), Task("after", "skipped")]
    signs = {"failed": "✗", "cached": "✓"}
    assert summary("r-1", tasks, signs) == [
        "  run       r-1  200 tasks: 198 cached, 1 failed, 1 skipped  bad ✗ 65s"
    ]


def test_long_lines_are_broken() -> None:
    tasks = [Task(f"task-number-{i}", "cached") for i in range(10)]
    rows = summary("r-1", tasks, {"cached": "✓"}, width=60)
    assert len(rows) > 2
    assert all(len(row) <= 62 for row in rows)


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0s"), (9.94, "9.9s"), (42.4, "42s"), (185.0, "3m05s")]
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_words_of_a_task() -> None:
    signs = {"skipped": "-", "running": "…"}
    assert task_words(Task("a\x1b", "skipped"), signs) == "a\\x1b - skipped"
    assert task_words(Task("a", "running", started=1.0), signs, 3.5) == "a … 2.5s"


def test_result_on_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with show(plain=True) as watch:
        watch(Event("task", "train", task=ENDED))
    found = capsys.readouterr()
    assert found.out == ""
    assert "train" in found.err
