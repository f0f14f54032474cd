"""The outside world as Protocols: what a stage may ask for, whoever answers.

``ctflow.wiring`` alone chooses the adapters. Every adapter translates its library's exceptions into
``ctflow.errors`` and says in its own docstring which it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctflow.ports.artifacts import (
    ArtifactFiles,
    Declared,
    RunArtifacts,
    RunPlace,
    TaskRecord,
)
from ctflow.ports.build import (
    PREDICTOR,
    Builder,
    Compiler,
    ContainerEngine,
    Environment,
    Environments,
    ImageList,
    ImageSource,
    PredictorImages,
    Registry,
    StepPlans,
    StepSource,
    Workspace,
    Workspaces,
)
from ctflow.ports.events import (
    Event,
    Watch,
    ignore,
)
from ctflow.ports.forge import (
    Approval,
    Forge,
    PullRequest,
    StatusState,
)
from ctflow.ports.functions import (
    Calls,
    Columns,
    Functions,
    OpenFunctions,
)
from ctflow.ports.pipelines import (
    Pipelines,
    VersionRequest,
)
from ctflow.ports.run import (
    Outputs,
    Runner,
    RunRequest,
    Runs,
)
from ctflow.ports.scm import (
    LogEntry,
    Scm,
    TreeFile,
)
from ctflow.ports.serve import (
    GoldenCheck,
    GoldenRequest,
    Server,
    ServeRequest,
    Timed,
    Trial,
    WantsMore,
)
from ctflow.ports.store import (
    Looks,
    ModelStore,
)

__all__ = [
    "PREDICTOR",
    "Approval",
    "ArtifactFiles",
    "Builder",
    "Calls",
    "Columns",
    "Compiler",
    "ContainerEngine",
    "Declared",
    "Environment",
    "Environments",
    "Event",
    "Forge",
    "Functions",
    "GoldenCheck",
    "GoldenRequest",
    "ImageList",
    "ImageSource",
    "LogEntry",
    "Looks",
    "ModelStore",
    "OpenFunctions",
    "Outputs",
    "Pipelines",
    "PredictorImages",
    "PullRequest",
    "Registry",
    "RunArtifacts",
    "RunPlace",
    "RunRequest",
    "Runner",
    "Runs",
    "Scm",
    "ServeRequest",
    "Server",
    "StatusState",
    "StepPlans",
    "StepSource",
    "TaskRecord",
    "Timed",
    "TreeFile",
    "Trial",
    "VersionRequest",
    "WantsMore",
    "Watch",
    "Workspace",
    "Workspaces",
    "ignore",
    "state_places",
]


def state_places(state: Path) -> Mapping[str, Path]:
    """Where in the local state each part keeps its files: the one list of those names."""
    names = ("runs", "packages", "steps", "models", "serving", "trigger", "tmp", "images", "looks",
             "schedules")  # fmt: skip
    return {name: state / name for name in names} | {"record": state / "record.db"}
