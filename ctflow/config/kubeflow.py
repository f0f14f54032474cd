"""The part of ``ctflow.yaml`` about Kubeflow Pipelines."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ctflow.config.section import Section

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,80}")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOW = ("token_env", "token_command", "token_file", "cookie_env", "header_env")


class KubeflowAuth(Section):
    """Who asks Kubeflow Pipelines: at most one of these. Values are never in the file."""

    token_env: str | None = Field(
        None, description="Environment variable that holds a bearer token"
    )
    token_command: tuple[str, ...] = Field(
        (),
        description="Command that prints a bearer token, such as [kubectl, create, token, ctflow];"
        " run again before the token ends",
    )
    token_file: str | None = Field(
        None, description="File that holds a bearer token, such as a service account's volume"
    )
    cookie_env: str | None = Field(
        None, description="Environment variable that holds a session's cookies, as name=value"
    )
    header: str = Field(
        "kubeflow-userid", description="With header_env: the header that names the user"
    )
    header_env: str | None = Field(
        None, description="Environment variable that holds that header's value"
    )

    @field_validator("token_env", "cookie_env", "header_env")
    @classmethod
    def _variables(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            # What was written may be the secret itself: it is not repeated.
            raise ValueError("write the name of an environment variable, never the value itself")
        return value

    @field_validator("header")
    @classmethod
    def _header(cls, value: str) -> str:
        if not _HEADER.fullmatch(value):
            raise ValueError(f"{value!r} is not the name of a header")
        return value

    @model_validator(mode="after")
    def _one(self) -> KubeflowAuth:
        given = [name for name in _HOW if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are two ways; use one")
        return self


class KubeflowConfig(Section):
    """Where Kubeflow Pipelines is, and how it runs the pipeline."""

    host: str | None = Field(
        None,
        description="URL of the KFP API, or `kubernetes` to reach it through the Kubernetes API",
    )
    context: str | None = Field(
        None, description="With host: kubernetes: the kubeconfig's context; default: its current"
    )
    service: str = Field(
        "kubeflow/ml-pipeline:8888",
        description="With host: kubernetes: namespace/service:port of the KFP API",
    )
    namespace: str | None = Field(None, description="Namespace of the runs in a multi-user install")
    pipeline: str | None = Field(
        None, min_length=1, max_length=128, description="The pipeline's name there; default: the"
        " project's name",
    )  # fmt: skip
    experiment: str | None = Field(
        None, min_length=1, max_length=128,
        description="Experiment of the runs; default: the project's name",
    )  # fmt: skip
    service_account: str | None = Field(
        None, description="Kubernetes service account of the runs; default: the server's"
    )
    pipeline_root: str | None = Field(
        None, description="Where the runs' artifacts go, such as s3://bucket/path; default: the"
        " server's",
    )  # fmt: skip
    image: str | None = Field(
        None, description="ctflow's own image, which gate and promote run in inside the pipeline;"
        " default: the released one of this version",
    )  # fmt: skip
    auth: KubeflowAuth = KubeflowAuth()
    ca: str | None = Field(
        None, description="File with the certificate authority that signed the server's certificate"
    )
    verify: bool = Field(True, description="Check the server's certificate")

    @field_validator("host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is None or value == "kubernetes":
            return value
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            known = False
        if not known:
            raise ValueError("write a URL such as https://kfp.acme.dev, or `kubernetes`")
        if parts.username is not None:
            raise ValueError("a login in the URL would be in git; use kubeflow.auth")
        if parts.query or parts.fragment:
            raise ValueError("write the URL without what follows `?` or `#`")
        return value.rstrip("/")

    @field_validator("service")
    @classmethod
    def _service(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+:[0-9]{1,5}", value):
            raise ValueError(f"{value!r} is not namespace/service:port")
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str | None) -> str | None:
        if value is not None and not _NAMESPACE.fullmatch(value):
            raise ValueError(f"{value!r} is not the name of a Kubernetes namespace")
        return value
