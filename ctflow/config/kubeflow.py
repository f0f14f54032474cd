"""The part of ``ctflow.yaml`` about Kubeflow Pipelines."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ctflow.config.section import Section
from ctflow.model.store_url import check_endpoint

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


class KubeflowArtifacts(Section):
    """How the files of runs are read from here. Secrets are never in the file."""

    endpoint: str | None = Field(
        None,
        description="Address, as it is seen from here, of the S3 server that minio:// and s3://"
        " URIs of runs mean, such as http://127.0.0.1:9000; default: AWS's, or AWS_ENDPOINT_URL",
    )
    region: str | None = Field(None, description="Its region; default: the environment's")
    access_key_env: str | None = Field(
        None,
        description="Environment variable that holds its access key; default: AWS's own variables",
    )
    secret_key_env: str | None = Field(
        None, description="Environment variable that holds the access key's secret"
    )

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint(value)

    @field_validator("access_key_env", "secret_key_env")
    @classmethod
    def _variables(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            # What was written may be the secret itself: it is not repeated.
            raise ValueError("write the name of an environment variable, never the value itself")
        return value

    @model_validator(mode="after")
    def _both(self) -> KubeflowArtifacts:
        if (self.access_key_env is None) != (self.secret_key_env is None):
            raise ValueError("access_key_env and secret_key_env go together")
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
    metadata: str | None = Field(
        None,
        description="host:port of ML Metadata (the service metadata-grpc-service), as it is seen"
        " from here: what tasks read and wrote, and metrics; https://host:port for one with TLS",
    )
    artifacts: KubeflowArtifacts = KubeflowArtifacts()
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

    @field_validator("metadata")
    @classmethod
    def _metadata(cls, value: str | None) -> str | None:
        plain = (value or "").removeprefix("https://")
        if value is not None and not re.fullmatch(
            r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}", plain
        ):
            raise ValueError("write host:port, such as 127.0.0.1:8080, or https://host:port")
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str | None) -> str | None:
        if value is not None and not _NAMESPACE.fullmatch(value):
            raise ValueError(f"{value!r} is not the name of a Kubernetes namespace")
        return value
