"""``ctflow.yaml`` as frozen models: what may be said. ``settings`` reads and merges it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ctflow.config.gate_rules import GateRule
from ctflow.config.section import Section, task_output
from ctflow.model.store_url import check_endpoint, check_place

#: What Kubernetes takes as the name of an InferenceService.
KSERVE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: The name becomes part of a host name (``digits-predictor-...``), whose label has 63 characters.
KSERVE_NAME_MAX = 40

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB|TB)", re.IGNORECASE)
_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def check_name(name: str, what: str = "a project name") -> str:
    """Return ``name`` if KServe takes it as a name.

    Raises:
        ValueError: with what a valid name looks like.
    """
    if not KSERVE_NAME.fullmatch(name) or len(name) > KSERVE_NAME_MAX:
        raise ValueError(
            f"{name!r} is not {what}: KServe wants lower-case letters, digits and '-', a letter "
            f"first, no '-' last, at most {KSERVE_NAME_MAX} characters"
        )
    return name


def seconds(duration: str) -> float:
    """``"5m"`` -> 300.0; units ms, s, m, h. Raises ValueError for anything else."""
    match = _DURATION.fullmatch(duration.strip())
    if not match:
        raise ValueError(f"{duration!r} is not a duration such as 30s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def size_in_bytes(size: str) -> int:
    """``"20GB"`` -> 20000000000; units kB, MB, GB, TB. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(size.strip())
    if not match:
        raise ValueError(f"{size!r} is not a size such as 500MB, 20GB or 1.5TB")
    return round(float(match[1]) * _BYTES[match[2].lower()])


class ImagesConfig(Section):
    """Where the steps' images live and what they start from."""

    registry: str | None = Field(None, description="Registry and path: ghcr.io/acme/digits")
    base: str = Field("python:3.11-slim", description="The steps' base image (build argument BASE)")
    builder: Literal["auto", "local", "docker", "podman", "buildah", "buildctl", "layers"] = Field(
        "auto", description="What builds; local: no images, layers: images without an engine"
    )
    insecure: bool = Field(False, description="Speak plain HTTP to the registry")
    args: dict[str, str] = Field(default_factory=dict, description="Build arguments")
    platforms: tuple[str, ...] = Field(
        (), description="Target platforms, such as linux/amd64; default the builder's own"
    )
    secrets: tuple[str, ...] = Field(
        (), description="Build secrets: names of environment variables, never values"
    )
    cache: str | None = Field(
        None, description="Repository that build caches are kept in: ghcr.io/acme/digits/cache"
    )
    parallel: int = Field(4, ge=1, le=64, description="How many steps are built at the same time")

    @field_validator("args")
    @classmethod
    def _args(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a build argument")
            if name == "BASE":
                raise ValueError("the build argument BASE is images.base; set that")
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @field_validator("platforms")
    @classmethod
    def _platforms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not _PLATFORM.fullmatch(one):
                raise ValueError(f"{one!r} is not a platform such as linux/amd64")
        return value


class StepConfig(Section):
    """One step; every folder under ``steps/`` with a Dockerfile is one without being named."""

    folder: str | None = Field(None, description="The step's folder; default steps/<name>")
    include: tuple[str, ...] = Field(
        (), description="Files and folders of the project that go into this step's context too"
    )


class KubeflowConfig(Section):
    """Where Kubeflow Pipelines is."""

    host: str | None = Field(None, description="URL of the KFP API")
    namespace: str | None = Field(None, description="Namespace of the runs in a multi-user install")
    experiment: str | None = Field(None, description="Experiment of the runs; default the project")


class ModelConfig(Section):
    """Which output of the pipeline is the model."""

    artifact: str = Field("train.model", description="task.output")
    format: str = Field("sklearn", min_length=1, description="KServe's modelFormat")

    @field_validator("artifact")
    @classmethod
    def _task_output(cls, value: str) -> str:
        return task_output(value)


class StoreConfig(Section):
    """Where models are kept under their content digest, and how much runs may keep."""

    models: str | None = Field(
        None,
        description="A folder, or a URL: s3://, gs:// or az:// and bucket/prefix; default .ctflow/",
    )
    endpoint: str | None = Field(
        None,
        description="Address of the object store's server where it is not the provider's own, such"
        " as https://minio.acme.dev; http:// is spoken only if it is written here",
    )
    cache: str = Field(
        "20GB",
        description="Bound on the files of local runs, which the cache reuses; least used go first",
    )

    @field_validator("models")
    @classmethod
    def _models(cls, value: str | None) -> str | None:
        return None if value is None else check_place(value)

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint(value)

    @field_validator("cache")
    @classmethod
    def _cache(cls, value: str) -> str:
        size_in_bytes(value)
        return value


class ForgeConfig(Section):
    """Where pull requests are opened. ``none``: a promotion is a branch."""

    kind: Literal["github", "gitlab", "gitea", "none"] = Field("none", description="Which forge")
    repository: str | None = Field(None, description="owner/name")
    changes: Literal["push", "pull_request"] = Field(
        "push",
        description="How holds, rollbacks and approved promotions reach the default branch: pushed,"
        " or merged by the forge, where only pull requests may change it",
    )

    @model_validator(mode="after")
    def _named(self) -> ForgeConfig:
        if self.kind == "none" and self.changes != "push":
            raise ValueError(f"changes: {self.changes} needs a forge: set 'kind'")
        if self.kind != "none" and not self.repository:
            raise ValueError(f"forge kind {self.kind} needs 'repository: owner/name'")
        return self


class RolloutConfig(Section):
    """How traffic moves to a new release."""

    canary: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (), description="Percent of the traffic at each step, such as [10, 50, 100]"
    )
    pause: str = Field("0s", description="How long each step is held, such as 5m")

    @field_validator("pause")
    @classmethod
    def _pause(cls, value: str) -> str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _rises(self) -> RolloutConfig:
        if list(self.canary) != sorted(set(self.canary)):
            raise ValueError("canary percentages must rise")
        return self


class EnvironmentConfig(Section):
    """A place that serves a model."""

    after: str | None = Field(None, description="Only what this environment serves may come here")
    merge: Literal["auto", "review"] = Field("review", description="Who merges a promotion")
    approvals: int = Field(1, ge=1, le=10, description="How many people must approve")
    self: bool = Field(True, description="Whether who proposed it, or made its commit, may approve")
    rollout: RolloutConfig = RolloutConfig()
    port: int | None = Field(
        None, ge=1024, le=65535, description="Local serving: the port on 127.0.0.1"
    )

    @model_validator(mode="after")
    def _by_people(self_) -> EnvironmentConfig:  # noqa: N805 (`self` is a field)
        if self_.merge == "auto" and (self_.approvals > 1 or not self_.self):
            raise ValueError("'merge: auto' asks nobody; 'approvals' and 'self' go with a review")
        return self_


class ServingConfig(Section):
    """The predictor: how the model is served."""

    folder: str = Field("serving", description="Holds predictor.py, requirements.txt, golden.json")
    predictor: str = Field("predictor.py", description="Defines a kserve.Model class `Predictor`")
    golden: str = Field("golden.json", description="Requests with expected answers")
    timeout: str = Field("60s", description="How long a model server may take to start")

    @field_validator("timeout")
    @classmethod
    def _timeout(cls, value: str) -> str:
        if not seconds(value):
            raise ValueError("a model server needs some time to start, such as 60s")
        return value


class Project(Section):
    """A project: the whole of ``ctflow.yaml``."""

    project: str = Field(description="The project's name; a valid KServe name")
    branch: str = Field("master", min_length=1, description="The default branch")
    pipeline: str = Field("pipeline.py:pipeline", description="file.py:function, a KFP pipeline")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Defaults for a run")
    images: ImagesConfig = ImagesConfig()
    steps: dict[str, StepConfig] = Field(
        default_factory=dict, description="Steps that need more than a folder under steps/"
    )
    packages: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Local runs without an engine: what to install instead of a base image of"
        " Python components, by the image",
    )
    pass_env: tuple[str, ...] = Field(
        (), description="Variables that local steps and model servers get besides the usual ones"
    )
    runner: Literal["local", "kubeflow"] = Field("local", description="Where pipelines run")
    kubeflow: KubeflowConfig = KubeflowConfig()
    model: ModelConfig = ModelConfig()
    gate: tuple[GateRule, ...] = Field((), description="The rules; every one must pass")
    store: StoreConfig = StoreConfig()
    forge: ForgeConfig = ForgeConfig()
    serving: ServingConfig = ServingConfig()
    environments: dict[str, EnvironmentConfig] = Field(
        default_factory=lambda: {"staging": EnvironmentConfig()},
        min_length=1,
        description="Places that serve a model",
    )

    @field_validator("project")
    @classmethod
    def _project(cls, value: str) -> str:
        return check_name(value)

    @field_validator("pass_env")
    @classmethod
    def _pass_env(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @field_validator("pipeline")
    @classmethod
    def _pipeline(cls, value: str) -> str:
        path, _, function = value.rpartition(":")
        if not path.endswith(".py") or not function.isidentifier():
            raise ValueError(f"{value!r} is not file.py:function")
        return value

    @field_validator("gate")
    @classmethod
    def _gate(cls, value: tuple[GateRule, ...]) -> tuple[GateRule, ...]:
        meant = {rule.metric: rule.of for rule in value}
        for rule in value:
            if rule.of != meant[rule.metric]:
                raise ValueError(
                    f"{rule.metric!r} is two metrics by what 'of' says; give each a name of its own"
                )
        return value

    @model_validator(mode="after")
    def _environments(self) -> Project:
        for name, environment in self.environments.items():
            check_name(name, "an environment's name")
            if environment.after is not None and environment.after not in self.environments:
                raise ValueError(
                    f"environment {name} comes after {environment.after!r}, which is none of "
                    f"{', '.join(self.environments)}"
                )
        for name in self.environments:
            seen, at = {name}, self.environments[name].after
            while at is not None:
                if at in seen:
                    raise ValueError(f"environment {name} comes after itself")
                seen.add(at)
                at = self.environments[at].after
        return self

    def first_environments(self) -> tuple[str, ...]:
        """The environments that a new model may enter: those with no ``after``."""
        return tuple(name for name, e in self.environments.items() if e.after is None)
