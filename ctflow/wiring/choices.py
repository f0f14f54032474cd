"""What ctflow.yaml can choose, by kind; a new adapter is an entry here.

Each entry makes an adapter from a project's tools, and imports it only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from ctflow.errors import ConfigError

if TYPE_CHECKING:
    from ctflow.ports import Forge, ModelStore, Runner, Runs, Server
    from ctflow.wiring import ProjectTools

_T = TypeVar("_T")


def choose(choices: Mapping[str, _T], key: str, kind: str) -> _T:
    """What ``key`` of ctflow.yaml names; ConfigError where this version does not have it."""
    if kind not in choices:
        raise ConfigError(
            f"{key} {kind!r} is not in this version", next=f"use one of: {', '.join(choices)}"
        )
    return choices[kind]


def _local_runner(tools: ProjectTools) -> Runner:
    """Runs packages on this machine."""
    from ctflow.config.values import size_in_bytes
    from ctflow.runners.local.runner import LocalRunner

    return LocalRunner(
        tools.settings.state,
        tools.workspaces,
        tools.environments,
        containers=tools.containers,
        bound=size_in_bytes(tools.project.store.cache),
        pass_env=tools.project.pass_env,
        packages=tools.project.packages,
    )


def _local_runs(tools: ProjectTools) -> Runs:
    """The record of this machine's runs."""
    return tools.local_runs


def _kubeflow_runner(tools: ProjectTools) -> Runner:
    """Runs packages on Kubeflow Pipelines, which keeps their record."""
    from ctflow.wiring.kubeflow import runner

    return runner(tools)


def _kubeflow_runs(tools: ProjectTools) -> Runs:
    """What Kubeflow Pipelines has on record."""
    return tools.runner


def _no_forge(tools: ProjectTools) -> Forge:
    """A promotion is a branch."""
    from ctflow.forges.no_forge import NoForge

    return NoForge()


def _folder_store(tools: ProjectTools, place: str) -> ModelStore:
    """A folder, relative to the project's."""
    from ctflow.model.store_url import folder_of
    from ctflow.stores.folder_store import FolderStore

    return FolderStore((tools.root / (folder_of(place) or "")).resolve())


def _object_store(tools: ProjectTools, place: str) -> ModelStore:
    """A bucket; what is fetched lies in the user's cache."""
    from ctflow.lib.user_cache import cache_root
    from ctflow.stores.object_store import open_store

    return open_store(
        place, tools.project.store.endpoint, cache_root(os.environ), project=tools.settings.state
    )


def _local_target(tools: ProjectTools) -> Server:
    """Model servers on this machine."""
    from ctflow.lib.durations import seconds
    from ctflow.serving.local import LocalServer

    return LocalServer(
        tools.places["serving"],
        tools.environments,
        ready_timeout=seconds(tools.project.serving.timeout),
        pass_env=tools.project.pass_env,
    )


#: ``runner``: what runs packages, and the record of its runs without what runs them.
RUNNERS: dict[str, Callable[[ProjectTools], Runner]] = {
    "local": _local_runner,
    "kubeflow": _kubeflow_runner,
}
RUNS: dict[str, Callable[[ProjectTools], Runs]] = {"local": _local_runs, "kubeflow": _kubeflow_runs}
#: ``forge.kind``: where promotions are reviewed.
FORGES: dict[str, Callable[[ProjectTools], Forge]] = {"none": _no_forge}
#: ``store.models``, by the scheme of its URL (``file`` for a path): where models are kept.
STORES: dict[str, Callable[[ProjectTools, str], ModelStore]] = {
    "file": _folder_store,
    "s3": _object_store,
    "gs": _object_store,
    "az": _object_store,
}
#: ``environments.NAME.target``: what serves.
TARGETS: dict[str, Callable[[ProjectTools], Server]] = {"local": _local_target}
