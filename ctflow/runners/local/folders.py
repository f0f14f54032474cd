"""The runs' folders. Each is held by the process that runs it: so others know that it lives.

A folder goes in two moves: renamed into ``.trash`` while the record is locked, deleted when the
record has forgotten it. After a kill in between, ``restore`` puts back what the record still knows.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctflow.errors import OutsideError, StateError
from ctflow.lib.locks import lock, lock_within, locked, taken
from ctflow.runners.local.record import Record

#: Characters of run ids: none that is taken for another one.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
#: Seconds to wait for whoever only looks whether a run lives.
_PATIENCE = 1.0
#: Below the runs' folder: those on their way out.
TRASH = ".trash"
#: In a run's folder while it is held: the id of the process that holds it.
HOLDER = ".holder"


def lives(folder: Path) -> bool:
    """Whether a process runs in the folder."""
    return taken(folder, folder=True)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a run's folder, made if missing; False where another process runs or uses it."""
    made = not folder.exists()
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = lock_within(folder, _PATIENCE, folder=True)
            break
        except FileNotFoundError:
            continue  # taken away in that moment
    try:
        if descriptor is not None:
            _say_holder(folder)
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _forget_holder(folder)
            if made:
                with suppress(OSError):
                    folder.rmdir()  # nothing came of it
            os.close(descriptor)


def _say_holder(folder: Path) -> None:
    (folder / HOLDER).write_text(str(os.getpid()), encoding="ascii")


def _forget_holder(folder: Path) -> None:
    with suppress(OSError):
        (folder / HOLDER).unlink()


def stop_holder(folder: Path) -> None:
    """Ask the process that runs in the folder to stop, if there is one.

    Raises:
        OutsideError: it belongs to another user, or its identity cannot be read.
    """
    try:
        holder = int((folder / HOLDER).read_text(encoding="ascii"))
        # Held as we look: then the number is that of the process that wrote it, and not of another
        # one that got it later.
        if lives(folder):
            os.kill(holder, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended
    except (OSError, ValueError) as error:
        if lives(folder):
            raise OutsideError(
                f"the process of run {folder.name} cannot be stopped ({error})",
                next="end it where it was started",
            ) from None


@contextmanager
def used(folder: Path) -> Iterator[None]:
    """While the block goes on nobody takes the folder of a finished run away.

    Raises:
        StateError: it is gone.
    """
    try:
        descriptor = lock(folder, folder=True, shared=True, wait=True)
    except FileNotFoundError:
        raise StateError(
            f"the files of run {folder.name} are gone",
            cause="`ctflow runs prune`, or the limit store.cache, removed them",
            next="start a new run",
        ) from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def new_folder(runs: Path) -> Iterator[tuple[str, Path]]:
    """A new run's id and folder below ``runs``, held as long as the block goes on."""
    runs.mkdir(parents=True, exist_ok=True)
    length = 4
    while True:
        run_id = "r-" + "".join(secrets.choice(_ALPHABET) for _ in range(length))
        folder = (runs / run_id).resolve()
        try:
            folder.mkdir()
            # Waits: until it is held, others may look at it, or even take it for a leftover.
            descriptor = lock(folder, folder=True, wait=True)
        except FileExistsError:
            length = min(length + 1, 12)
            continue
        except FileNotFoundError:
            continue
        try:
            _say_holder(folder)
            yield run_id, folder
        finally:
            _forget_holder(folder)
            with suppress(OSError):
                folder.rmdir()  # nothing came of it
            if descriptor is not None:
                os.close(descriptor)
        return


# -- taking away ----------------------------------------------------------------------------------


def set_aside(runs: Path, name: str) -> bool:
    """Take a folder out of sight, in one go; False where a process holds or uses it.

    The caller holds the record's lock, and forgets the folder in the same transaction.
    """
    place = runs / name
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
        return True
    with locked(place, folder=True) as free:
        if free:
            _move(place, runs / TRASH / f"{name}~{secrets.token_hex(4)}")
    return free


def _move(place: Path, target: Path) -> None:
    while place.exists():
        target.parent.mkdir(exist_ok=True)
        try:
            place.rename(target)
        except FileNotFoundError:
            continue  # another process has just swept the empty trash away


def restore(record: Record, runs: Path) -> list[Path]:
    """Put back the folders that were set aside by a process that died before it forgot them.

    Returns what is left there: nobody knows it any more.
    """
    left: list[Path] = []
    if not names_in(runs / TRASH) or record.readable_only:
        return left
    with record.writing() as connection:  # whoever is setting aside has ended, or died
        for name in names_in(runs / TRASH):
            run = name.partition("~")[0]
            known = connection.execute("SELECT 1 FROM folders WHERE run = ?", (run,)).fetchone()
            if known and not (runs / run).exists():
                (runs / TRASH / name).rename(runs / run)
            else:
                left.append(runs / TRASH / name)
    return left


def sweep(record: Record, runs: Path) -> None:
    """Delete what was set aside and is forgotten."""
    for place in restore(record, runs):
        remove_tree(place)
    with suppress(OSError):
        (runs / TRASH).rmdir()


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none where there is no folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return []


def remove_tree(folder: Path) -> None:
    """Delete a folder, also where a step has left folders in it that may not be written to.

    What belongs to somebody else, such as a container's user, stays.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _open_up(folder)
        for place, names, _ in os.walk(folder):
            for name in names:
                _open_up(Path(place, name))
        shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: Path) -> None:
    with suppress(OSError):  # it may also be gone: another process deletes it too
        if not folder.is_symlink():
            folder.chmod(0o700)


def folder_size(folder: Path | str) -> int:
    """Bytes on the disk of the files below a folder; holes in them take none."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                found = os.lstat(os.path.join(place, name))  # noqa: PTH118
            except OSError:
                continue  # it was removed meanwhile
            total += min(found.st_size, found.st_blocks * 512)
    return total
