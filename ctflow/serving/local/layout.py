"""What an environment keeps on disk: its state, and a copy of each release's serving code.

``<serving>/<environment>/``: ``state.json``, ``deploy.lock``, ``front.lock``, ``control.sock``,
``logs/``, ``run/`` and ``releases/<digest>/``, which a served release needs and nothing else does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, StateError
from ctflow.lib.files import sync_folder, write_file
from ctflow.lib.quick import dataclass
from ctflow.ports import ServeRequest
from ctflow.serving.golden import Golden, golden_in
from ctflow.serving.local.code import write_code

_LAYOUT = 1


@dataclass(frozen=True)
class Served:
    """One release as it is served: ``key`` is the digest of all that decides how it answers."""

    key: str
    project: str
    model: str
    model_dir: str
    code: str
    predictor: str
    golden: str
    commit: str
    since: float = 0.0

    def golden_requests(self) -> tuple[Golden, ...]:
        """What its answers are checked with; raises ConfigError where that cannot be read."""
        return golden_in(Path(self.code), self.golden)

    def requirements(self) -> str:
        """The text of the code's requirements.txt; raises ConfigError where there is none."""
        return requirements_of(Path(self.code))


def requirements_of(code: Path) -> str:
    """The text of a serving folder's requirements.txt; raises ConfigError where there is none."""
    try:
        return (code / "requirements.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            "the serving folder has no readable requirements.txt", next="add one with kserve"
        ) from None


def model_folder(model: Path, place: Path) -> Path:
    """The folder that a predictor is given: the model itself, or one that holds only its file.

    KServe's storage initializer gives a folder too, whatever the URI names.

    Args:
        model: a folder, or a file.
        place: where a folder may be made for the file.
    """
    if model.is_dir():
        return model.resolve()
    place.mkdir(parents=True, exist_ok=True)
    link = place / model.name
    if not link.is_symlink():
        link.symlink_to(model.resolve())
    return place.resolve()


@dataclass(frozen=True)
class State:
    """What the environment last came to: ``current`` is the last good release."""

    project: str = ""
    port: int = 0
    current: Served | None = None
    stopped: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Place:
    """An environment's folder."""

    folder: Path

    def read(self) -> State:
        """The state; an empty one where nothing was deployed. Raises StateError if unreadable."""
        file = self.folder / "state.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data.pop("layout") != _LAYOUT:
                raise StateError(
                    f"{file} was written by another version of ctflow", next="delete it"
                )
            current = data.pop("current")
            return State(current=Served(**current) if current else None, **data)
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateError(
                f"{file} is damaged: {error}", next="delete it and run `ctflow deploy` again"
            ) from None

    def write(self, state: State) -> None:
        """Replace the state, whole or not at all."""
        text = json.dumps({"layout": _LAYOUT, **asdict(state)}, indent=2)
        write_file(self.folder / "state.json", text, sync=True)

    def log(self, key: str) -> Path:
        """The log of a release's model server."""
        return self.folder / "logs" / f"{key[:12]}.log"

    def snapshot(self, request: ServeRequest, path: Path, since: float) -> Served:
        """Copy the request's serving code, so that later edits change nothing that is served.

        Args:
            path: the model's content.

        Raises:
            ConfigError: there is no such folder.
            OSError: the disk is full, or a file cannot be read.
        """
        releases = self.folder / "releases"
        releases.mkdir(parents=True, exist_ok=True)
        import uuid

        copy = releases / f".tmp-{uuid.uuid4().hex}"
        try:
            predictor = write_code(request, copy / "code")
            model = path.resolve()
            decides = [request.project, request.model.digest, str(model)]
            decides += [predictor, request.golden, _content(copy / "code")]
            key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
            kept = releases / key
            if not kept.exists():
                copy.rename(kept)
                sync_folder(releases)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return Served(
            key=key,
            project=request.project,
            model=request.model.digest,
            model_dir=str(model_folder(model, kept / "model")),
            code=str(kept.resolve() / "code"),
            predictor=predictor,
            golden=request.golden,
            commit=request.commit,
            since=since,
        )

    def prune(self, keep: set[str]) -> None:
        """Remove the copies, and logs, of releases other than ``keep``."""
        for folder in (self.folder / "releases").iterdir():
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        logs = {self.log(key).name for key in keep} | {"front.log"}
        for log in (self.folder / "logs").iterdir():
            if log.name not in logs:
                log.unlink(missing_ok=True)


def _content(folder: Path) -> str:
    """The digest of a folder's files and their paths; each is on the disk when it returns."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as opened:
            content = opened.read()
            os.fsync(opened.fileno())
        name = file.relative_to(folder).as_posix()
        total.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return total.hexdigest()


def spec(served: Served, **process: Any) -> dict[str, Any]:
    """What the front needs to start this release's model server."""
    return {
        "key": served.key,
        "name": served.project,
        "model": served.model,
        "model_dir": served.model_dir,
        "code": served.code,
        "predictor": served.predictor,
        **process,
    }
