"""The runs that a KFP server has on record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ctflow.errors import ConfigError, StateError
from ctflow.model import Run
from ctflow.pipelinespec.spec import Pipeline
from ctflow.pipelinespec.spec_reader import parse
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.reading import run_of

#: How many runs are looked through for one whose id begins so.
_SEARCHED = 1000
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ServerRuns:
    """Finds and reads runs.

    Args:
        project: for runs that were not made by ctflow.
        experiment: whose runs are listed.
    """

    def __init__(self, kfp: Kfp, project: str, experiment: str) -> None:
        self._kfp = kfp
        self._project = project
        self._experiment = experiment
        self._package = lru_cache(maxsize=32)(self._load_package)

    def all(self, page: int) -> Iterator[Json]:
        """The runs of the experiment, the newest first, ``page`` at a time."""
        experiment = self._kfp.experiment(self._experiment)
        if experiment is None:
            return iter(())
        return self._kfp.runs(experiment_id=str(experiment["experiment_id"]), page_size=page)

    def find(self, run_id: str) -> Json:
        """A run by its id, the beginning of it, its name, or ``latest``. Raises StateError."""
        if _ID.fullmatch(run_id):
            try:
                return self._kfp.run(run_id)
            except ApiError as error:
                if error.status != 404:
                    raise
                raise no_run(run_id) from None
        if run_id == "latest":
            for data in self.all(1):
                return self._kfp.run(str(data["run_id"]))
            raise StateError("there are no runs yet", next="start one with `ctflow run`")
        found = []
        for count, data in enumerate(self.all(200)):
            if str(data.get("run_id", "")).startswith(run_id) or data.get("display_name") == run_id:
                found.append(str(data["run_id"]))
            if count >= _SEARCHED:
                break
        if not found:
            raise no_run(run_id)
        if len(found) > 1:
            raise StateError(
                f"{run_id!r} may be any of {', '.join(found[:5])}", next="write more of the id"
            )
        return self._kfp.run(found[0])

    def read(self, data: Json) -> Run:
        """The run that the server's answer tells of."""
        return run_of(data, self._project, self.pipeline_of(data), self.url_of(data))

    def pipeline_of(self, data: Json) -> Pipeline | None:
        """The package that a run runs; None where it cannot be had."""
        inline = data.get("pipeline_spec")
        if isinstance(inline, dict):
            return _parsed(inline)
        reference = data.get("pipeline_version_reference")
        if not isinstance(reference, dict) or "pipeline_version_id" not in reference:
            return None
        return self._package(
            str(reference.get("pipeline_id", "")), str(reference["pipeline_version_id"])
        )

    def _load_package(self, pipeline_id: str, version_id: str) -> Pipeline | None:
        try:
            version = self._kfp.get_version(pipeline_id, version_id)
        except ApiError as error:
            if error.status in (404, 500):  # it was removed; servers say either
                return None
            raise
        return _parsed(version.get("pipeline_spec"))

    def documents_of(self, data: Json) -> list[Any] | None:
        """The package that a run runs, as plain data; None where it cannot be had."""
        spec = data.get("pipeline_spec")
        reference = data.get("pipeline_version_reference")
        if not isinstance(spec, dict) and isinstance(reference, dict):
            ids = (reference.get("pipeline_id", ""), reference.get("pipeline_version_id", ""))
            try:
                spec = self._kfp.get_version(*map(str, ids)).get("pipeline_spec")
            except ApiError as error:
                if error.status not in (404, 500):
                    raise
        return _documents(spec) if isinstance(spec, dict) else None

    def url(self, run_id: str) -> str:
        """The page of a run; empty where this is not a way to it."""
        return self._kfp.page(f"runs/details/{run_id}")

    def url_of(self, data: Json) -> str:
        """The page of the run that the server's answer tells of."""
        return self.url(str(data.get("run_id", "")))


def no_run(run_id: str) -> StateError:
    """The error of a run that is not there."""
    return StateError(f"there is no run {run_id!r}", next="see `ctflow runs list`")


def _parsed(spec: Any) -> Pipeline | None:
    if not isinstance(spec, dict):
        return None
    try:
        return parse(_documents(spec), "the pipeline version")
    except ConfigError:
        return None  # of another compiler: the tasks are shown by KFP's names


def _documents(spec: dict[str, Any]) -> list[Any]:
    return [spec["pipeline_spec"], spec["platform_spec"]] if "platform_spec" in spec else [spec]
