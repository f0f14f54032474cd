"""The Kubernetes API server that a kubeconfig, or the pod that this runs in, names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.secrets import KNOWN
from ctflow.lib.text import one_line
from ctflow.rest.client import Credentials


@dataclass(frozen=True)
class ApiServer:
    """How to reach it.

    Attributes:
        name: for messages.
        verify: the file of its certificate authority, or whether certificates are checked.
        certificate: the files of the client's certificate and key, where it has one.
    """

    name: str
    url: str
    credentials: Credentials
    verify: bool | str = True
    certificate: tuple[str, str] | None = None


class _Login:
    """The kubeconfig's login: the client library renews what it can."""

    def __init__(self, configuration: Any, context: str | None, environ: Mapping[str, str]) -> None:
        self._configuration, self._context, self._environ = configuration, context, environ
        self._last = ""

    def headers(self) -> Mapping[str, str]:
        token = self._configuration.get_api_key_with_prefix("authorization")
        if not token:
            return {}
        self._last = str(token)
        KNOWN.add(self._last, self._last.removeprefix("Bearer ").strip())
        return {"Authorization": self._last}

    def renew(self) -> bool:
        _load(self._configuration, self._context, self._environ)
        return bool(self._configuration.get_api_key_with_prefix("authorization") != self._last)


def api_server(context: str | None, environ: Mapping[str, str] = os.environ) -> ApiServer:
    """The API server of the kubeconfig's context, or of the pod that this runs in.

    Raises:
        ConfigError: the client library is not installed, or there is no such context.
    """
    try:
        from kubernetes.client import Configuration
    except ImportError:
        raise ConfigError(
            "the Kubernetes client is not installed", next="install ctflow[cluster]"
        ) from None
    configuration = Configuration()
    _load(configuration, context, environ)
    verify: bool | str = configuration.ssl_ca_cert or True
    if not configuration.verify_ssl:
        verify = False
    files = (configuration.cert_file, configuration.key_file)
    return ApiServer(
        f"Kubernetes at {configuration.host}",
        str(configuration.host).rstrip("/"),
        _Login(configuration, context, environ),
        verify,
        (str(files[0]), str(files[1])) if all(files) else None,
    )


def _load(configuration: Any, context: str | None, environ: Mapping[str, str]) -> None:
    from kubernetes import config

    try:
        if context is None and "KUBERNETES_SERVICE_HOST" in environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            # Named: the library looks at the variable only once, when it is imported.
            config.load_kube_config(
                environ.get("KUBECONFIG") or None,
                context=context,
                client_configuration=configuration,
            )
    except config.ConfigException as error:
        raise ConfigError(
            f"no Kubernetes API server: {one_line(str(error), 200)}",
            next="set KUBECONFIG, or the context's name",
        ) from None
    except OSError as error:
        raise OutsideError(f"cannot read the kubeconfig: {one_line(str(error), 200)}") from None
