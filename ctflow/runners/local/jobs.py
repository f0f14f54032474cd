"""What the engine knows of a run's place and of a task on its way."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from ctflow.lib.quick import dataclass
from ctflow.model import Value
from ctflow.runners.local.cache import Key
from ctflow.runners.local.logs import Log
from ctflow.runners.local.nodes import Node
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.process import Command, Exit, Process

#: Below an attempt's folder, while it runs.
SECRETS = ".secrets"
#: Below an attempt's folder: files of config maps, and volumes that only it has.
CONFIG = ".config"
FRESH = ".volumes"


@dataclass(frozen=True)
class RunContext:
    """A run as its tasks need it: its id, folder, pipeline, placeholders and variables.

    ``number`` is the run's in the record; 0: its tasks are not recorded. ``variables`` are those of
    the caller that its tasks get.
    """

    run: str
    number: int
    folder: Path
    pipeline: str
    names: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class Job:
    """A task on its way: its key, its attempts, its process."""

    node: Node
    plan: Plan
    key: Key
    parameters: dict[str, Value]
    miss: str = ""
    attempts: int = 0
    started: float | None = None
    #: When the first attempt began (monotonic seconds).
    begun: float | None = None
    ended: float | None = None
    exit: Exit | None = None
    cost: int = 1
    command: Command | None = None
    process: Process | None = None
    log: Log | None = None
    folder: Path = field(default_factory=Path)
    message: dict[str, Any] = field(default_factory=dict)
    printing: bool = False
    #: When the attempt is stopped (monotonic seconds), and whether it has been.
    deadline: float | None = None
    timed_out: bool = False
    marks: str = ""
    log_path: str = ""


def folder_name(name: str) -> str:
    """A task's folder in its run: its name, or a digest of one too long for a file system."""
    if len(name) <= 150 and "/" not in name:
        return name
    return name[:100].replace("/", "_") + "-" + hashlib.sha256(name.encode()).hexdigest()[:16]


def prepare_mounts(job: Job) -> dict[str, Path]:
    """Make the folders that stand for the task's volumes and secrets; by path in the container."""
    platform = job.plan.platform
    places = dict(platform.mounts)
    for number, path in enumerate(platform.fresh):
        places[path] = job.folder / FRESH / str(number)
    for folder in places.values():
        if not folder.exists():  # a path below a volume's top may be a file
            folder.mkdir(parents=True, exist_ok=True)
    for number, (path, files) in enumerate(platform.file_mounts.items()):
        places[path] = _write(job.folder / CONFIG / str(number), files)
    for number, (path, files) in enumerate(platform.secret_mounts.items()):
        places[path] = _write(job.folder / SECRETS / str(number), files)
    return places


def _write(place: Path, files: Mapping[str, str]) -> Path:
    place.mkdir(parents=True, mode=0o700)
    for name, value in files.items():
        file = place / ("_" + name if name in (".", "..") else name.replace("/", "_"))
        file.touch(mode=0o600)
        file.write_text(value, encoding="utf-8")
    return place


def forget_all_secrets(run: Path) -> None:
    """Remove the secret files of all attempts below a run's folder: its process was killed."""
    for place in run.glob(f"**/{SECRETS}"):
        shutil.rmtree(place, ignore_errors=True)


def leave(job: Job) -> None:
    """Let go of an attempt that has ended, or never starts: its secret files go, its log is whole.

    Nothing where none was made ready.
    """
    if job.log is None:
        return
    if job.plan.platform.secret_mounts:
        shutil.rmtree(job.folder / SECRETS, ignore_errors=True)
    log, job.log = job.log, None
    log.close()
