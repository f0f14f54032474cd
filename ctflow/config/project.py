"""``ctflow.yaml`` as frozen models: what may be said. ``settings`` reads and merges it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ctflow.config.gate_rules import GateRule
from ctflow.config.kubeflow import KubeflowConfig
from ctflow.config.schedules import ScheduleConfig
from ctflow.config.section import Section, task_output
from ctflow.config.values import check_name, size_in_bytes
from ctflow.lib.durations import seconds
from ctflow.lib.requirements import is_requirement
from ctflow.model.store_url import check_endpoint, check_place

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")


class ImagesConfig(Section):
    """The steps' images: their registry, base and builder."""

    registry: str | None = Field(None, description="Registry and path, such as ghcr.io/acme/digits")
    base: str = Field("python:3.11-slim", description="The steps' base image (build argument BASE)")
    builder: Literal["auto", "local", "docker", "podman", "buildah", "buildctl", "layers"] = Field(
        "auto", description="What builds the images; local: builds none; layers: needs no engine"
    )
    insecure: bool = Field(False, description="Use plain HTTP for the registry")
    args: dict[str, str] = Field(default_factory=dict, description="Build arguments")
    platforms: tuple[str, ...] = Field(
        (), description="Target platforms, such as linux/amd64; default: the builder's platform"
    )
    secrets: tuple[str, ...] = Field(
        (), description="Build secrets: names of environment variables, never values"
    )
    cache: str | None = Field(
        None, description="Repository for build caches, such as ghcr.io/acme/digits/cache"
    )
    parallel: int = Field(4, ge=1, le=64, description="How many steps to build at the same time")

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
    """One step. Each folder under ``steps/`` with a Dockerfile is a step even without a key."""

    folder: str | None = Field(None, description="The step's folder; default: steps/<name>")
    include: tuple[str, ...] = Field(
        (), description="More files and folders of the project for this step's context"
    )


class ModelConfig(Section):
    """Which output of the pipeline is the model."""

    artifact: str = Field("train.model", description="task.output, such as train.model")
    format: str = Field("sklearn", min_length=1, description="KServe's modelFormat")

    @field_validator("artifact")
    @classmethod
    def _task_output(cls, value: str) -> str:
        return task_output(value)


class StoreConfig(Section):
    """Where models are stored, and how much disk space runs may use."""

    models: str | None = Field(
        None,
        description="A folder, or s3://, gs:// or az:// with bucket/prefix; default: in .ctflow/",
    )
    endpoint: str | None = Field(
        None,
        description="Address of the object store's server if it is not the provider's, such as"
        " https://minio.acme.dev; plain HTTP only with http://",
    )
    cache: str = Field(
        "20GB",
        description="Disk space for the files of local runs; the least recently used go first",
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
    """Where pull requests are opened. ``none``: a promotion is only a branch."""

    kind: Literal["github", "gitlab", "gitea", "none"] = Field(
        "none", description="The kind of forge"
    )
    repository: str | None = Field(None, description="owner/name")
    changes: Literal["push", "pull_request"] = Field(
        "push",
        description="How holds, rollbacks and approved promotions reach the default branch: by a"
        " push, or by a pull request, if the branch allows no push",
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
    pause: str = Field("0s", description="How long each step lasts, such as 5m")

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

    after: str | None = Field(
        None, description="Accept only the model that this environment serves"
    )
    merge: Literal["auto", "review"] = Field(
        "review", description="auto: merge what passes the gate; review: a person approves"
    )
    approvals: int = Field(1, ge=1, le=10, description="How many people must approve")
    self: bool = Field(True, description="Whether the proposer and the commit's author may approve")
    target: Literal["local", "kserve"] = Field(
        "local", description="What serves: model servers on this machine, or KServe on a cluster"
    )
    rollout: RolloutConfig = RolloutConfig()
    port: int | None = Field(
        None,
        ge=1024,
        le=65535,
        description="The port on 127.0.0.1 for local serving; default: a free one",
    )

    @model_validator(mode="after")
    def _by_people(self_) -> EnvironmentConfig:  # noqa: N805 (`self` is a field)
        if self_.merge == "auto" and (self_.approvals > 1 or not self_.self):
            raise ValueError(
                "'merge: auto' needs no approval; use 'approvals' and 'self' with merge: review"
            )
        return self_


class ServingConfig(Section):
    """What serves the model: the project's own predictor, or the standard runtime of its format."""

    runtime: Literal["auto", "predictor", "standard"] = Field(
        "auto",
        description="predictor: the project's own code; standard: KServe's server of model.format;"
        " auto: the predictor where the folder has one",
    )
    requirements: tuple[str, ...] = Field(
        (),
        description="What a standard runtime on this machine installs, such as"
        " scikit-learn==1.7.2; default what the model was made with",
    )
    folder: str = Field(
        "serving",
        description="Folder with predictor.py, requirements.txt, golden.json and, for an image of"
        " it, Dockerfile",
    )
    include: tuple[str, ...] = Field(
        (), description="More files and folders of the project that the predictor needs"
    )
    predictor: str = Field(
        "predictor.py", description="File with the class `Predictor`, a kserve.Model"
    )
    golden: str = Field("golden.json", description="File of requests with expected answers")
    timeout: str = Field("60s", description="How long a model server may take to start")

    @field_validator("requirements")
    @classmethod
    def _requirements(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not is_requirement(line):
                raise ValueError(f"{line!r} is not a package such as scikit-learn==1.7.2")
        return value

    @field_validator("timeout")
    @classmethod
    def _timeout(cls, value: str) -> str:
        if not seconds(value):
            raise ValueError("the timeout must be above 0, such as 60s")
        return value


class Project(Section):
    """A project: the whole of ``ctflow.yaml``."""

    project: str = Field(description="The project's name; a valid KServe name")
    branch: str = Field("master", min_length=1, description="The default branch")
    pipeline: str = Field("pipeline.py:pipeline", description="file.py:function, a KFP pipeline")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Default parameters of a run"
    )
    images: ImagesConfig = ImagesConfig()
    steps: dict[str, StepConfig] = Field(
        default_factory=dict,
        description="Steps with settings, or with a folder that is not under steps/",
    )
    packages: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="For local runs without an engine: the packages of a base image of Python"
        " components, for each image",
    )
    pass_env: tuple[str, ...] = Field(
        (), description="More environment variables for local steps and model servers"
    )
    runner: Literal["local", "kubeflow"] = Field("local", description="Where pipelines run")
    kubeflow: KubeflowConfig = KubeflowConfig()
    schedules: dict[str, ScheduleConfig] = Field(
        default_factory=dict, description="When the pipeline runs by itself"
    )
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

    @field_validator("schedules")
    @classmethod
    def _schedules(cls, value: dict[str, ScheduleConfig]) -> dict[str, ScheduleConfig]:
        for name in value:
            check_name(name, "a schedule's name")
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
