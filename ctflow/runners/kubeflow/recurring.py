"""KFP's recurring runs, as far as ctflow made them.

What the server does with them: two of one name are taken; one without a trigger, mode or
concurrency is taken and means something else, so all of them are always sent; a cron expression
needs its seconds; nothing of one can be changed but whether it is enabled.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ctflow.components import COMMIT, PACKAGE
from ctflow.errors import ConfigError, StateError
from ctflow.lib import cron
from ctflow.lib.digests import digest_bytes
from ctflow.model import Value
from ctflow.model.schedules import RecurringRun, Schedule
from ctflow.pipelinespec.parameters import check_parameters, with_provenance
from ctflow.pipelinespec.spec_reader import parse
from ctflow.ports.schedules import WantedSchedule
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow import labels
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.parameters import check_exact, to_send
from ctflow.runners.kubeflow.starting import RunSettings

#: How often the same is asked for, each time after a look whether it is there.
_TRIES = 3


class KfpSchedules:
    """The ``Schedules`` of a KFP server.

    Args:
        project: whose recurring runs these are.
        pipeline: the pipeline's name there.
        settings: how their runs are made.
    """

    def __init__(self, kfp: Kfp, project: str, pipeline: str, settings: RunSettings) -> None:
        self._kfp = kfp
        self._project = project
        self._pipeline = pipeline
        self._settings = settings

    def wanted(self, schedules: Sequence[Schedule], *, dry_run: bool) -> tuple[WantedSchedule, ...]:
        """The schedules with what KFP is asked for. Raises as ``Schedules`` says."""
        if not schedules:
            return ()
        pipeline = self._kfp.pipeline(self._pipeline)
        if pipeline is None:
            raise StateError(
                f"{self._kfp.api.name} has no pipeline {self._pipeline!r}",
                next="upload it with `ctflow upload`",
            )
        pipeline_id = str(pipeline["pipeline_id"])
        versions = {
            name: self._version(pipeline_id, name)
            for name in dict.fromkeys(one.version for one in schedules)
        }
        find = self._kfp.experiment if dry_run else self._kfp.ensure_experiment
        experiment = find(self._settings.experiment) or {}
        return tuple(
            self._wanted(one, versions[one.version], str(experiment.get("experiment_id", "")))
            for one in schedules
        )

    def _version(self, pipeline_id: str, name: str) -> Json:
        found = (
            self._kfp.version(pipeline_id, name) if name else self._kfp.newest_version(pipeline_id)
        )
        if found is None:
            what = f"version {name!r}" if name else "version"
            raise ConfigError(
                f"pipeline {self._pipeline} has no {what} on {self._kfp.api.name}",
                next="upload it with `ctflow upload`" + (f" --name {name}" if name else ""),
            )
        return found

    def _wanted(self, schedule: Schedule, version: Json, experiment: str) -> WantedSchedule:
        parameters = _checked(schedule, version)
        reference = {"pipeline_id": version["pipeline_id"]}
        # A pipeline that is told its commit is told that of this version: of no later one.
        if schedule.version or parameters.keys() & {COMMIT, PACKAGE}:
            reference["pipeline_version_id"] = version["pipeline_version_id"]
        runtime: dict[str, Any] = {"parameters": to_send(parameters)}
        if self._settings.pipeline_root:
            runtime["pipeline_root"] = self._settings.pipeline_root
        request: dict[str, Any] = {
            "display_name": self._name(schedule.name),
            "experiment_id": experiment,
            "pipeline_version_reference": reference,
            "runtime_config": runtime,
            "trigger": _trigger(schedule),
            "max_concurrency": str(schedule.concurrency),
            "no_catchup": not schedule.catch_up,
        }
        if self._settings.service_account:
            request["service_account"] = self._settings.service_account
        # A change of ``enabled`` makes another one too: KFP makes up for times that passed while
        # one was disabled, as if they had been missed.
        whole = json.dumps([1, request, schedule.enabled], sort_keys=True, ensure_ascii=False)
        return WantedSchedule(schedule, digest_bytes(whole.encode()), request)

    def existing(self) -> tuple[RecurringRun, ...]:
        """Those of this project. A copy that somebody made has another name, and is theirs."""
        return tuple(
            RecurringRun(
                str(one["recurring_run_id"]),
                said["schedule"],
                said.get("settings", ""),
                one.get("mode") == "ENABLE",
                str(one.get("created_at", "")),
            )
            for one, said in self._own()
        )

    def _own(self) -> list[tuple[Json, dict[str, str]]]:
        found = []
        for one in self._kfp.recurring_runs():
            said = labels.read(one.get("description"))
            if said.get("project") != self._project or not said.get("schedule"):
                continue
            if one.get("display_name") == self._name(said["schedule"]):
                found.append((one, said))
        return found

    def create(self, wanted: WantedSchedule) -> None:
        """Make it, disabled; once, also where the server's answer is lost. Raises OutsideError."""
        key = secrets.token_hex(8)
        said = {
            "project": self._project,
            "schedule": wanted.schedule.name,
            "settings": wanted.settings,
            "key": key,
        }
        body = {
            **wanted.request,
            "description": labels.written(f"{wanted.schedule.when} (UTC)", said),
            "mode": "DISABLE",
        }
        for attempt in range(1, _TRIES + 1):
            try:
                self._kfp.create_recurring_run(body)
                return
            except ApiError as error:
                if error.unsure and any(theirs.get("key") == key for _, theirs in self._own()):
                    return
                if not error.unsure or error.status == 500 or attempt == _TRIES:
                    raise self._explained(wanted.schedule, error) from None
                self._kfp.api.patience.wait(attempt, None)

    def set_enabled(self, run_id: str, enabled: bool) -> None:
        """Enable or disable it; no error where it is gone."""
        try:
            self._kfp.set_recurring_run(run_id, enabled=enabled)
        except ApiError as error:
            if error.status != 404:
                raise

    def delete(self, run_id: str) -> None:
        """Remove it; no error where it is gone."""
        try:
            self._kfp.delete_recurring_run(run_id)
        except ApiError as error:
            if error.status != 404:
                raise

    def _name(self, schedule: str) -> str:
        return f"{self._project}-{schedule}"

    def _explained(self, schedule: Schedule, error: ApiError) -> Exception:
        if error.status not in (400, 404, 500) or not error.said:
            return error
        return ApiError(
            f"{self._kfp.api.name} does not make the recurring run of schedule {schedule.name}",
            cause=error.said,
            next="correct what it names, then run the same command again",
            status=error.status,
            said=error.said,
        )


def _trigger(schedule: Schedule) -> dict[str, Any]:
    if schedule.cron:
        return {"cron_schedule": {"cron": cron.parse(schedule.cron).six}}
    return {"periodic_schedule": {"interval_second": str(schedule.every)}}


def _checked(schedule: Schedule, version: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters as the version declares them, and the version's commit and package where it
    wants to know them; defaults stay the version's own.
    """
    spec = version.get("pipeline_spec")
    if not isinstance(spec, dict):
        return dict(schedule.parameters)
    said = labels.read(version.get("description"))
    try:
        root = parse([spec.get("pipeline_spec", spec)], "the version").root
        given = with_provenance(
            root, schedule.parameters, said.get("commit", ""), said.get("package", "")
        )
        found = check_parameters(root, given)
        check_exact(found)
    except ConfigError as error:
        raise ConfigError(
            f"schedule {schedule.name}: {error.fact}", cause=error.cause, next=error.next
        ) from None
    return {name: found[name] for name in given}
