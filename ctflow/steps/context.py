"""What goes into a step's image: its folder's files after ``.dockerignore``, and its includes.

The digest of that content names the image. It is the SHA-256 of: the layout's version, the base
image, and for each entry, sorted by the bytes of its path, path, kind (``file``, ``exec``,
``link``, ``folder``) and file digest or link target; all fields end with NUL. Time stamps, owners,
the umask, the place of the checkout and the order of the folder do not count.

Of folders only those in which nothing is left are entries; the others follow from their files. Git
keeps no empty folders, so one counts only where a clone would have it too: because git keeps a file
in it that ``.dockerignore`` leaves out. Else the tag would name what no other checkout can have,
and that nobody could see: git does not call such a tree changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass
from ctflow.ports import PREDICTOR, StepSource
from ctflow.steps.ignore import IgnoreRules

if TYPE_CHECKING:
    from ctflow.config.project import StepConfig

#: Raised when what an image is made of changes, so that old images are not taken for new ones.
LAYOUT = 1
STEPS_FOLDER = "steps"
DOCKERFILE = "Dockerfile"
#: Left out unless ``.dockerignore`` brings it back (``!**/.venv``): what tools leave behind while
#: people work. An image must not change because somebody ran the tests.
DEFAULT_IGNORED = (
    "**/__pycache__", "**/*.pyc", "**/.git", "**/.venv", "**/.ctflow", "**/.DS_Store",
    "**/.pytest_cache", "**/.mypy_cache", "**/.ruff_cache", "**/.ipynb_checkpoints",
)  # fmt: skip
#: The OCI distribution specification's component of a repository name.
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")

Kind = Literal["file", "exec", "link", "folder"]
#: The files below a folder (POSIX, relative to it) that a clone of the repository would have; None:
#: it is in no repository.
CloneFiles = Callable[[str], "Sequence[str] | None"]


@dataclass(frozen=True)
class ContextFile:
    """One entry of a context. ``path`` is POSIX and relative; ``target`` is a link's.

    A ``folder`` is one in which nothing is left.
    """

    path: str
    source: str
    kind: Kind
    target: str = ""
    size: int = 0
    #: What tells that the source did not change: (size, mtime, ctime in ns, inode).
    mark: tuple[int, int, int, int] = (0, 0, 0, 0)


def discover_steps(root: Path, configured: Mapping[str, StepConfig]) -> tuple[StepSource, ...]:
    """Every folder under ``steps/`` with a Dockerfile, and the configured ones, sorted by name.

    Raises:
        ConfigError: a name that no image can have; a configured step without folder or Dockerfile;
            an include that is missing, is not inside the project, or is there twice.
    """
    root = root.resolve()
    folders: dict[str, Path] = {}
    steps = root / STEPS_FOLDER
    if steps.is_dir():
        for folder in sorted(steps.iterdir()):
            if (folder / DOCKERFILE).is_file():
                folders[folder.name] = folder
    for name, config in configured.items():
        folder = root / (config.folder or f"{STEPS_FOLDER}/{name}")
        _check_folder(root, name, folder)
        folders[name] = folder
    found = []
    for name in sorted(folders):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"step {name!r}: no image can have that name",
                next="use lower-case letters and digits, with single '.', '_' or '-' between them",
            )
        include = configured[name].include if name in configured else ()
        found.append(StepSource(name, folders[name], _includes(root, name, include)))
    return tuple(found)


def discover_predictor(
    root: Path, folder: str, include: Sequence[str], steps: Sequence[StepSource]
) -> StepSource | None:
    """The predictor, whose image is built as a step's is; None where it has no Dockerfile.

    Args:
        folder: ``serving.folder``.
        include: ``serving.include``.

    Raises:
        ConfigError: a step has its name; as ``discover_steps``.
    """
    root = root.resolve()
    place = root / folder
    if not (place / DOCKERFILE).is_file():
        return None
    if any(step.name == PREDICTOR for step in steps):
        raise ConfigError(
            f"step {PREDICTOR!r} has the name that the image of {folder}/ gets",
            next="give the step's folder another name",
        )
    _check_folder(root, PREDICTOR, place)
    return StepSource(PREDICTOR, place, _includes(root, PREDICTOR, include))


def _check_folder(root: Path, name: str, folder: Path) -> None:
    shown = os.path.relpath(folder, root)
    if not folder.resolve().is_relative_to(root):
        raise ConfigError(
            f"step {name}: {shown} is outside the project", next="move the folder into it"
        )
    if not folder.is_dir():
        raise ConfigError(
            f"step {name}: there is no folder {shown}",
            next=f"make it, or name another with `steps: {{{name}: {{folder: ...}}}}`",
        )
    if not (folder / DOCKERFILE).is_file():
        raise ConfigError(f"step {name}: {shown} has no {DOCKERFILE}", next="add one")


def _includes(root: Path, step: str, include: Sequence[str]) -> tuple[Path, ...]:
    paths: dict[str, Path] = {}
    for text in include:
        path = Path(os.path.normpath(root / text))
        if path == root or not path.resolve().is_relative_to(root):
            raise ConfigError(
                f"step {step}: include {text!r} is not inside the project",
                next="name a file or folder of the project",
            )
        if not path.exists():
            raise ConfigError(
                f"step {step}: include {text!r} does not exist",
                next="correct the path; it is relative to ctflow.yaml",
            )
        if path.name in paths:
            raise ConfigError(
                f"step {step}: two includes are called {path.name!r}", next="rename one"
            )
        paths[path.name] = path
    return tuple(paths.values())


def context_files(
    step: StepSource, in_clone: CloneFiles = lambda folder: None
) -> tuple[ContextFile, ...]:
    """The context of a step, sorted by the bytes of the paths.

    Args:
        in_clone: the files that a clone has; asked only where there are empty folders.

    Raises:
        ConfigError: an include collides with a file of the step, ``.dockerignore`` is wrong, or an
            entry cannot be part of an image (a device, a link that leads out of the context).
    """
    rules = rules_of(step.folder, step.name)
    own = _walk(str(step.folder), "", rules, step.name)
    files = {one.path: one for one in _in_clone(own, str(step.folder), "", in_clone)}
    tops = {path.partition("/")[0] for path in files}
    for include in step.include:
        if include.name in tops:
            raise ConfigError(
                f"step {step.name}: include {include.name!r} collides with the step's own "
                f"{include.name!r}",
                next="rename one of them",
            )
        found = _include(include, rules, step.name)
        for one in _in_clone(found, str(include), f"{include.name}/", in_clone):
            files[one.path] = one
    return tuple(files[path] for path in sorted(files, key=os.fsencode))


def _in_clone(
    found: Sequence[ContextFile], base: str, prefix: str, in_clone: CloneFiles
) -> list[ContextFile]:
    """All but the empty folders that a clone would not have."""
    empty = any(one.kind == "folder" for one in found)
    files = in_clone(base) if empty else None
    if files is None:
        return list(found)
    left_behind = IgnoreRules.parse("", before=DEFAULT_IGNORED)
    there: set[str] = set()
    for path in files:
        if not left_behind.ignored(path) and os.path.lexists(f"{base}/{path}"):
            parts = f"{prefix}{path}".split("/")
            there.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))
    return [one for one in found if one.kind != "folder" or one.path in there]


def content_digest(
    files: Sequence[ContextFile], base: str, digest: Callable[[ContextFile], str]
) -> str:
    """``sha256:...`` of a context, as this module's docstring says.

    Args:
        files: sorted, as ``context_files`` gives them.
        base: the reference of the base image.
        digest: gives the hexadecimal SHA-256 of a file's bytes.
    """
    whole = hashlib.sha256(f"ctflow-context\0{LAYOUT}\0{base}\0".encode())
    for one in files:
        value = one.target if one.kind in ("link", "folder") else digest(one)
        whole.update(os.fsencode(one.path) + b"\0" + one.kind.encode() + b"\0")
        whole.update(os.fsencode(value) + b"\0")
    return f"sha256:{whole.hexdigest()}"


def rules_of(folder: Path, step: str) -> IgnoreRules:
    """What a step's folder leaves out of its context. Raises ConfigError."""
    # BuildKit prefers the file that is named after the Dockerfile.
    for name in (f"{DOCKERFILE}.dockerignore", ".dockerignore"):
        file = folder / name
        try:
            text = file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"step {step}: cannot read {file}: {error}") from None
        try:
            return IgnoreRules.parse(text, before=DEFAULT_IGNORED)
        except ValueError as error:
            raise ConfigError(
                f"{file}: {error}", next="see Docker's rules for .dockerignore"
            ) from None
    return IgnoreRules.parse("", before=DEFAULT_IGNORED)


def _include(path: Path, rules: IgnoreRules, step: str) -> list[ContextFile]:
    ignored = rules.ignored(path.name)
    if ignored and not rules.may_return(path.name):
        return []
    if path.is_dir() and not path.is_symlink():
        return _walk(str(path), f"{path.name}/", rules, step) or _empty(
            str(path), path.name, ignored
        )
    # A link is followed: its name was given, so its content is meant.
    return [_entry(str(path.resolve()), path.name, step)]


def _walk(folder: str, prefix: str, rules: IgnoreRules, step: str) -> list[ContextFile]:
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        raise ConfigError(
            f"step {step}: cannot read {folder}: {error.strerror}", next="give access to it"
        ) from None
    found: list[ContextFile] = []
    for entry in entries:
        path = prefix + entry.name
        ignored = rules.ignored(path) and path != DOCKERFILE
        if entry.is_dir(follow_symlinks=False):
            if not ignored or rules.may_return(path):
                below = _walk(entry.path, f"{path}/", rules, step)
                found += below or _empty(entry.path, path, ignored)
        elif not ignored:
            found.append(_entry(entry.path, path, step))
    return found


def _empty(source: str, path: str, ignored: bool) -> list[ContextFile]:
    return [] if ignored else [ContextFile(path, source, "folder")]


def _entry(source: str, path: str, step: str) -> ContextFile:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(source)  # noqa: PTH115 (bytes that are no text survive)
        inside = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118,PTH120
        if target.startswith("/") or inside == ".." or inside.startswith("../"):
            raise ConfigError(
                f"step {step}: the link {path!r} leads out of the context, to {target!r}",
                cause="an image cannot hold what it points to",
                next="copy the file, use `include`, or name the link in .dockerignore",
            )
        return ContextFile(path, source, "link", target)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(
            f"step {step}: {path!r} is neither file, folder nor link",
            next="remove it or name it in .dockerignore",
        )
    mark = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    kind: Kind = "exec" if status.st_mode & stat.S_IXUSR else "file"
    return ContextFile(path, source, kind, "", status.st_size, mark)
