"""Images: those that the registry has of the steps and the predictor, their bases, and what changes
touch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctflow.model import RegistryImage
from ctflow.ports import PREDICTOR, ignore
from ctflow.tools import Tools

#: The file with the digests of the base images, beside ctflow.yaml.
LOCK_NAME = "ctflow.lock"


def list_images(tools: Tools) -> list[RegistryImage]:
    """The images in the registry, and which are in use.

    Raises:
        ConfigError: there is no registry.
    """
    return tools.image_list.in_registry(tools.sources(), frozenset(_named_digests(tools)), ignore)


def _named_digests(tools: Tools) -> Iterator[str]:
    """The image digests that releases (in any branch) and compiled packages name."""
    digest = re.compile(rb"sha256:[0-9a-f]{64}")
    for folder, pattern in ((tools.root / "deploy", "*"), (tools.places["packages"], "*")):
        for file in folder.rglob(pattern) if folder.is_dir() else ():
            if file.is_file():
                yield from (found.decode() for found in digest.findall(file.read_bytes()))
    for text in tools.scm.written_texts(tools.root / "deploy"):
        yield from (found.decode() for found in digest.findall(text))


def prune_images(tools: Tools, keep: int, *, dry_run: bool) -> list[RegistryImage]:
    """Delete what nothing names, but for the ``keep`` newest of each step; what was deleted."""
    gone = superfluous(list_images(tools), keep)
    if not dry_run:
        for one in {(one.name, one.digest): one for one in gone}.values():
            tools.image_list.delete(one)
    return gone


def superfluous(images: Sequence[RegistryImage], keep: int) -> list[RegistryImage]:
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


def lock_bases(tools: Tools) -> tuple[Mapping[str, str], bool]:
    """Write the digests of all bases to ctflow.lock; (they, whether it changed)."""
    return tools.image_list.lock(tools.sources(), tools.root / LOCK_NAME)


def touched(tools: Tools, rev: str, only: Sequence[str]) -> list[str]:
    """The steps that changes since ``rev`` touch: their folders, includes, and what all share."""
    changed = tools.scm.changed_since(rev)
    steps = [step for step in tools.sources() if not only or step.name in only]
    root = tools.root.resolve()
    if root / LOCK_NAME in changed:
        return [step.name for step in steps]
    configured: set[str] = set()
    if tools.settings.file.resolve() in changed:
        before = _image_settings(tools.scm.read(rev, tools.settings.file.name))
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
    steps, serving = whole.get("steps") or {}, whole.get("serving") or {}
    own = {key: serving.get(key) for key in ("folder", "include")} if serving else {}
    return shared, (steps if isinstance(steps, dict) else {}) | {PREDICTOR: own}
