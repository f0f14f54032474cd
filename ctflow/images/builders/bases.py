"""The digests of base images: resolved, remembered, locked; a moved one is reported.

``ctflow.lock`` beside ctflow.yaml, written by ``ctflow images lock`` and committed, holds
``{"bases": {reference: digest}}``. Without it the last digests seen on this machine are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.images.registry.reference import parse_reference
from ctflow.lib.files import write_file
from ctflow.ports import Event, Registry, Watch

LOCK_NAME = "ctflow.lock"


class Bases:
    """Resolves base images; each once.

    Args:
        registry: asked for the digests.
        lock: the project's ``ctflow.lock``.
        memory: the digests last seen on this machine.
        locked: refuse what is not as locked.
    """

    def __init__(self, registry: Registry, lock: Path, memory: Path, *, locked: bool) -> None:
        self._registry = registry
        self._has_lock = lock.exists()
        self._known: dict[str, str] = {}
        if self._has_lock:
            self._known.update(read_lock(lock))
        elif not locked:
            self._known.update(_recall(memory))
        self._memory = memory
        self._locked = locked
        self._found: dict[str, str] = {}

    def pin(self, reference: str, watch: Watch) -> str:
        """``name@sha256:...`` of a base.

        Raises:
            StateError: it has moved, or is not locked, and only locked ones will do.
            ConfigError: the registry has no such image. OutsideError: it cannot be asked.
        """
        where = parse_reference(reference)
        if where.digest is not None:
            return reference
        if reference not in self._found:
            self._found[reference] = self._resolve(reference, watch)
        return f"{_name(reference)}@{self._found[reference]}"

    def save(self) -> None:
        """Remember what was seen."""
        if self._found and any(self._known.get(k) != v for k, v in self._found.items()):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            _write(self._memory, {**_recall(self._memory), **self._found})

    def _resolve(self, reference: str, watch: Watch) -> str:
        digest = self._registry.digest(reference)
        if digest is None:
            raise ConfigError(
                f"the base image {reference} does not exist, or you may not read it",
                next="correct images.base (or the Dockerfile's FROM), or log in to its registry",
            )
        known = self._known.get(reference)
        if self._locked and known is None:
            raise StateError(
                f"the base image {reference} is not locked",
                next=f"run `ctflow images lock` and commit {LOCK_NAME}",
            )
        if known is not None and known != digest:
            moved = f"the base image {reference} has moved from {known[:19]} to {digest[:19]}"
            if self._locked:
                raise StateError(
                    moved, cause="--locked accepts only the digests in ctflow.lock",
                    next="take the new one with `ctflow images lock`, or pin images.base by digest",
                )  # fmt: skip
            watch(Event("note", "base", f"{moved}: its steps are built again"))
        return digest


def read_lock(file: Path) -> Mapping[str, str]:
    """The locked digests by reference. Raises ConfigError for what is no lock."""
    try:
        bases = json.loads(file.read_text(encoding="utf-8"))["bases"]
        return {str(name): str(digest) for name, digest in bases.items()}
    except OSError as error:
        raise OutsideError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{file} is not a lock file of ctflow", next="write it again with `ctflow images lock`"
        ) from None


def write_lock(file: Path, digests: Mapping[str, str]) -> bool:
    """Write the lock; whether it changed."""
    if file.exists():
        try:
            if read_lock(file) == digests:
                return False
        except ConfigError:
            pass  # it is written anew
    _write(file, digests)
    return True


def _write(file: Path, digests: Mapping[str, str]) -> None:
    text = json.dumps({"bases": dict(sorted(digests.items()))}, indent=2) + "\n"
    write_file(file, text)


def _recall(memory: Path) -> Mapping[str, str]:
    try:
        return read_lock(memory) if memory.exists() else {}
    except (ConfigError, OutsideError):
        return {}  # lost: nothing to compare with


def _name(reference: str) -> str:
    """The reference without its tag, otherwise as the user wrote it."""
    head, slash, tail = reference.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"
