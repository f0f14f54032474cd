"""Starting a run, once."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctflow.errors import StateError
from ctflow.lib.quick import dataclass
from ctflow.lib.text import one_line
from ctflow.model import Upload, Value
from ctflow.pipelinespec.packages import load_documents
from ctflow.ports import RunRequest
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow import api, labels
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.parameters import to_send

#: How often the same run is asked for, each time after a look whether it is there.
_TRIES = 3
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class RunSettings:
    """How the settings say that a run is made. ``actor`` is who asks for it."""

    experiment: str
    service_account: str = ""
    pipeline_root: str = ""
    actor: str = ""


def start(
    kfp: Kfp,
    request: RunRequest,
    version: Upload,
    parameters: Mapping[str, Value],
    settings: RunSettings,
) -> Json:
    """Start a run of a version; the server's answer.

    The run's name ends in a key of its own. Where the connection breaks, or the server fails, the
    run of that name is looked for before it is asked for again, so that it never starts twice.

    Raises:
        StateError: the experiment is archived.
        OutsideError: the server is down or refuses.
    """
    experiment = kfp.ensure_experiment(settings.experiment)
    key = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    name = name_of(request, key)
    commit = request.commit
    said = {
        "package": request.package.digest,
        "project": request.project,
        "pipeline": request.package.pipeline,
        "commit": commit.sha if commit else "",
        "branch": (commit.branch or "") if commit else "",
        "actor": one_line(settings.actor, 100),
        "key": key,
    }
    dirty = f", with {len(commit.dirty)} uncommitted files" if commit and commit.dirty else ""
    text = f"commit {commit.sha[:12]}{dirty}" if commit else ""
    body: dict[str, Any] = {
        "display_name": name,
        "description": labels.written(text, said),
        # In the query the server would ignore it, and put the run into the default experiment.
        "experiment_id": experiment["experiment_id"],
        "runtime_config": {"parameters": to_send(parameters)},
    }
    if request.caching:
        body["pipeline_version_reference"] = {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.version_id,
        }
    else:
        body["pipeline_spec"] = _without_caching(Path(request.package.path))
    if settings.service_account:
        body["service_account"] = settings.service_account
    if settings.pipeline_root:
        body["runtime_config"]["pipeline_root"] = settings.pipeline_root
    return once(kfp, name, body)


def name_of(request: RunRequest, key: str) -> str:
    """``digits-1a2b3c4-KEY``. KFP would run one with a longer name and not record it."""
    parts = [request.project, request.commit.sha[:7] if request.commit else "", key]
    name = "-".join(part for part in parts if part)
    return name if len(name) <= api.RUN_NAME else f"{name[: api.RUN_NAME - len(key) - 1]}-{key}"


def once(kfp: Kfp, name: str, body: Json) -> Json:
    """Start a run of a name that no other has; the server's answer. Raises as ``start`` does."""
    for attempt in range(1, _TRIES + 1):
        try:
            return kfp.create_run(body)
        except ApiError as error:
            if not error.unsure:
                raise _explained(kfp, error) from None
            # The server may have started it before it failed, or before the answer was lost.
            found = kfp.run_named(name)
            if found is not None:
                return found
            if error.status == 500 or attempt == _TRIES:
                raise _explained(kfp, error) from None
            kfp.api.patience.wait(attempt, None)
    raise AssertionError("the last try returns or raises")


def _explained(kfp: Kfp, error: ApiError) -> Exception:
    if error.status == 404 and "xperiment" in error.said:
        return StateError("the experiment is gone", next="run the same command again")
    if error.status in (400, 500) and error.said:
        return ApiError(
            f"{kfp.api.name} does not start the run",
            cause=error.said,
            next="correct what it names, then run the same command again",
            status=error.status,
            said=error.said,
        )
    return error


def _without_caching(package: Path) -> Any:
    """The package as a run carries it itself, its tasks not to be taken from the cache."""
    documents = copy.deepcopy(load_documents(package))
    spec = documents[0]
    for component in (spec.get("root", {}), *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {"enableCache": False}
    if len(documents) == 1:
        return spec
    return {"pipeline_spec": spec, "platform_spec": documents[1]}
