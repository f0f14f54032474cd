"""Runs on record that are to be executed: what that takes, and what tasks know of their run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, StateError
from ctflow.lib.quick import dataclass
from ctflow.model import Run, Value
from ctflow.pipelinespec.packages import load
from ctflow.pipelinespec.spec import Pipeline
from ctflow.ports import Watch
from ctflow.runners.local.jobs import RunContext
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.record import Record


@dataclass(frozen=True)
class Submitted:
    """A run that is on record and has not started; its folder is held as long as ``stack``."""

    stack: ExitStack
    record: Record
    run_context: RunContext
    pipeline: Pipeline
    parameters: Mapping[str, Value]
    plans: dict[str, Plan]
    caching: bool


def tagged_with(watch: Watch, run_id: str) -> Watch:
    """A Watch whose events say of which run they are."""
    return lambda event: watch(replace(event, run=run_id))


def same_package(run: Run, asked: Mapping[str, Any]) -> Pipeline:
    """The pipeline that a run executes; StateError where its package is not what it was."""
    try:
        pipeline, digest = load(Path(asked["package"]["path"]))
    except ConfigError as error:
        raise StateError(
            f"the package of run {run.id} is gone or damaged",
            cause=error.fact,
            next="start a new run, or `ctflow compile` if nothing has changed since",
        ) from None
    if digest != run.package:
        raise StateError(f"the package of run {run.id} is not what it was", next="start a new run")
    return pipeline


def names_of(run: Run, pipeline: str, folder: Path) -> dict[str, str]:
    """What KFP's placeholders about the run say."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.created))
    return {
        "pipeline_job_name": run.id,
        "pipeline_job_resource_name": f"{pipeline}-{run.id}",
        "pipeline_job_uuid": run.id,
        "pipeline_task_name": "",
        "pipeline_task_uuid": "",
        "pipeline_root": str(folder),
        "pipeline_job_create_time_utc": created,
        "pipeline_job_schedule_time_utc": created,
        "workspace_path": str(folder / "workspace"),
    }
