"""What the engine knows of a run's place and of a task on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctflow.local.cache import Key
from ctflow.local.logs import Log
from ctflow.local.nodes import Node
from ctflow.local.plans import Plan
from ctflow.local.process import Command, Exit, Process
from ctflow.model import Value


@dataclass(frozen=True)
class Place:
    """Where a run keeps its files, and what its tasks know about it.

    ``number`` is the run's in the record; 0: its tasks are not recorded.
    """

    run: str
    number: int
    folder: Path
    pipeline: str
    names: Mapping[str, str]


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
    ended: float | None = None
    exit: Exit | None = None
    cost: int = 1
    command: Command | None = None
    process: Process | None = None
    log: Log | None = None
    folder: Path = field(default_factory=Path)
    message: dict[str, Any] = field(default_factory=dict)
    printing: bool = False
    marks: str = ""
    log_path: str = ""


def folder_name(name: str) -> str:
    """A task's folder in its run: its name, or a digest of one too long for a file system."""
    if len(name) <= 150 and "/" not in name:
        return name
    return name[:100].replace("/", "_") + "-" + hashlib.sha256(name.encode()).hexdigest()[:16]
