"""Which systems a project is set up with, as checks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.wiring.choices import FORGES

if TYPE_CHECKING:
    from ctflow.config.kubeflow import KubeflowAuth
    from ctflow.doctor.kfp import KubeflowPipelines
    from ctflow.doctor.registry import Registry
    from ctflow.ports import ModelStore, RunArtifacts
    from ctflow.ports.doctor import Check
    from ctflow.rest.client import Api
    from ctflow.runners.kubeflow.api import Kfp
    from ctflow.wiring import ProjectTools

#: The account of runs that name none: of an installation with users, and of one without.
_ACCOUNTS = {True: "default-editor", False: "pipeline-runner"}


def checks(tools: ProjectTools, timeout: float) -> tuple[Check, ...]:
    """A check for each system.

    Args:
        timeout: seconds that each may take; what it asks has to answer somewhat sooner, so that
            it can say why it fails.
    """
    timeout *= 0.8
    from ctflow.doctor.cluster_parts import ClusterParts
    from ctflow.doctor.forge import Forge
    from ctflow.doctor.git_remote import GitRemote
    from ctflow.doctor.kubernetes import Kubernetes
    from ctflow.doctor.model_store import Store
    from ctflow.doctor.programs import Engine, Git, Uv
    from ctflow.doctor.run_outputs import RunOutputs
    from ctflow.model.store_url import folder_of
    from ctflow.wiring.kubeflow import NAMESPACE

    project = tools.project
    config = project.kubeflow
    cluster = project.runner == "kubeflow"
    used = cluster or config.host is not None
    users = config.namespace is not None
    namespace = config.namespace or NAMESPACE
    place = project.store.models
    name = folder_of(place) if place is not None else str(tools.places["models"])
    folder = None if name is None else (tools.root / name).resolve()

    def kubernetes() -> Api:
        from ctflow.wiring.kubeflow import cluster as api_of

        return _quick(api_of(tools), timeout)

    return (
        Git(os.environ),
        Uv(os.environ),
        Engine(project.images.builder, cluster or project.images.registry is not None, os.environ),
        GitRemote(tools.root, project.branch, timeout),
        _registry(tools, cluster, timeout),
        Store(place or str(folder), folder, lambda: _store(tools)),
        _kubeflow(tools, cluster, timeout),
        RunOutputs(
            config.metadata,
            _metadata,
            listed=bool(config.artifacts.endpoint or config.pipeline_root),
            needed=cluster,
        ),
        Kubernetes(kubernetes, namespace, users=users, used=used,
                   needed=cluster and config.host == "kubernetes"),
        ClusterParts(kubernetes, namespace, config.service.partition("/")[0],
                     config.service_account or _ACCOUNTS[users], needed=cluster),
        Forge(project.forge.kind, tuple(FORGES)),
    )  # fmt: skip


def _store(tools: ProjectTools) -> ModelStore:
    """The model store; a bucket is asked once, where it is usually asked for half a minute."""
    from ctflow.lib.user_cache import cache_root
    from ctflow.model.store_url import folder_of

    place = tools.project.store.models
    if place is None or folder_of(place) is not None:
        return tools.store
    from ctflow.stores.object_store import open_store

    environ = os.environ | {"AWS_MAX_ATTEMPTS": "1"}
    return open_store(place, tools.project.store.endpoint, cache_root(os.environ), environ)


def _metadata(address: str) -> RunArtifacts:
    """A client of ML Metadata."""
    from ctflow.runners.kubeflow.metadata import Metadata

    return Metadata(address)


def _registry(tools: ProjectTools, cluster: bool, timeout: float) -> Registry:
    from ctflow.doctor.registry import Registry
    from ctflow.images.registry.credentials import Keychain
    from ctflow.images.registry.http import Host
    from ctflow.images.registry.reference import parse_reference
    from ctflow.rest.patience import Patience

    images = tools.project.images
    steps = tools.steps()
    pushed = cluster and bool(steps)
    if images.registry is None:
        return Registry(None, "", pushed=pushed)
    image = parse_reference(f"{images.registry.rstrip('/')}/{steps[0].name if steps else 'x'}")
    host = Host(image.host, Keychain(os.environ), images.insecure, Patience(1), (timeout, timeout))
    return Registry(host, image.repository, pushed=pushed)


def _kubeflow(tools: ProjectTools, cluster: bool, timeout: float) -> KubeflowPipelines:
    from ctflow.doctor.kfp import KubeflowPipelines

    config = tools.project.kubeflow

    def connect() -> Kfp:
        from ctflow.wiring.kubeflow import kfp

        server = kfp(tools)
        _quick(server.api, timeout)
        return server

    return KubeflowPipelines(
        connect,
        config.host,
        config.pipeline or tools.project.project,
        "the kubeconfig's login" if config.host == "kubernetes" else _who(config.auth),
        needed=cluster,
    )


def _quick(api: Api, timeout: float) -> Api:
    """Asked once: the doctor tells of what fails now."""
    from ctflow.rest.patience import Patience

    api.patience, api.timeout = Patience(1), (timeout, timeout)
    return api


def _who(auth: KubeflowAuth) -> str:
    """Who asks Kubeflow Pipelines, in words; the order is that of ``connection.credentials``."""
    from ctflow.runners.kubeflow.credentials import VOLUME

    if auth.token_env:
        return f"the token in {auth.token_env}"
    if auth.token_command:
        return f"the token of `{auth.token_command[0]}`"
    if auth.token_file:
        return f"the token in {auth.token_file}"
    if auth.cookie_env:
        return f"the cookies in {auth.cookie_env}"
    if auth.header_env:
        return f"{auth.header} from {auth.header_env}"
    return "the pod's service account" if Path(VOLUME).is_file() else "nobody"
