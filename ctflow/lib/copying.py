"""Copies folders, keeping the reason why one could not be copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path


def copy_tree(
    source: Path,
    target: Path,
    ignore: Callable[[str, list[str]], Iterable[str]] | None = None,
) -> None:
    """Copy a folder to ``target``, which must not be there; links are followed.

    Not ``shutil.copytree``: it goes on after a file that it cannot copy and then raises one error
    with a list of texts, which no longer says that the disk is full.

    Args:
        ignore: as for ``shutil.copytree``: (folder, names) -> the names to leave out.

    Raises:
        OSError: the first one, with its number and file. The target is then half a copy.
    """
    target.mkdir(parents=True)
    names = sorted(entry.name for entry in source.iterdir())
    left_out = set(ignore(str(source), names)) if ignore else set()
    for name in names:
        place = source / name
        if name in left_out:
            continue
        if place.is_dir():
            copy_tree(place, target / name, ignore)
        else:
            shutil.copy2(place, target / name)
