"""The steps' images that a registry holds, and their bases: the ``ImageList`` port."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.images.builders.bases import write_lock
from ctflow.images.builders.dockerfile import bases
from ctflow.images.builders.images import ImageBuilder
from ctflow.images.registry import Broken, OciRegistry, parse_reference
from ctflow.model import RegistryImage
from ctflow.ports import StepSource, Watch
from ctflow.steps.context import DOCKERFILE

_ASKING = 16


class RegistryImages:
    """The ``ImageList`` port for the steps' images in a registry.

    Args:
        prefix: what the images' names start with.
        builder: knows the tags of the steps as they are now.
        base: the base image that steps get which name none.
        arguments: the build arguments.
    """

    def __init__(
        self,
        registry: OciRegistry,
        prefix: str,
        builder: ImageBuilder,
        base: str,
        arguments: Mapping[str, str],
    ) -> None:
        self._registry = registry
        self._prefix = prefix
        self._builder = builder
        self._base = base
        self._arguments = arguments

    def in_registry(
        self, steps: Sequence[StepSource], used: Collection[str], watch: Watch
    ) -> list[RegistryImage]:
        """All content-tagged images of these steps, of each step the newest first."""
        now = {target.tag for target in self._builder.targets(steps, watch)}
        names = [step.name for step in steps]
        return images_in_registry(self._registry, self._prefix, names, now.union(used))

    def delete(self, image: RegistryImage) -> None:
        """Delete an image with all its tags."""
        self._registry.delete(f"{image.name}@{image.digest}")

    def lock(self, steps: Sequence[StepSource], file: Path) -> tuple[Mapping[str, str], bool]:
        """Write the digests of all bases to a file; (they, whether it changed)."""
        wanted = {self._base}
        for step in steps:
            text = (step.folder / DOCKERFILE).read_text(encoding="utf-8-sig")
            wanted.update(bases(text, {**self._arguments, "BASE": self._base}))
        digests: dict[str, str] = {}
        for name in sorted(wanted):
            if parse_reference(name).digest is None:
                digest = self._registry.digest(name)
                if digest is None:
                    raise ConfigError(
                        f"the base image {name} does not exist", next="correct images.base"
                    )
                digests[name] = digest
        return digests, write_lock(file, digests)


def images_in_registry(
    registry: OciRegistry, prefix: str, steps: Sequence[str], used: Iterable[str]
) -> list[RegistryImage]:
    """All content-tagged images of these steps; of each step the newest first.

    Args:
        used: digests and tags that something names.
    """
    names = frozenset(used)
    with ThreadPoolExecutor(_ASKING) as pool:
        tags = list(pool.map(lambda step: registry.tags(f"{prefix}/{step}"), steps))
        wanted = [
            (step, tag)
            for step, some in zip(steps, tags, strict=True)
            for tag in some
            if tag.startswith("ctx-")
        ]
        found = list(pool.map(lambda one: _look(registry, prefix, one[0], one[1], names), wanted))
    there = [one for one in found if one is not None]
    there.sort(key=lambda one: (one.when, one.tag), reverse=True)
    return sorted(there, key=lambda one: one.step)


def _look(
    registry: OciRegistry, prefix: str, step: str, tag: str, used: frozenset[str]
) -> RegistryImage | None:
    name = f"{prefix}/{step}"
    try:
        manifest = registry.manifest(f"{name}:{tag}")
    except Broken:
        return None  # a damaged tag: there is no image to speak of
    if manifest is None:
        return None  # deleted meanwhile
    when = ""
    if "config" in manifest.body:
        config = json.loads(registry.blob(name, str(manifest.body["config"]["digest"])))
        when = str(config.get("created") or "")[:20]
    return RegistryImage(
        step, name, tag, manifest.digest, when, bool({tag, manifest.digest} & used)
    )
