"""Chooses and fills in what builds images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError, StateError, UsageError
from ctflow.model import LOCAL_IMAGES

if TYPE_CHECKING:
    from ctflow.images.builders.engine import Engine, Target
    from ctflow.images.builders.images import ImageBuilder, Provenance
    from ctflow.images.image_list import RegistryImages
    from ctflow.images.registry import OciRegistry
    from ctflow.ports import ImageSource, PredictorImages
    from ctflow.runners.containers import ContainerPrograms
    from ctflow.tools import Tools


def registry_of(tools: Tools) -> OciRegistry:
    """The client of all registries; plain HTTP to this machine's, and to images.registry if so."""
    from ctflow.images.registry import OciRegistry, parse_reference

    images = tools.project.images
    insecure: frozenset[str] = frozenset()
    if images.insecure and images.registry:
        insecure = frozenset({parse_reference(f"{images.registry}/x").host})
    return OciRegistry(os.environ, insecure)


def prefix_of(tools: Tools) -> str:
    """What the images' names start with."""
    registry = tools.project.images.registry
    return registry.rstrip("/") if registry else f"{LOCAL_IMAGES}/{tools.project.project}"


def image_builder(
    tools: Tools,
    *,
    push: bool,
    keep: bool = True,
    locked: bool = False,
    engine: str | None = None,
    commit: str = "",
) -> ImageBuilder:
    """What builds real images.

    Args:
        engine: instead of images.builder.
        commit: what the images are made from, instead of the checkout.

    Raises:
        ConfigError: pushing is wanted, and no registry is configured.
    """
    from ctflow.images.builders.bases import LOCK_NAME, Bases
    from ctflow.images.builders.images import ImageBuilder, Mode
    from ctflow.lib.user_cache import cache_root

    images = tools.project.images
    if push and images.registry is None:
        raise ConfigError(
            "there is no registry to push images to",
            next="set images.registry in ctflow.yaml, or build with --no-push",
        )
    registry = registry_of(tools)
    folder = tools.places["images"]
    cache = cache_root(os.environ) / "images"
    name = engine or images.builder

    def find(targets: Sequence[Target]) -> Engine:
        from ctflow.images.builders.find import find_engine
        from ctflow.images.builders.layers import LayersEngine

        if name in ("layers", "buildctl") and keep and not push:
            raise UsageError(
                f"builder {name} cannot leave images on this machine",
                next="push them with --push, or only build them with --check",
            )
        return find_engine(
            name,
            os.environ,
            targets,
            (lambda: LayersEngine(registry, cache, os.environ)) if push or not keep else None,
            local=keep and not push,
            push=push,
        )

    return ImageBuilder(
        folder,
        prefix_of(tools),
        cache / "locks",
        images,
        registry,
        Bases(registry, tools.root / LOCK_NAME, folder / "bases.json", locked=locked),
        find,
        lambda: _provenance(tools, commit),
        os.environ,
        Mode(push, keep),
    )


def containers_of(tools: Tools, program: str, network: str | None) -> ContainerPrograms:
    """What runs the steps in containers."""
    from ctflow.lib.user_cache import cache_root
    from ctflow.model.store_url import folder_of
    from ctflow.runners.containers import ContainerPrograms

    if tools.project.runner != "local":
        raise UsageError("--engine is for `runner: local`", next="leave it out")
    insecure = tools.project.images.insecure
    see = [tools.settings.state]
    store = tools.project.store.models
    if store is not None:
        folder = folder_of(store)
        # What is fetched from an object store lies in the user's cache.
        see.append(
            cache_root(os.environ) / "models" if folder is None else (tools.root / folder).resolve()
        )
    return ContainerPrograms(program, see, os.environ, network=network, insecure=insecure)


def predictors(tools: Tools, workspaces: ImageSource) -> PredictorImages:
    """The predictor's images: in images.registry, or named by their content where there is none."""
    from ctflow.images.predictor import CommitPredictors

    images = tools.project.images
    local = images.registry is None or images.builder == "local"

    def builder(commit: str) -> ImageSource:
        return workspaces if local else image_builder(tools, push=True, commit=commit)

    return CommitPredictors(tools.scm, tools.project, builder, local=local)


def _provenance(tools: Tools, commit: str = "") -> Provenance:
    from ctflow.images.builders.images import Provenance
    from ctflow.scm.git_provenance import commit_time, remote_url

    if commit:
        return Provenance(remote_url(tools.root), commit, commit_time(tools.root, commit))
    try:
        head = tools.head()
    except StateError:
        return Provenance()
    # A dirty tree's images are told apart: their revision names what they were made beside.
    revision = f"{head.sha}-dirty" if head.dirty else head.sha
    return Provenance(remote_url(tools.root), revision, commit_time(tools.root))


def image_list(tools: Tools) -> RegistryImages:
    """The steps' images in the registry. ConfigError where there is none."""
    from ctflow.images.image_list import RegistryImages

    images = tools.project.images
    if images.registry is None:
        raise ConfigError("there is no registry", next="set images.registry in ctflow.yaml")
    builder = image_builder(tools, push=False, keep=False)
    return RegistryImages(registry_of(tools), prefix_of(tools), builder, images.base, images.args)
