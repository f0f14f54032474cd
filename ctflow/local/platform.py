"""Settings that only Kubernetes has (the ``kfp-kubernetes`` extension), as far as they mean
something on one machine.

Volumes are named folders of the project's local state, secrets come from ``secrets.yaml`` beside
them. A process has no mounts of its own: where its command names a mount's path, it gets the
folder's instead. Everything else is listed once as having no meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError

SECRETS_FILE = "secrets.yaml"
_UNDERSTOOD = frozenset({"pvcMount", "secretAsEnv", "secretAsVolume", "activeDeadlineSeconds",
                         "emptyDirMounts"})  # fmt: skip


@dataclass(frozen=True)
class Platform:
    """What a component's Kubernetes settings come to here.

    Attributes:
        secret_env: variable -> its secret value; never recorded nor logged.
        mounts: path in the container -> folder here.
        secret_mounts: path in the container -> file name -> secret value.
        timeout: seconds after which an attempt is stopped; 0: none.
        meaningless: settings that have no meaning here.
    """

    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    secret_mounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    timeout: float = 0.0
    meaningless: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """All secret values that a task may print by mistake."""
        files = (value for files in self.secret_mounts.values() for value in files.values())
        return tuple(value.encode() for value in (*self.secret_env.values(), *files) if value)


class Secrets:
    """``secrets.yaml`` of the local state: secret name -> key -> value; read when first needed."""

    def __init__(self, state: Path) -> None:
        self._file = state / SECRETS_FILE
        self._known: dict[str, dict[str, str]] | None = None

    def get(self, secret: str, component: str) -> Mapping[str, str]:
        """A secret's keys and values.

        Raises:
            ConfigError: there is no such secret; the message never holds a value.
        """
        if self._known is None:
            self._known = self._read()
        if secret not in self._known:
            raise ConfigError(
                f"component {component} uses secret {secret}, which is not on this machine",
                next=f"write it into {self._file} as `{secret}: {{key: value}}`",
            )
        return self._known[secret]

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
            raise ConfigError(f"{self._file} is not `secret: {{key: value}}` in YAML") from None


def platform_of(
    component: str, data: Mapping[str, Any], volumes: Path, secrets: Secrets
) -> Platform:
    """Read the settings of one component.

    Raises:
        ConfigError: a secret that is not there, a volume whose name only Kubeflow can know.
    """
    if not data:
        return Platform()
    name = component.removeprefix("comp-")
    mounts: dict[str, Path] = {}
    for mount in data.get("pvcMount") or ():
        claim = _constant(mount.get("constant") or mount.get("pvcNameParameter"))
        if claim is None:
            raise ConfigError(
                f"component {name} mounts a volume whose name is made in the cluster",
                next="name the volume in the pipeline, or use `runner: kubeflow`",
            )
        folder = volumes / re.sub(r"[^A-Za-z0-9._-]", "_", claim).lstrip(".")
        mounts[mount["mountPath"]] = folder / (mount.get("subPath") or "")
    for mount in data.get("emptyDirMounts") or ():
        mounts[mount["mountPath"]] = volumes / "empty" / str(mount.get("volumeName") or "volume")
    variables: dict[str, str] = {}
    for secret in data.get("secretAsEnv") or ():
        values = secrets.get(_secret_name(secret, name), name)
        for pair in secret.get("keyToEnv") or ():
            if pair["secretKey"] in values:
                variables[pair["envVar"]] = values[pair["secretKey"]]
    files = {
        secret["mountPath"]: secrets.get(_secret_name(secret, name), name)
        for secret in data.get("secretAsVolume") or ()
    }
    meaningless = tuple(sorted(set(data) - _UNDERSTOOD))
    timeout = float(data.get("activeDeadlineSeconds") or 0)
    return Platform(variables, mounts, files, timeout, meaningless)


def _constant(source: Any) -> str | None:
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping) and "runtimeValue" in source:
        constant = source["runtimeValue"].get("constant")
        return str(constant) if constant else None
    return None


def _secret_name(secret: Mapping[str, Any], component: str) -> str:
    name = _constant(secret.get("secretName") or secret.get("secretNameParameter"))
    if name is None:
        raise ConfigError(
            f"component {component} uses a secret whose name is a parameter",
            next="name the secret in the pipeline, or use `runner: kubeflow`",
        )
    return name


def translate(words: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """A command whose mounted paths are replaced by the folders that stand for them."""
    found = list(words)
    for path, folder in sorted(places.items(), key=lambda item: -len(item[0])):
        pattern = re.compile(rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w.-])")
        target = str(folder).replace("\\", r"\\")
        found = [pattern.sub(target, word) for word in found]
    return found
