"""A container task as a template of an Argo workflow: the launcher runs the task's command."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.e2e.servers.kfp_node import platforms
from tests.e2e.servers.kfp_node.expressions import ARTIFACT, of_input
from tests.kfp_server.errors import unsupported
from tests.kfp_server.values import Item

S3_IN_PODS = "http://10.88.0.1:9000"
LAUNCHER = "dev.local/launcher:1"
#: The output that carries what the launcher says of a task.
REPORT = "report"
_DEFAULT_MEMORY = "512Mi"
_OUTPUTS = "/kfp/outputs"


def template(
    name: str, component: Item, executor: Item, platform: Item, *, names: Mapping[str, str],
    collected: set[str], root: str, cache: bool, cache_root: str, run_id: str,
) -> Item:  # fmt: skip
    """The template; `names` are the inputs that have a value, `root` is where outputs go."""
    if "container" not in executor:
        raise unsupported(
            f"runs containers only, no {' or '.join(executor)}: {name.partition('-')[2]}"
        )
    container = executor["container"]
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    env = [{"name": "KFP_S3", "value": S3_IN_PODS}]
    task: Item = {
        "command": [*container.get("command", []), *container.get("args", [])],
        "image": container["image"],
        "parameters": {}, "artifacts": {},
        "outputParameters": {
            key: found["parameterType"] for key, found in outputs.get("parameters", {}).items()
        },
        "outputArtifacts": {
            key: _kind(found) for key, found in outputs.get("artifacts", {}).items()
        },
        "root": root, "cache": cache, "cacheRoot": cache_root,
    }  # fmt: skip
    for index, (key, found) in enumerate(inputs.get("parameters", {}).items()):
        if key in names:
            variable = f"KFP_PARAMETER_{index}"
            env.append({"name": variable, "value": of_input(key)})
            task["parameters"][key] = {
                "type": found["parameterType"], "env": variable, "collected": key in collected,
            }  # fmt: skip
    for index, (key, found) in enumerate(inputs.get("artifacts", {}).items()):
        if ARTIFACT + key in names:
            variable = f"KFP_ARTIFACT_{index}"
            env.append({"name": variable, "value": of_input(ARTIFACT + key)})
            task["artifacts"][key] = {"kind": _kind(found), "env": variable}
    made = {
        "name": name,
        "metadata": {"labels": {"pipeline/runid": run_id}},
        "inputs": {"parameters": [{"name": key} for key in names]},
        "outputs": {"parameters": [
            *(_output(key, f"parameters/{key}") for key in task["outputParameters"]),
            *(_output(ARTIFACT + key, f"artifacts/{key}") for key in task["outputArtifacts"]),
            {"name": REPORT, "valueFrom": {"path": f"{_OUTPUTS}/report", "default": "{}"}},
        ]},
        "volumes": [{"name": "kfp", "emptyDir": {}}, {"name": "s3", "emptyDir": {}}],
        "initContainers": [{
            "name": "kfp-launcher", "image": LAUNCHER,
            "command": ["/launcher", "copy", "/kfp/launcher"],
            "volumeMounts": [{"name": "kfp", "mountPath": "/kfp"}],
            "resources": {"limits": {"memory": "64Mi"}},
        }],
        "container": {
            "image": container["image"],
            "imagePullPolicy": "IfNotPresent",
            "command": ["/kfp/launcher", "run"],
            # Argo replaces what is in double braces: the placeholders are the launcher's.
            "env": [
                *env, *container.get("env", []), {"name": "KFP_TASK", "value": _braces(task)},
            ],
            "volumeMounts": [
                {"name": "kfp", "mountPath": "/kfp"}, {"name": "s3", "mountPath": "/s3"},
            ],
            "resources": {"limits": _limits(container.get("resources", {}))},
        },
    }  # fmt: skip
    platforms.add(made, platform)
    return made


def _output(name: str, path: str) -> Item:
    return {"name": name, "valueFrom": {"path": f"{_OUTPUTS}/{path}"}}


def _kind(definition: Item) -> Item:
    kind = definition.get("artifactType", {})
    return {
        "schemaTitle": kind.get("schemaTitle", "system.Artifact"),
        "schemaVersion": kind.get("schemaVersion", "0.0.1"),
    }


def _braces(task: Item) -> str:
    """The task as JSON, with placeholders that Argo does not see."""
    return json.dumps(task).replace("{{", "{\\u007b")


def _limits(resources: Item) -> Item:
    if "accelerator" in resources:
        raise unsupported("has no accelerators")
    limits = {"memory": _DEFAULT_MEMORY}
    if cpu := resources.get("resourceCpuLimit") or resources.get("cpuLimit"):
        limits["cpu"] = str(cpu)
    memory = resources.get("memoryLimit")
    if found := resources.get("resourceMemoryLimit") or (f"{memory}G" if memory else ""):
        limits["memory"] = found
    return limits
