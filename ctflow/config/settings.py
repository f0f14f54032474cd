"""Reads ``ctflow.yaml`` and says where each value came from.

Precedence, lowest first: defaults < file < environment < flags. A variable
``CTFLOW_KUBEFLOW__HOST`` sets ``kubeflow.host``, a flag ``--set kubeflow.host=...`` does too;
both are read as YAML values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctflow.config.project_cache import ProjectCache
from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass

if TYPE_CHECKING:
    from ctflow.config.project import Project

FILE_NAME = "ctflow.yaml"
STATE_NAME = ".ctflow"
PREFIX = "CTFLOW_"
#: Variables of this prefix that are not settings.
NOT_SETTINGS = frozenset(
    {
        "CTFLOW_CACHE",
        "CTFLOW_CI",
        "CTFLOW_GIT_TOKEN",
        "CTFLOW_IMAGES",
        "CTFLOW_RUN",
        "CTFLOW_STATE",
        "CTFLOW_TASK",
        "CTFLOW_TASK_ROOT",
    }
)


@dataclass(frozen=True)
class Settings:
    """A project's configuration, where it lies, and each value's origin by dotted key."""

    project: Project
    root: Path
    state: Path
    origins: Mapping[str, str]

    @property
    def file(self) -> Path:
        """``ctflow.yaml``."""
        return self.root / FILE_NAME


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` with a ``ctflow.yaml``.

    Raises:
        ConfigError: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise ConfigError(
        f"no {FILE_NAME} in {start} or above it",
        next="go into a project's folder, or make one with `ctflow new`",
    )


def in_project(start: Path) -> bool:
    """Whether ``start`` lies in a project."""
    start = start.resolve()
    return any((folder / FILE_NAME).is_file() for folder in (start, *start.parents))


def load_settings(
    start: Path,
    environ: Mapping[str, str],
    flags: Sequence[str] = (),
    *,
    state: Path | None = None,
    cache: Path | None = None,
) -> Settings:
    """The settings of the project that ``start`` lies in.

    Args:
        start: a folder inside the project.
        environ: the environment variables to read.
        flags: ``key.sub=value`` words, as given to ``--set``.
        state: where local state lives; by default ``CTFLOW_STATE`` or ``<root>/.ctflow``.
        cache: a folder of the user's, never of the repository, that keeps what was read of a file
            until the file or ctflow changes; see ``ctflow.config.project_cache``. None: no cache.

    Raises:
        ConfigError: no file, or one that is not valid; with the file, the line and the mend.
    """
    root = find_root(start)
    file = root / FILE_NAME
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None
    variables = {
        key: raw
        for key, raw in environ.items()
        if key.startswith(PREFIX) and key not in NOT_SETTINGS
    }
    # What variables and flags say may be secret: that is not written down.
    cached = ProjectCache(cache, text) if cache and not variables and not flags else None
    found = cached.load() if cached else None
    if found is None:
        from ctflow.config.reading import read

        found = read(text, str(file), variables, flags)
        if cached:
            cached.save(*found)
    project, origins = found
    place = state or Path(environ.get("CTFLOW_STATE") or root / STATE_NAME)
    return Settings(project, root, place.resolve(), origins)


def project_of(text: str, where: str) -> Project:
    """The project that a ``ctflow.yaml`` alone describes, without variables and flags.

    Args:
        where: names the file in messages.

    Raises:
        ConfigError: it is not valid; with the line and the mend.
    """
    from ctflow.config.reading import read

    return read(text, where)[0]


def flatten(project: Project) -> dict[str, Any]:
    """Every value by its dotted key, in the file's order."""
    flat: dict[str, Any] = {}

    def walk(value: Any, loc: tuple[str | int, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, (*loc, str(key)))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                walk(item, (*loc, index))
        else:
            flat[".".join(map(str, loc))] = value

    walk(project.model_dump(mode="json"), ())
    return flat


def origin_of(key: str, origins: Mapping[str, str]) -> str:
    """Where a value came from: ``ctflow.yaml:LINE``, a variable, a flag, or default."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        found = origins.get(".".join(parts[:end]))
        if found and (end == len(parts) or not found.startswith(FILE_NAME)):
            return found
    return "default"
