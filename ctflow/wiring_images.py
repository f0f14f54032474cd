"""Chooses and fills in what builds images; a part of ``ctflow.wiring``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError, StateError, UsageError

if TYPE_CHECKING:
    from ctflow.images.builders.engine import Engine, Target
    from ctflow.images.builders.images import ImageBuilder, Provenance
    from ctflow.images.image_list import Kept
    from ctflow.images.registry import OciRegistry
    from ctflow.runners.containers import ContainerPrograms
    from ctflow.wiring import Tools


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
    return registry.rstrip("/") if registry else f"ctflow.local/{tools.project.project}"


def image_builder(
    tools: Tools, *, push: bool, keep: bool = True, locked: bool = False, engine: str | None = None
) -> ImageBuilder:
    """What builds real images.

    Args:
        engine: instead of images.builder.

    Raises:
        ConfigError: pushing is wanted, and no registry is configured.
    """
    from ctflow.images.builders.bases import LOCK_NAME, Bases
    from ctflow.images.builders.images import ImageBuilder, Mode
    from ctflow.steps.environments import cache_root

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
                f"builder {name} keeps no images on this machine",
                next="push them, or try them with --check",
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
        lambda: _provenance(tools),
        os.environ,
        Mode(push, keep),
    )


def containers_of(tools: Tools, program: str, network: str | None) -> ContainerPrograms:
    """What runs the steps in containers."""
    from ctflow.model.store_url import folder_of
    from ctflow.runners.containers import ContainerPrograms
    from ctflow.steps.environments import cache_root

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


def _provenance(tools: Tools) -> Provenance:
    from ctflow.images.builders.images import Provenance
    from ctflow.scm.git_provenance import commit_time, remote_url

    try:
        head = tools.head()
    except StateError:
        return Provenance()
    # A dirty tree's images are told apart: their revision names what they were made beside.
    revision = f"{head.sha}-dirty" if head.dirty else head.sha
    return Provenance(remote_url(tools.root), revision, commit_time(tools.root))


def list_images(tools: Tools) -> list[Kept]:
    """The steps' images in the registry, and which are in use."""
    from ctflow.images.image_list import kept_images
    from ctflow.ports import ignore

    if tools.project.images.registry is None:
        raise ConfigError("there is no registry", next="set images.registry in ctflow.yaml")
    steps = tools.steps()
    builder = image_builder(tools, push=False, keep=False)
    used = {target.tag for target in builder.targets(steps, ignore)}
    used |= set(_named_digests(tools))
    names = [step.name for step in steps]
    return kept_images(registry_of(tools), prefix_of(tools), names, used)


def _named_digests(tools: Tools) -> Iterator[str]:
    """The image digests that releases (in any branch) and compiled packages name."""
    import re

    digest = re.compile(rb"sha256:[0-9a-f]{64}")
    for folder, pattern in ((tools.root / "deploy", "*"), (tools.places["packages"], "*")):
        for file in folder.rglob(pattern) if folder.is_dir() else ():
            if file.is_file():
                yield from (found.decode() for found in digest.findall(file.read_bytes()))
    from ctflow.scm.git_provenance import texts_of_history

    for text in texts_of_history(tools.root, "deploy"):
        yield from (found.decode() for found in digest.findall(text))


def prune_images(tools: Tools, keep: int, *, dry_run: bool) -> list[Kept]:
    """Delete what nothing names, but for the ``keep`` newest of each step; what was deleted."""
    from ctflow.images.image_list import superfluous

    gone = superfluous(list_images(tools), keep)
    if not dry_run:
        registry = registry_of(tools)
        for one in {(one.name, one.digest): one for one in gone}.values():
            registry.delete(f"{one.name}@{one.digest}")
    return gone


def lock_bases(tools: Tools) -> tuple[Mapping[str, str], bool]:
    """Write the digests of all bases to ctflow.lock; (they, whether it changed)."""
    from ctflow.images.builders.bases import LOCK_NAME, write_lock
    from ctflow.images.builders.dockerfile import bases
    from ctflow.images.registry import parse_reference
    from ctflow.steps.context import DOCKERFILE

    images = tools.project.images
    registry = registry_of(tools)
    wanted = {images.base}
    for step in tools.steps():
        text = (step.folder / DOCKERFILE).read_text(encoding="utf-8-sig")
        wanted.update(bases(text, {**images.args, "BASE": images.base}))
    digests: dict[str, str] = {}
    for name in sorted(wanted):
        if parse_reference(name).digest is None:
            digest = registry.digest(name)
            if digest is None:
                raise ConfigError(f"the base image {name} is not there", next="correct images.base")
            digests[name] = digest
    return digests, write_lock(tools.root / LOCK_NAME, digests)


def touched(tools: Tools, rev: str, only: Sequence[str]) -> list[str]:
    """The steps that changes since ``rev`` touch: their folders, includes, and what all share."""
    from ctflow.images.builders.bases import LOCK_NAME
    from ctflow.scm.git_provenance import changed_since, text_at

    changed = changed_since(tools.root, rev)
    steps = [step for step in tools.steps() if not only or step.name in only]
    root = tools.root.resolve()
    if root / LOCK_NAME in changed:
        return [step.name for step in steps]
    configured: set[str] = set()
    if tools.settings.file.resolve() in changed:
        before = _image_settings(text_at(root, rev, tools.settings.file.name))
        now = _image_settings(tools.settings.file.read_bytes())
        if before[0] != now[0]:
            return [step.name for step in steps]
        configured = {name for name in {**before[1], **now[1]}
                      if before[1].get(name) != now[1].get(name)}  # fmt: skip
    found = []
    for step in steps:
        places = [step.folder.resolve(), *(path.resolve() for path in step.include)]
        if step.name in configured or any(
            path == place or place in path.parents for path in changed for place in places
        ):
            found.append(step.name)
    return found


def _image_settings(data: bytes | None) -> tuple[Any, dict[str, Any]]:
    """(what of ctflow.yaml all images depend on, the steps' own settings)."""
    import yaml

    try:
        whole = yaml.safe_load(data or b"")
    except yaml.YAMLError:
        whole = None
    if not isinstance(whole, dict):
        return None, {}
    images = whole.get("images") or {}
    shared = {key: images.get(key) for key in ("base", "args", "platforms", "registry")}
    steps = whole.get("steps") or {}
    return shared, steps if isinstance(steps, dict) else {}
