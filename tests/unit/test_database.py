"""The record's file: opened by several at once."""

from __future__ import annotations

import threading
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.runners.local.database import connect


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    """Such as two `ctflow ct` in a new project. Before they waited, one of 20 files failed."""
    failed: list[str] = []

    def work(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            connection = connect(path)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.close()
        except OutsideError as error:
            failed.append(str(error))

    for number in range(150):
        barrier = threading.Barrier(8)
        words = (tmp_path / f"{number}.db", barrier)
        threads = [threading.Thread(target=work, args=words) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
