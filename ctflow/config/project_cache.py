"""What was read of a ``ctflow.yaml`` before, cached for as long as neither it nor ctflow changes.

Checking the file takes pydantic and YAML, which to import is most of the time of a command that
only reads. What was checked is cached in the user's cache, as plain JSON, in a file named by the
digest of all that decides the answer: the text, and the code that reads it. It is never put in the
project's folder, where a commit could bring other rules than the file says. A file that is not
whole counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ctflow import __version__
from ctflow.config.values_only import ValuesOnly, decoded, encoded

if TYPE_CHECKING:
    from ctflow.config.project import Project

FOLDER = "settings"
#: How many files are cached: when there are more, the older half goes.
MOST = 200
_LAYOUT = 1
#: What decides outside of this package.
_ALSO = (("lib", "durations.py"), ("lib", "yaml_values.py"), ("model", "store_url.py"))


class ProjectCache:
    """What is cached of one text.

    Args:
        cache: the user's cache folder.
        text: the whole file.
    """

    def __init__(self, cache: Path, text: str) -> None:
        self._folder = cache / FOLDER
        self._text = text

    @cached_property
    def _file(self) -> Path | None:
        """None where the code cannot be told apart, as in an archive."""
        try:
            parts = json.dumps([_LAYOUT, __version__, sys.version, _code(), self._text])
        except OSError:
            return None
        return self._folder / hashlib.sha256(parts.encode()).hexdigest()

    def load(self) -> tuple[Project, dict[str, str]] | None:
        """The project and the origins, as ``ctflow.config.reading.read`` returns them; or None."""
        if self._file is None:
            return None
        try:
            digest, _, body = self._file.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() != digest:
                return None
            found = json.loads(body)
            project = decoded(found["project"], found["dump"])
            if not isinstance(project, ValuesOnly):
                return None
            return cast("Project", project), found["origins"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def save(self, project: Project, origins: Mapping[str, str]) -> None:
        """Keep it, whole or not at all; what cannot be cached is read again the next time."""
        if self._file is None:
            return
        try:
            body = json.dumps({
                "project": encoded(project),
                "dump": project.model_dump(mode="json"),
                "origins": dict(origins),
            }).encode()  # fmt: skip
        except (TypeError, ValueError, RecursionError):
            return  # not plain data, such as a date that an alias brought in
        from ctflow.lib.files import write_file

        with contextlib.suppress(OSError):
            self._make_room()
            write_file(self._file, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def _make_room(self) -> None:
        files = list(self._folder.iterdir()) if self._folder.is_dir() else []
        if len(files) < MOST:
            return
        for file in sorted(files, key=lambda one: one.stat().st_mtime)[: MOST // 2]:
            file.unlink(missing_ok=True)


def _code() -> list[Any]:
    """What changes with the code that reads the file: its modules' names, sizes and times."""
    here = os.path.dirname(__file__)  # noqa: PTH120 (fast: on the way of every command)
    with os.scandir(here) as entries:
        names = sorted(one.path for one in entries if one.name.endswith(".py"))
    names += [os.path.join(here, "..", *one) for one in _ALSO]  # noqa: PTH118
    stats = [os.stat(name) for name in names]  # noqa: PTH116
    return [[names[i], one.st_size, one.st_mtime_ns] for i, one in enumerate(stats)]
