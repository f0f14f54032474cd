"""The steps' images that a registry holds, and which of them nothing needs any more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ctflow.images.registry import Broken, OciRegistry

_ASKING = 16


@dataclass(frozen=True)
class Kept:
    """An image in the registry. ``when`` is its creation, as ISO 8601, ``""`` where it is unknown.

    ``used``: the checkout, a release or a recorded run names it.
    """

    step: str
    name: str
    tag: str
    digest: str
    when: str = ""
    used: bool = False

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def kept_images(
    registry: OciRegistry, prefix: str, steps: Sequence[str], used: Iterable[str]
) -> list[Kept]:
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
) -> Kept | None:
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
    return Kept(step, name, tag, manifest.digest, when, bool({tag, manifest.digest} & used))


def superfluous(images: Sequence[Kept], keep: int) -> list[Kept]:
    """Those that nothing names and that are not among the ``keep`` newest of their step."""
    seen: dict[str, int] = {}
    gone = []
    safe = {(one.name, one.digest) for one in images if one.used}
    for one in images:
        seen[one.step] = seen.get(one.step, 0) + 1
        if seen[one.step] <= keep:
            safe.add((one.name, one.digest))
        elif not one.used:
            gone.append(one)
    # Deleting a manifest takes all its tags away: one that is wanted keeps the others.
    return [one for one in gone if (one.name, one.digest) not in safe]
