"""A release as files of git: their names, how they are written and read, and the holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from ctflow.digests import short
from ctflow.errors import ConfigError, GateHeld
from ctflow.manifest import FRESH_KUSTOMIZATION, render
from ctflow.model import Hold, Release, from_json, to_json
from ctflow.ports import Scm

FOLDER = "deploy"
RELEASE = "release.yaml"
MANIFEST = "inferenceservice.yaml"
REPORT = "report.md"
HOLDS = "holds.yaml"
KUSTOMIZATION = "kustomization.yaml"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def folder(environment: str) -> str:
    """The folder of an environment's desired state."""
    return f"{FOLDER}/{environment}"


def path(environment: str, name: str) -> str:
    """The path of one of its files."""
    return f"{FOLDER}/{environment}/{name}"


def branch(project: str, environment: str) -> str:
    """The branch that proposes a change of it."""
    return f"ctflow/{environment}/{project}"


def held(environment: str, hold: Hold) -> GateHeld:
    """What to say of a model that is on hold."""
    return GateHeld(
        f"model {short(hold.digest)} is on hold for {environment} ({hold.reason})",
        next=f"to allow it, remove its entry from {path(environment, HOLDS)} and commit",
    )


def write(
    release: Release, manifest: bytes | None, kustomization: bytes | None
) -> dict[str, bytes]:
    """The files of a release but its report, given the manifest and kustomization of now.

    Raises:
        ConfigError: the present manifest cannot be updated.
    """
    env = release.environment
    text = None if manifest is None else manifest.decode("utf-8")
    head = "# Written by ctflow: what this environment shall serve, and on what evidence.\n"
    files = {
        path(env, MANIFEST): render(release, text, path(env, MANIFEST)).encode(),
        path(env, RELEASE): (head + _yaml(to_json(release))).encode(),
    }
    # A placeholder without the manifest (a new project's) is ours to fill; a person's stays.
    if kustomization is None or MANIFEST.encode() not in kustomization:
        files[path(env, KUSTOMIZATION)] = FRESH_KUSTOMIZATION.encode()
    return files


def read(data: bytes | None, where: str) -> Release | None:
    """The release in a ``release.yaml``; None where there is no such file.

    Raises:
        ConfigError: the file is not what ctflow wrote.
    """
    if data is None:
        return None
    found = _load(data, where)
    return from_json(Release, found, where)


def at(scm: Scm, rev: str, environment: str) -> Release | None:
    """The release that a commit holds for an environment, or None."""
    where = path(environment, RELEASE)
    return read(scm.read(rev, where), where)


def holds_at(scm: Scm, rev: str, environment: str) -> tuple[Hold, ...]:
    """The holds that a commit has for an environment."""
    where = path(environment, HOLDS)
    return read_holds(scm.read(rev, where), where)


def is_held(digest: str, holds: Sequence[Hold]) -> Hold | None:
    """The hold on a model, if there is one."""
    return next((hold for hold in holds if hold.digest == digest), None)


def read_holds(data: bytes | None, where: str) -> tuple[Hold, ...]:
    """The holds in a ``holds.yaml``; none where there is no such file.

    Raises:
        ConfigError: the file is not a list of holds. A hold that cannot be read must not be lost.
    """
    if data is None:
        return ()
    found = _load(data, where)
    rows = found.get("holds") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ConfigError(f"{where} has no list `holds`", next="mend it, or restore it from git")
    return tuple(from_json(Hold, row, where) for row in rows)


def write_holds(holds: Sequence[Hold]) -> bytes:
    """``holds.yaml``."""
    head = "# Models never to be proposed here again; to allow one, remove its entry and commit.\n"
    return (head + _yaml({"holds": [asdict(hold) for hold in holds]})).encode()


def _yaml(data: Any) -> str:
    # Through JSON first: tuples become lists, and nothing but plain data reaches the file.
    plain = json.loads(json.dumps(data))
    return str(yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _load(data: bytes, where: str) -> Any:
    try:
        return yaml.load(data, Loader=_Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"{where} is not valid YAML: {text}", next="restore it from git"
        ) from None
