"""Settings that only Kubernetes has (the ``kfp-kubernetes`` extension), as far as they mean
something on one machine.

Volumes are named folders of the project's local state; secrets and config maps come from
``secrets.yaml`` and ``config-maps.yaml`` beside them. A process has no mounts of its own: where its
command names a mount's path, it gets the folder's instead. Everything else is listed once as having
no meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ctflow.errors import ConfigError
from ctflow.local.spec import Source
from ctflow.local.spec_reader import parameter_source

SECRETS_FILE = "secrets.yaml"
CONFIG_MAPS_FILE = "config-maps.yaml"
_UNDERSTOOD = frozenset({
    "pvcMount", "secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume",
    "activeDeadlineSeconds", "emptyDirMounts", "genericEphemeralVolume",
})  # fmt: skip
#: What Kubernetes takes as the name of a PersistentVolumeClaim.
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class VolumeError(ValueError):
    """A volume that cannot be had; the text is for people."""


@dataclass(frozen=True)
class Claim:
    """A volume mounted at ``path``, whose name comes from ``source``, as a task's inputs do."""

    path: str
    source: Source
    below: str = ""


@dataclass(frozen=True)
class Platform:
    """What a component's Kubernetes settings come to here.

    Attributes:
        env: variable -> its value from a config map.
        secret_env: variable -> its secret value; never recorded nor logged.
        volumes: the folder of all volumes.
        claims: volumes whose name a task's inputs decide.
        mounts: path in the container -> folder here.
        fresh: paths in the container of volumes that every attempt has its own, empty, of.
        file_mounts: path in the container -> file name -> value from a config map.
        secret_mounts: path in the container -> file name -> secret value.
        timeout: seconds after which an attempt is stopped; 0: none.
        meaningless: settings that have no meaning here.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    volumes: Path = field(default_factory=Path)
    claims: tuple[Claim, ...] = ()
    mounts: Mapping[str, Path] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    file_mounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secret_mounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    timeout: float = 0.0
    meaningless: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """All secret values that a task may print by mistake."""
        files = (value for files in self.secret_mounts.values() for value in files.values())
        return tuple(value.encode() for value in (*self.secret_env.values(), *files) if value)


class Objects:
    """Kubernetes objects of the local state's YAML file: name -> key -> value; read when needed.

    Args:
        file: where they are.
        kind: what they are called, such as ``secret``.
    """

    def __init__(self, file: Path, kind: str) -> None:
        self._file = file
        self._kind = kind
        self._known: dict[str, dict[str, str]] | None = None

    def of(self, data: Mapping[str, Any], key: str, component: str) -> Mapping[str, str]:
        """The keys and values of the object that a setting names by ``key``.

        One that is not there, and that the setting calls optional, has none.

        Raises:
            ConfigError: there is no such object; the message never holds a value.
        """
        name = _constant(data.get(f"{key}Parameter") or data.get(key))
        if name is None:
            raise ConfigError(
                f"component {component} uses a {self._kind} whose name is a parameter",
                next=f"name the {self._kind} in the pipeline, or use `runner: kubeflow`",
            )
        if self._known is None:
            self._known = self._read()
        if name in self._known:
            return self._known[name]
        if data.get("optional"):
            return {}
        raise ConfigError(
            f"component {component} uses {self._kind} {name}, which is not on this machine",
            next=f"write it into {self._file} as `{name}: {{key: value}}`",
        )

    def _read(self) -> dict[str, dict[str, str]]:
        if not self._file.is_file():
            return {}
        import yaml

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            found = yaml.load(self._file.read_bytes(), Loader=loader)  # noqa: S506 (a safe loader)
            return {
                str(name): {str(key): str(value) for key, value in values.items()}
                for name, values in (found or {}).items()
            }
        except (yaml.YAMLError, AttributeError):
            raise ConfigError(f"{self._file} is not `name: {{key: value}}` in YAML") from None


class Local:
    """The volumes, secrets and config maps of the project's local state."""

    def __init__(self, state: Path) -> None:
        self.volumes = state / "volumes"
        self.secrets = Objects(state / SECRETS_FILE, "secret")
        self.config_maps = Objects(state / CONFIG_MAPS_FILE, "config map")


def platform_of(component: str, data: Mapping[str, Any], local: Local) -> Platform:
    """Read the settings of one component.

    Args:
        component: its name, for messages.
        data: KFP's KubernetesExecutorConfig, as plain data.
        local: what there is on this machine.

    Raises:
        ConfigError: a secret or config map that is not there; a volume that cannot be.
    """
    if not data:
        return Platform()
    name = component.removeprefix("comp-")
    secrets, maps, volumes = local.secrets, local.config_maps, local.volumes
    mounts, claims = {}, []
    for mount in data.get("pvcMount") or ():
        claim = _claim(mount)
        if claim.source.kind != "constant":
            claims.append(claim)
            continue
        try:
            mounts[claim.path] = volume_folder(volumes, claim.source.value, claim.below)
        except VolumeError as error:
            raise ConfigError(f"component {name}: {error}") from None
    fresh = (*(data.get("emptyDirMounts") or ()), *(data.get("genericEphemeralVolume") or ()))
    return Platform(
        env=_variables(data.get("configMapAsEnv"), maps, "configMap", name),
        secret_env=_variables(data.get("secretAsEnv"), secrets, "secret", name),
        volumes=volumes,
        claims=tuple(claims),
        mounts=mounts,
        fresh=tuple(str(volume["mountPath"]) for volume in fresh),
        file_mounts=_files(data.get("configMapAsVolume"), maps, "configMapName", name),
        secret_mounts=_files(data.get("secretAsVolume"), secrets, "secretName", name),
        timeout=float(data.get("activeDeadlineSeconds") or 0),
        meaningless=tuple(sorted(set(data) - _UNDERSTOOD)),
    )


def _claim(mount: Mapping[str, Any]) -> Claim:
    if "pvcNameParameter" in mount:
        source = parameter_source(mount["pvcNameParameter"])
    elif "constant" in mount:
        source = Source("constant", value=mount["constant"])
    else:
        source = parameter_source(mount)
    return Claim(mount["mountPath"], source, mount.get("subPath") or "")


def volume_folder(volumes: Path, name: Any, below: str = "") -> Path:
    """The folder that stands for a volume, or for what is ``below`` its top.

    Raises:
        VolumeError: Kubernetes would not take the name, or the path leads out of the volume.
    """
    if not isinstance(name, str) or not _CLAIM.fullmatch(name):
        raise VolumeError(f"{name!r} cannot be the name of a volume")
    inner = PurePosixPath(below)
    if inner.is_absolute() or ".." in inner.parts:
        raise VolumeError(f"{below!r} is not a path within volume {name}")
    return volumes / name / inner


def _variables(settings: Any, objects: Objects, key: str, component: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for setting in settings or ():
        values = objects.of(setting, f"{key}Name", component)
        for pair in setting.get("keyToEnv") or ():
            if pair[f"{key}Key"] in values:
                found[pair["envVar"]] = values[pair[f"{key}Key"]]
    return found


def _files(
    settings: Any, objects: Objects, key: str, component: str
) -> dict[str, Mapping[str, str]]:
    return {setting["mountPath"]: objects.of(setting, key, component) for setting in settings or ()}


def _constant(source: Any) -> str | None:
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping) and "runtimeValue" in source:
        constant = source["runtimeValue"].get("constant")
        return str(constant) if constant else None
    return None


def translate(words: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """A command whose mounted paths are replaced by the folders that stand for them."""
    found = list(words)
    for path, folder in sorted(places.items(), key=lambda item: -len(item[0])):
        pattern = re.compile(rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w.-])")
        target = str(folder).replace("\\", r"\\")
        found = [pattern.sub(target, word) for word in found]
    return found
