"""Locks on paths that may be renamed meanwhile, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ctflow.errors import OutsideError
from ctflow.lib.locks import lock, lock_within, locked, taken


def test_what_was_renamed_before_it_was_locked_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "folder"
    place.mkdir()
    real = fcntl.flock

    def flock(descriptor: int, kind: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        place.rename(tmp_path / "away")
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(FileNotFoundError):
        lock(place, folder=True)
    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "away").rename(tmp_path / "gone")
    file = tmp_path / "file"
    place = file
    descriptor = lock(file)
    assert descriptor is not None
    assert os.fstat(descriptor).st_ino == file.stat().st_ino
    assert taken(file)
    os.close(descriptor)
    assert not taken(file)


def test_shared_and_exclusive(tmp_path: Path) -> None:
    one = lock(tmp_path, folder=True, shared=True)
    other = lock(tmp_path, folder=True, shared=True)
    assert one is not None
    assert other is not None
    assert not taken(tmp_path, folder=True)
    assert lock(tmp_path, folder=True) is None
    assert lock_within(tmp_path, 0.02, folder=True) is None
    os.close(one)
    with locked(tmp_path, folder=True) as free:
        assert not free
    os.close(other)
    with locked(tmp_path, folder=True) as free:
        assert free
        assert taken(tmp_path, folder=True)
    with locked(tmp_path / "none", folder=True) as free:
        assert free


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OutsideError) as raised:
        lock(tmp_path / "file")
    message = raised.value.message()
    assert f"cannot lock {tmp_path / 'file'}: {os.strerror(number)}" in message
    assert "name folders on a local disk in CTFLOW_STATE" in message
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
