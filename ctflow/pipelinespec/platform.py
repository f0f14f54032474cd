"""Settings that only Kubernetes has (the ``kfp-kubernetes`` extension), as far as they mean
something on one machine.

Volumes are named folders of the project's local state; secrets and config maps come from
``secrets.yaml`` and ``config-maps.yaml`` beside them. A process has no mounts of its own: where its
command names a mount's path, it gets the folder's instead. Everything else is listed once as having
no meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass
from ctflow.model import Value
from ctflow.pipelinespec.spec import Source
from ctflow.pipelinespec.spec_reader import parameter_source

SECRETS_FILE = "secrets.yaml"
CONFIG_MAPS_FILE = "config-maps.yaml"
_UNDERSTOOD = frozenset({
    "pvcMount", "secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume",
    "activeDeadlineSeconds", "emptyDirMounts", "genericEphemeralVolume",
})  # fmt: skip
#: Settings that name a volume, a secret or a config map -> how the name is called in them.
_NAMES = {
    "pvcMount": "pvcName", "secretAsEnv": "secretName", "secretAsVolume": "secretName",
    "configMapAsEnv": "configMapName", "configMapAsVolume": "configMapName",
}  # fmt: skip
#: What Kubernetes takes as the name of a PersistentVolumeClaim.
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
#: What a source of a task that is ready comes to.
Names = Callable[[Source], Value]


class VolumeError(ValueError):
    """A volume that cannot be had; the text is for people."""


@dataclass(frozen=True)
class Platform:
    """What a component's Kubernetes settings come to here.

    Attributes:
        env: variable -> its value from a config map.
        secret_env: variable -> its secret value; never recorded nor logged.
        mounts: path in the container -> folder here.
        fresh: paths in the container of volumes that every attempt has its own, empty, of.
        file_mounts: path in the container -> file name -> value from a config map.
        secret_mounts: path in the container -> file name -> secret value.
        timeout: seconds after which an attempt is stopped; 0: none.
        meaningless: settings that have no meaning here.
        settle: makes the settings of one task, where names of volumes, secrets or config maps are
            parameters, which are left out here; raises VolumeError and ConfigError.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    file_mounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secret_mounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    timeout: float = 0.0
    meaningless: tuple[str, ...] = ()
    settle: Callable[[Names], Platform] | None = field(default=None, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secret values that a task may print by mistake."""
        files = (value for files in self.secret_mounts.values() for value in files.values())
        return (*self.secret_env.values(), *files)


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

    def of(self, name: Value, optional: bool, component: str) -> Mapping[str, str]:
        """The keys and values of an object; of an optional one that is not there, none.

        Raises:
            ConfigError: there is no such object; the message never holds a value.
        """
        if self._known is None:
            self._known = self._read()
        if isinstance(name, str) and name in self._known:
            return self._known[name]
        if optional:
            return {}
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"component {component} uses a {self._kind} with the name {name!r}",
                cause="the parameter that names it has no value, or is not text",
                next=f"give it the name of a {self._kind} in {self._file}",
            )
        raise ConfigError(
            f"component {component} uses {self._kind} {name}, which is not on this machine",
            next=f"write it into {self._file} as `{name}: {{key: value}}`",
        )

    def lacks(self, name: Value, key: str, component: str) -> ConfigError:
        """What to raise where an object lacks a key, with which Kubernetes starts no container."""
        return ConfigError(
            f"component {component} uses key {key} of {self._kind} {name}, which has no such key",
            next=f"add it in {self._file}, or make its use `optional`",
        )

    def _read(self) -> dict[str, dict[str, str]]:
        if not self._file.is_file():
            return {}
        import yaml

        loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # all text, as it is written
        try:
            found = yaml.load(self._file.read_bytes(), Loader=loader) or {}  # noqa: S506 (makes text only)
        except yaml.YAMLError:
            found = None
        if not isinstance(found, dict) or not all(map(_is_object, found.values())):
            raise ConfigError(f"{self._file} is not `name: {{key: value}}` in YAML") from None
        return found


def _is_object(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(value, str) for value in data.values())


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
    try:
        found = _settled(name, data, local, None)
    except VolumeError as error:
        raise ConfigError(f"component {name}: {error}") from None
    deferred = any(
        _source(setting, key).kind != "constant"
        for kind, key in _NAMES.items()
        for setting in data.get(kind) or ()
    )
    return replace(found, settle=partial(_settled, name, data, local)) if deferred else found


def _settled(
    component: str, data: Mapping[str, Any], local: Local, names: Names | None
) -> Platform:
    """The settings of a component's tasks; with ``names``, those of one task of it."""
    reader = _Reader(component, data, names)
    fresh = (*(data.get("emptyDirMounts") or ()), *(data.get("genericEphemeralVolume") or ()))
    paths = [
        mount_path(setting)
        for kind in ("pvcMount", "configMapAsVolume", "secretAsVolume")
        for setting in data.get(kind) or ()
    ]
    empty = tuple(mount_path(volume) for volume in fresh)
    for path in (*paths, *empty):
        if (*paths, *empty).count(path) > 1:
            raise VolumeError(f"several volumes are mounted at {path}")
    return Platform(
        env=reader.variables("configMapAsEnv", local.config_maps, "configMapKey"),
        secret_env=reader.variables("secretAsEnv", local.secrets, "secretKey"),
        mounts={
            mount_path(mount): volume_folder(local.volumes, name, mount.get("subPath") or "")
            for mount, name in reader.named("pvcMount")
        },
        fresh=empty,
        file_mounts=reader.files("configMapAsVolume", local.config_maps),
        secret_mounts=reader.files("secretAsVolume", local.secrets),
        timeout=float(data.get("activeDeadlineSeconds") or 0),
        meaningless=tuple(sorted(set(data) - _UNDERSTOOD)),
    )


class _Reader:
    """Reads the settings that name something; without ``names``, those that do so by a constant."""

    def __init__(self, component: str, data: Mapping[str, Any], names: Names | None) -> None:
        self._component = component
        self._data = data
        self._names = names

    def named(self, kind: str) -> Iterator[tuple[Mapping[str, Any], Value]]:
        """The settings of a kind, each with what it names."""
        for setting in self._data.get(kind) or ():
            source = _source(setting, _NAMES[kind])
            if source.kind == "constant":
                yield setting, source.value
            elif self._names is not None:
                yield setting, self._names(source)

    def variables(self, kind: str, objects: Objects, key: str) -> dict[str, str]:
        """Variable -> its value."""
        found: dict[str, str] = {}
        for setting, name in self.named(kind):
            optional = bool(setting.get("optional"))
            values = objects.of(name, optional, self._component)
            for pair in setting.get("keyToEnv") or ():
                wanted, variable = pair.get(key) or "", pair.get("envVar") or ""
                if not variable or "=" in variable or not variable.isprintable():
                    raise ConfigError(
                        f"component {self._component} sets a variable with the name {variable!r}",
                        next="give it a name such as PASSWORD",
                    )
                if wanted in values:
                    found[variable] = values[wanted]
                elif not optional:
                    raise objects.lacks(name, wanted, self._component)
        return found

    def files(self, kind: str, objects: Objects) -> dict[str, Mapping[str, str]]:
        """Path in the container -> file name -> value."""
        return {
            mount_path(setting): objects.of(name, bool(setting.get("optional")), self._component)
            for setting, name in self.named(kind)
        }


def _source(setting: Mapping[str, Any], key: str) -> Source:
    """Where the name of what a setting uses comes from; older packages have no ``...Parameter``."""
    if f"{key}Parameter" in setting:
        return parameter_source(setting[f"{key}Parameter"])
    if key == "pvcName" and "constant" not in setting:
        return parameter_source(setting)
    return Source("constant", value=setting.get("constant" if key == "pvcName" else key))


def mount_path(setting: Mapping[str, Any]) -> str:
    """Where a setting mounts something in the container, as the kubelet reads it: from the root.

    Raises:
        VolumeError: nothing can be mounted there.
    """
    path = setting.get("mountPath") or ""  # KFP's compiler leaves out what is empty
    found = "/" + path.strip("/")
    if found == "/" or ":" in found:
        raise VolumeError(f"no volume can be mounted at {path!r}; write a path such as /data")
    return found


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


def translate(words: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """A command whose mounted paths are replaced by the folders that stand for them.

    All at once: a folder's own path may begin like another mount's, such as /tmp.
    """
    if not places:
        return list(words)
    paths = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w./-])(?:{paths})(?![\w.-])")
    return [pattern.sub(lambda found: str(places[found[0]]), word) for word in words]
