"""Opening the record of the runs while another process makes it, or where it was lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import OutsideError
from ctflow.runners.local.record import Record


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty record, and a file of a run beside it."""
    (tmp_path / "runs" / "r-7k2m").mkdir(parents=True)
    (tmp_path / "runs" / "r-7k2m" / "log").write_text("x")
    (tmp_path / "record.db").touch()
    return tmp_path / "record.db"


def test_a_record_that_was_lost_is_not_written_over(place: Path) -> None:
    with pytest.raises(OutsideError, match="is empty, but there are files of runs"):
        Record(place).runs(1, ())
    assert place.stat().st_size == 0


def test_a_first_run_of_another_process_is_no_lost_record(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills the record, and then writes files, between two looks of this process."""
    look = Path.glob

    def late(self: Path, pattern: str, **more: Any) -> Iterator[Path]:
        monkeypatch.setattr(Path, "glob", look)
        place.unlink()
        other = Record(place.with_name("other.db"))
        assert other.runs(1, ()) == []
        other.close()
        place.with_name("other.db").rename(place)
        return look(self, pattern, **more)

    monkeypatch.setattr(Path, "glob", late)
    record = Record(place)
    assert record.runs(1, ()) == []
    record.close()
