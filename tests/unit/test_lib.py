"""The small shared tools: files that others read, locks, text from outside."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from ctflow.lib.files import new_file, write_file
from ctflow.lib.locks import holding, taken
from ctflow.lib.text import clean, one_line


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "made" / "file"
    write_file(place, "first\n", sync=True)
    assert place.read_bytes() == b"first\n"

    def killed() -> None:
        with new_file(place) as stream:
            stream.write(b"half")
            assert place.read_bytes() == b"first\n"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        killed()
    assert place.read_bytes() == b"first\n"
    write_file(place, b"second\n")
    assert place.read_bytes() == b"second\n"
    assert list(place.parent.iterdir()) == [place]


def test_others_may_read_what_the_user_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_many_who_write_the_same_file_leave_one_of_theirs(tmp_path: Path) -> None:
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "file", one)) for one in texts]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (tmp_path / "file").read_text() in texts
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_one_at_a_time_holds_a_file(tmp_path: Path) -> None:
    file, inside, most = tmp_path / "made" / "lock", 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with holding(file):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == 1
    with holding(file):
        assert taken(file)
    assert not taken(file)


def test_text_from_outside_is_one_short_line() -> None:
    assert one_line("a\x1b[31m\n\tb \u202e c", 40) == "a [31m b c"
    assert one_line("a" * 50, 10) == "aaaaaaa..."
    assert one_line("a" * 50, 10, "…") == "aaaaaaaaa…"
    assert one_line("", 10) == ""
    assert clean("a\x1b[31m\tb\r\n") == "a\\x1b[31m\tb\\x0d\\x0a"
