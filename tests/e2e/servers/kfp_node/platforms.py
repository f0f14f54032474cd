"""What kfp-kubernetes adds to a task: secrets, volume claims and the pull policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.e2e.servers.kfp_node.expressions import of_input, parameter
from tests.kfp_server.errors import unsupported
from tests.kfp_server.values import Item

#: Before the names of parameters that carry the name of a secret or a claim.
_ARGUMENT = "platform--"
_NAMES = {
    "secretAsEnv": ("secretNameParameter", "secretName"),
    "secretAsVolume": ("secretNameParameter", "secretName"),
    "pvcMount": ("pvcNameParameter", "constant"),
}


def arguments(
    platform: Mapping[str, Any], inputs: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, str]:
    """The names of secrets and claims as arguments of the task; refuses what is not known."""
    found: dict[str, str] = {}
    for key, mounts in platform.items():
        if key == "imagePullPolicy":
            continue
        if key not in _NAMES:
            raise unsupported(f"does not know kfp-kubernetes' {key}")
        for index, mount in enumerate(mounts):
            dynamic, fixed = _NAMES[key]
            value = mount.get(dynamic) or {"runtimeValue": {"constant": mount.get(fixed, "")}}
            name = parameter(value, inputs, names)
            if not name:
                raise unsupported(f"needs a name for {key}")
            found[_argument(key, index)] = name
    return found


def _argument(key: str, index: int) -> str:
    return f"{_ARGUMENT}{key}-{index}"


def add(template: Item, platform: Mapping[str, Any]) -> None:
    """Add what a task asks of its platform to its template."""
    container, volumes = template["container"], template["volumes"]
    if policy := platform.get("imagePullPolicy"):
        container["imagePullPolicy"] = policy
    for index, secret in enumerate(platform.get("secretAsEnv", [])):
        name = of_input(_argument("secretAsEnv", index))
        for pair in secret["keyToEnv"]:
            source = {"name": name, "key": pair["secretKey"]}
            container["env"].append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": source}})
    for key, kind, field in (
        ("secretAsVolume", "secret", "secretName"),
        ("pvcMount", "persistentVolumeClaim", "claimName"),
    ):
        for index, mount in enumerate(platform.get(key, [])):
            volume = f"{key.lower()}-{index}"
            volumes.append({"name": volume, kind: {field: of_input(_argument(key, index))}})
            path = {"name": volume, "mountPath": mount["mountPath"]}
            container["volumeMounts"].append(path)
