"""Kubeflow Pipelines, as a project's settings name it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ctflow.errors import CtflowError

if TYPE_CHECKING:
    from ctflow.model import Commit
    from ctflow.ports import LogEntry, Pipelines, RunArtifacts, Runner
    from ctflow.ports.schedules import Schedules
    from ctflow.rest.client import Api
    from ctflow.runners.kubeflow.api import Kfp
    from ctflow.runners.kubeflow.outputs import RunOutputs
    from ctflow.runners.kubeflow.starting import RunSettings
    from ctflow.wiring import ProjectTools

#: Where the runs of a single-user installation are.
NAMESPACE = "kubeflow"
#: Variables that name who started a workflow on a forge, and who is logged in here.
_ACTORS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "GITEA_ACTOR", "USER", "LOGNAME")


def kfp(tools: ProjectTools) -> Kfp:
    """The server; nothing is sent yet. ConfigError where the settings name none."""
    from ctflow.runners.kubeflow.connection import connect

    return connect(tools.project.kubeflow, tools.root, os.environ)


def pipelines(tools: ProjectTools) -> Pipelines:
    """Where pipelines are uploaded."""
    return _pipelines(tools, kfp(tools))


def _pipelines(tools: ProjectTools, server: Kfp) -> Pipelines:
    from ctflow.runners.kubeflow.uploads import KfpPipelines

    name = tools.project.kubeflow.pipeline or tools.project.project

    def subject(commit: Commit | None) -> str:
        entries: Sequence[LogEntry] = ()
        if commit is not None:
            with suppress(CtflowError):
                entries = tools.scm.log(commit.sha, ".", 1)
        return entries[0].subject if entries else ""

    return KfpPipelines(server, name, subject)


def _settings(tools: ProjectTools) -> RunSettings:
    """How runs are made there."""
    from ctflow.runners.kubeflow.starting import RunSettings

    config = tools.project.kubeflow
    return RunSettings(
        config.experiment or tools.project.project,
        config.service_account or "",
        config.pipeline_root or "",
        next((os.environ[name] for name in _ACTORS if os.environ.get(name)), ""),
    )


def runner(tools: ProjectTools) -> Runner:
    """What runs packages there."""
    from ctflow.runners.kubeflow.logs import Logs
    from ctflow.runners.kubeflow.runner import KubeflowRunner

    config, server = tools.project.kubeflow, kfp(tools)
    return KubeflowRunner(
        server,
        tools.project.project,
        _pipelines(tools, server),
        _settings(tools),
        Logs(server, lambda: cluster(tools), config.namespace or NAMESPACE),
        _outputs(tools, server),
        ask=tools.ask,
        timeout=tools.timeout,
    )


def schedules(tools: ProjectTools) -> Schedules:
    """What starts runs there by itself."""
    from ctflow.runners.kubeflow.recurring import KfpSchedules

    project = tools.project
    name = project.kubeflow.pipeline or project.project
    return KfpSchedules(kfp(tools), project.project, name, _settings(tools))


def _outputs(tools: ProjectTools, server: Kfp) -> RunOutputs:
    """What reads the runs' outputs: ML Metadata, else the bucket where the settings name one."""
    from ctflow.lib.digests import digest_bytes
    from ctflow.lib.user_cache import cache_root
    from ctflow.runners.kubeflow.listing import DEFAULT_ROOT, Listed
    from ctflow.runners.kubeflow.metadata import Metadata
    from ctflow.runners.kubeflow.outputs import RunOutputs
    from ctflow.stores.object_store.artifact_files import open_files

    config, cache = tools.project.kubeflow, cache_root(os.environ)
    said = config.artifacts
    files = open_files(
        said.endpoint, cache, os.environ, said.access_key_env, said.secret_key_env, said.region
    )
    records: RunArtifacts | None = None
    if config.metadata is not None:
        records = Metadata(config.metadata)
    elif said.endpoint or config.pipeline_root:
        records = Listed(files, config.pipeline_root or DEFAULT_ROOT)
    which = digest_bytes(server.api.base.encode()).partition(":")[2][:16]
    return RunOutputs(
        records,
        files,
        cache / "run-metrics" / which,
        from_package=config.metadata is None,
    )


def cluster(tools: ProjectTools) -> Api:
    """The Kubernetes API server that the kubeconfig names. ConfigError where there is none."""
    from ctflow.rest.client import Api
    from ctflow.runners.kubeflow.cluster import api_server

    server = api_server(tools.project.kubeflow.context, os.environ)
    return Api(
        server.name, server.url, server.credentials,
        verify=server.verify, certificate=server.certificate,
    )  # fmt: skip
