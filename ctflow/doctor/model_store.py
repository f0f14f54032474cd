"""Where models are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.model.doctor import Finding, Skipped
from ctflow.ports import ModelStore


class Store:
    """The model store.

    Args:
        place: its URL, or the path of its folder.
        folder: the folder; None: a bucket.
        opened: makes the store; nothing is asked before.
    """

    system, needed = "model store", True

    def __init__(self, place: str, folder: Path | None, opened: Callable[[], ModelStore]) -> None:
        self._place, self._folder, self._opened = place, folder, opened

    def look(self) -> Sequence[Finding] | Skipped:
        """Whether it can be read; of a folder also whether it can be written to."""
        self._opened().check()
        if self._folder is None:
            # Writing cannot be asked without doing it.
            return [Finding(self.system, "ok", f"{self._place} can be read")]
        there = next(one for one in (self._folder, *self._folder.parents) if one.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise OutsideError(
                f"{there} cannot be written to", next="correct its permissions, or store.models"
            )
        return [Finding(self.system, "ok", f"folder {self._folder}")]
