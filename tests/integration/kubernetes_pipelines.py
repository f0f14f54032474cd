"""Pipelines that use kfp-kubernetes, each named after what it shows, and a compiler for all.

``python -m tests.integration.kubernetes_pipelines FOLDER`` writes ``<name>.yaml`` for each, and
kfp-kubernetes' public names into ``functions.json``. It runs in a child process: kfp keeps global
state, and takes half a second to import.
"""
# kfp reads these annotations, and gives its decorators no types.
# mypy: ignore-errors

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from tests.conformance.tools import IMAGE

PIPELINES: dict[str, Any] = {}
SIZE = {"access_modes": ["ReadWriteOnce"], "size": "1Gi", "storage_class_name": "standard"}

warnings.simplefilter("ignore")


def pipeline(function: Any) -> Any:
    """A pipeline of the suite."""
    made = dsl.pipeline(name=function.__name__.replace("_", "-"))(function)
    PIPELINES[function.__name__] = made
    return made


@dsl.container_component
def shell(script: str, found: dsl.OutputPath(str)):
    """Runs a script, and gives what it prints. Paths of mounts stand in the command itself."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-ec", 'mkdir -p "$(dirname "$1")"; eval "$0" > "$1"'],
        args=[script, found],
    )


def command(script: str) -> Any:
    """A component whose command is the script; its output is what the script prints."""

    @dsl.container_component
    def task(found: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image=IMAGE,
            command=["sh", "-ec", f'mkdir -p "$(dirname "$0")"; ({script}) > "$0"'],
            args=[found],
        )

    return task


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def append(text: str) -> str:
    from pathlib import Path

    with Path("/data/log").open("a") as file:
        file.write(text)
    return Path("/data/log").read_text()


@pipeline
def volume():
    made = kubernetes.CreatePVC(pvc_name_suffix="-work", **SIZE)
    first = append(text="one ")
    kubernetes.mount_pvc(first, made.outputs["name"], "/data")
    second = command("printf 'two ' >> /mnt/in/log; cat /mnt/in/log; ls /mnt")().after(first)
    kubernetes.mount_pvc(second, made.outputs["name"], "/mnt/in")
    third = append(text="three").after(second)
    kubernetes.mount_pvc(third, made.outputs["name"], "/data")
    kubernetes.DeletePVC(pvc_name=made.outputs["name"]).after(third)


@pipeline
def named_volume(volume: str, again: bool = True):
    made = kubernetes.CreatePVC(pvc_name=volume, **SIZE)
    with dsl.If(again == True):  # noqa: E712 (a condition of KFP's)
        inner = command("echo ran >> /v/log; cat /v/log")()
        kubernetes.mount_pvc(inner, made.outputs["name"], "/v", sub_path="sub/folder")
        kubernetes.mount_pvc(inner, volume, "/same")
        inner.set_caching_options(False)


@pipeline
def looped_volumes():
    with dsl.ParallelFor(["left", "right"]) as name:
        task = shell(script="true")
        kubernetes.mount_pvc(task, name, "/v")


@pipeline
def below_tmp():
    """One mount at /tmp, below which the project itself may lie, and one in it."""
    task = command(
        "echo outer > /tmp/x; echo inner > /data/x; echo deep > /tmp/deep/x; "
        "echo /database /my/data /data.csv"
    )()
    kubernetes.mount_pvc(task, "outer", "/tmp/")
    kubernetes.mount_pvc(task, "inner", "data")
    kubernetes.mount_pvc(task, "deep", "/tmp/deep")


@pipeline
def volume_at_the_root():
    kubernetes.mount_pvc(shell(script="true"), "data", "/")


@pipeline
def volume_at_no_path():
    kubernetes.empty_dir_mount(shell(script="true"), "data", "")


@pipeline
def variable_without_a_name():
    kubernetes.use_secret_as_env(shell(script="true"), "db", {"user": ""})


@pipeline
def variable_with_a_sign():
    kubernetes.use_config_map_as_env(shell(script="true"), "app", {"mode": "A=B"})


@pipeline
def two_volumes_at_one_path():
    task = shell(script="true")
    kubernetes.mount_pvc(task, "data", "/v")
    kubernetes.empty_dir_mount(task, "empty", "/v/")


@pipeline
def secrets():
    task = command(
        'echo "it is $PASSWORD, $NUMBER." >&2; cat /secrets/key >&2; '
        'echo "begins $(sed -n 2p /secrets/key)" >&2; '
        '[ "$PASSWORD" = "$(cat /secrets/password)" ]; echo $(cat /secrets/user) ${#NUMBER}'
    )()
    kubernetes.use_secret_as_env(task, "db", {"password": "PASSWORD", "number": "NUMBER"})
    kubernetes.use_secret_as_volume(task, "db", "/secrets")


@pipeline
def named_secrets(secret: str, settings: str = "app"):
    """All that may be named by a parameter is, at two depths."""
    with dsl.ParallelFor([1]):
        inner = command("echo $USER_NAME $(cat /s/user)")()
        kubernetes.use_secret_as_env(inner, secret, {"user": "USER_NAME"})
        kubernetes.use_secret_as_volume(inner, secret, "/s")
    outer = command("echo $MODE $(cat /m/level)")()
    kubernetes.use_config_map_as_env(outer, settings, {"mode": "MODE"})
    kubernetes.use_config_map_as_volume(outer, settings, "/m")


@pipeline
def secret_key():
    kubernetes.use_secret_as_env(shell(script="true"), "db", {"none": "NONE"})


@pipeline
def optional():
    task = command('[ -z "${A+set}${B+set}${C+set}" ]; [ -z "$(ls /s /m | grep -v :)" ]; echo so')()
    kubernetes.use_secret_as_env(task, "none", {"a": "A"}, optional=True)
    kubernetes.use_secret_as_env(task, "db", {"none": "C"}, optional=True)
    kubernetes.use_secret_as_volume(task, "none", "/s", optional=True)
    kubernetes.use_config_map_as_env(task, "none", {"b": "B"}, optional=True)
    kubernetes.use_config_map_as_volume(task, "none", "/m", optional=True)


@pipeline
def config_maps():
    task = command("echo $MODE $(cat /etc/app/level)")()
    kubernetes.use_config_map_as_env(task, "app", {"mode": "MODE"})
    kubernetes.use_config_map_as_volume(task, "app", "/etc/app")


@pipeline
def empty_volumes():
    for _ in range(2):
        task = command(
            "ls -A /scratch /more | grep -v :; touch /scratch/x /more/y; ls -A /scratch /more"
        )()
        kubernetes.empty_dir_mount(task, "scratch", "/scratch", medium="Memory", size_limit="1Gi")
        kubernetes.add_ephemeral_volume(task, "more", "/more", ["ReadWriteOnce"], "1Gi")


@pipeline
def timeout():
    slow = shell(script="sleep 60")
    kubernetes.set_timeout(slow, 1)
    unbound = shell(script="echo done")
    kubernetes.set_timeout(unbound, 1)
    kubernetes.set_timeout(unbound, 0)


#: Functions without a meaning on one machine -> how each is used.
LISTED = {
    "add_node_affinity": lambda use, task: use(
        task, match_expressions=[{"key": "disk", "operator": "In", "values": ["ssd"]}]
    ),
    "add_node_affinity_json": lambda use, task: use(task, {}),
    "add_node_selector": lambda use, task: use(task, "disk", "ssd"),
    "add_node_selector_json": lambda use, task: use(task, {"disk": "ssd"}),
    "add_pod_annotation": lambda use, task: use(task, "owner", "ada"),
    "add_pod_label": lambda use, task: use(task, "team", "a"),
    "add_toleration": lambda use, task: use(task, key="gpu", operator="Exists"),
    "add_toleration_json": lambda use, task: use(task, {"key": "gpu", "operator": "Exists"}),
    "set_image_pull_policy": lambda use, task: use(task, "Always"),
    "set_image_pull_secrets": lambda use, task: use(task, ["registry"]),
    "set_security_context": lambda use, task: use(task, run_as_user=1234, run_as_non_root=True),
    "use_field_path_as_env": lambda use, task: use(task, "POD", "metadata.name"),
}


def _listed(name: str) -> Any:
    def made():
        for _ in range(2):
            LISTED[name](getattr(kubernetes, name), shell(script="echo ran"))

    made.__name__ = name
    return made


for _name in LISTED:
    pipeline(_listed(_name))


def main(folder: Path) -> None:
    """Compile all."""
    for name, made in PIPELINES.items():
        compiler.Compiler().compile(made, str(folder / f"{name}.yaml"))
    (folder / "functions.json").write_text(json.dumps(sorted(kubernetes.__all__)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
