"""From the settings to a connection: address, certificates, and who asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.rest.client import Api, Credentials, Nobody
from ctflow.runners.kubeflow.api import Json, Kfp
from ctflow.runners.kubeflow.credentials import VOLUME, FromCommand, FromFile, FromVariable

if TYPE_CHECKING:
    from ctflow.config.kubeflow import KubeflowAuth, KubeflowConfig

#: Where KFP is for pods of the same cluster, by Kubernetes' own convention.
_IN_CLUSTER = "http://ml-pipeline.{namespace}.svc.cluster.local:8888"


def connect(config: KubeflowConfig, root: Path, environ: Mapping[str, str]) -> Kfp:
    """The server that the settings name. Nothing is sent yet.

    Args:
        root: the project's folder, which relative paths are below.

    Raises:
        ConfigError: no host, or a certificate authority that cannot be read.
    """
    if config.host is None:
        raise ConfigError(
            "kubeflow.host is not set",
            next="set it to the URL of the KFP API, or to `kubernetes`",
        )
    verify: bool | str = config.verify
    if config.ca is not None and config.verify:
        file = (root / Path(config.ca).expanduser()).resolve()
        if not file.is_file():
            raise ConfigError(f"there is no file {file}", cause="kubeflow.ca names it")
        verify = str(file)
    if config.host == "kubernetes":
        api = _through_kubernetes(config, environ)
    else:
        api = Api(
            f"Kubeflow Pipelines at {config.host}",
            config.host,
            credentials(config.auth, root, environ),
            verify=verify,
        )
    api.ca_key, api.auth_key, api.said = "kubeflow.ca", "kubeflow.auth", words
    return Kfp(api, config.namespace or "")


def credentials(auth: KubeflowAuth, root: Path, environ: Mapping[str, str]) -> Credentials:
    """Who asks, as the settings say; in a pod with a token for KFP, the pod's service account."""
    if auth.token_env:
        return FromVariable(auth.token_env, environ, "Authorization", "Bearer ")
    if auth.token_command:
        return FromCommand(auth.token_command, root)
    if auth.token_file:
        return FromFile(root / Path(auth.token_file).expanduser())
    if auth.cookie_env:
        return FromVariable(auth.cookie_env, environ, "Cookie")
    if auth.header_env:
        return FromVariable(auth.header_env, environ, auth.header)
    return FromFile(Path(VOLUME)) if Path(VOLUME).is_file() else Nobody()


def _through_kubernetes(config: KubeflowConfig, environ: Mapping[str, str]) -> Api:
    """KFP's service through the proxy of the Kubernetes API, with the kubeconfig's own login."""
    from ctflow.runners.kubeflow.cluster import api_server

    namespace, _, service = config.service.partition("/")
    path = f"/api/v1/namespaces/{namespace}/services/{service}/proxy"
    server = api_server(config.context, environ)
    return Api(
        f"Kubeflow Pipelines through {server.name}",
        server.url + path,
        server.credentials,
        verify=server.verify,
        certificate=server.certificate,
    )


def words(data: Json) -> str:
    """The server's own words about an error, without its stack trace.

    JSON calls say ``message``, shorter in the first of ``details``; uploads say ``error_message``.
    """
    if not isinstance(data, dict):
        return ""
    details = data.get("details")
    if isinstance(details, list):
        for one in details:
            if isinstance(one, dict) and isinstance(one.get("message"), str) and one["message"]:
                return str(one["message"])
    for key in ("message", "error_message"):
        if isinstance(data.get(key), str):
            return str(data[key])
    return ""
