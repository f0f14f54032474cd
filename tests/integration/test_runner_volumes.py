"""Volumes, config maps and what only a task's inputs decide: images, limits, names of volumes."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.errors import ConfigError, OutsideError
from ctflow.model import Run
from ctflow.pipelinespec.platform import translate
from ctflow.ports import Watch
from ctflow.runners.local.runner import LocalRunner
from tests.conformance.tools import IMAGE, Bench, Pipeline, ShellWorkspaces, out, text_of

#: The fields of KFP's KubernetesExecutorConfig (kfp-kubernetes 2.16.1), as its JSON has them.
FIELDS = {
    "secretAsVolume", "secretAsEnv", "pvcMount", "nodeSelector", "podMetadata", "imagePullSecret",
    "imagePullPolicy", "configMapAsVolume", "configMapAsEnv", "activeDeadlineSeconds",
    "fieldPathAsEnv", "tolerations", "genericEphemeralVolume", "nodeAffinity", "podAffinity",
    "enabledSharedMemory", "emptyDirMounts", "securityContext",
}  # fmt: skip
MEANINGLESS = {
    "nodeSelector", "podMetadata", "imagePullSecret", "imagePullPolicy", "fieldPathAsEnv",
    "tolerations", "nodeAffinity", "podAffinity", "enabledSharedMemory", "securityContext",
}  # fmt: skip
NAME = {"taskOutputParameter": {"producerTask": "create", "outputParameterKey": "name"}}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.state.mkdir()
    return bench


def run(bench: Bench, pipeline: Pipeline, settings: dict[str, Any], **more: Any) -> Run:
    """Run a package of two YAML documents, as the compiler writes them."""
    executors = {f"exec-{name}": value for name, value in settings.items()}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    package = bench.folder / "package.yaml"
    package.write_text(yaml.safe_dump_all([pipeline.data(), platform]), encoding="utf-8")
    return bench.run(package, **more)


def create(pipeline: Pipeline, **names: str) -> Pipeline:
    return pipeline.task(
        "create", takes={"size": "1Gi", **names}, gives={"name": str},
        container={"image": "argostub/createpvc", "command": []},
    )  # fmt: skip


def delete(pipeline: Pipeline, name: str, **more: Any) -> Pipeline:
    return pipeline.task(
        "delete", takes={"pvc_name": name}, **more,
        container={"image": "argostub/deletepvc", "command": []},
    )  # fmt: skip


def volumes(bench: Bench) -> list[str]:
    folder = bench.state / "volumes"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_volumes_as_older_compilers_name_them(bench: Bench) -> None:
    """With and without a ``pvcNameParameter``."""
    pipeline = create(Pipeline(), pvc_name_suffix="-work")
    pipeline.task("write", "echo shared > /data/x", after=["create"])
    pipeline.task("read", f"cat /mnt/x > {out('d')}", after=["write"], writes=["d"])
    delete(pipeline, "@create.name", after=["read"])
    settings = {
        "write": {"pvcMount": [{"pvcNameParameter": NAME, "mountPath": "/data", **NAME}]},
        "read": {"pvcMount": [{**NAME, "mountPath": "/mnt"}]},
    }
    done = run(bench, pipeline, settings)
    assert done.state == "succeeded", done.error
    assert text_of(done, "read.d") == "shared\n"
    task = done.task("create")
    assert task is not None
    assert task.outputs == {"name": f"{done.id}-create-work"}
    assert volumes(bench) == []
    again = run(bench, pipeline, settings)  # its volume is another one: nothing of it is known
    assert set(bench.states(again).values()) == {"succeeded"}


def test_what_a_removed_volume_links_to_stays(bench: Bench) -> None:
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").touch()
    (bench.state / "volumes").mkdir()
    (bench.state / "volumes" / "data").symlink_to(elsewhere)
    assert run(bench, delete(Pipeline(), "data"), {}).state == "succeeded"
    assert volumes(bench) == []
    assert (elsewhere / "x").exists()


@pytest.mark.parametrize(
    ("pipeline", "error"),
    [
        (delete(Pipeline(), "none"), "there is no volume none"),
        (delete(Pipeline(), ".."), "'..' cannot be the name of a volume"),
        (delete(Pipeline(), ""), "'' cannot be the name of a volume"),
        (delete(Pipeline(), "a/../.."), "'a/../..' cannot be the name of a volume"),
        (create(Pipeline(), pvc_name="../x"), "'../x' cannot be the name of a volume"),
        (create(Pipeline(), pvc_name="a", pvc_name_suffix="b"),
         "give pvc_name or pvc_name_suffix, not both"),
    ],
)  # fmt: skip
def test_volume_that_cannot_be_fails_its_task(bench: Bench, pipeline: Pipeline, error: str) -> None:
    (bench.state / "volumes" / "other").mkdir(parents=True)
    done = run(bench, pipeline, {})
    assert [task.error for task in done.tasks] == [error]
    assert volumes(bench) == ["other"]


def test_name_of_a_mounted_volume_that_cannot_be_fails_the_task(bench: Bench) -> None:
    parameter = {"componentInputParameter": "volume"}
    mount = {"pvcMount": [{"pvcNameParameter": parameter, "mountPath": "/v"}]}
    pipeline = Pipeline(volume="../..").task("t", "ls /v")
    done = run(bench, pipeline, {"t": mount})
    assert done.error == "t: '../..' cannot be the name of a volume"
    assert run(bench, pipeline, {"t": mount}, volume="fine").state == "succeeded"
    assert volumes(bench) == ["fine"]


@pytest.mark.parametrize("below", ["../x", "/etc", "a/../../x"])
def test_path_that_leads_out_of_its_volume_is_refused(bench: Bench, below: str) -> None:
    mount = {"pvcMount": [{"constant": "data", "mountPath": "/data", "subPath": below}]}
    with pytest.raises(ConfigError, match="is not a path within volume data"):
        run(bench, Pipeline().task("t"), {"t": mount})


def test_file_of_a_volume_is_mounted(bench: Bench) -> None:
    folder = bench.state / "volumes" / "data"
    folder.mkdir(parents=True)
    (folder / "app.conf").write_text("it")
    mount = {"pvcMount": [{"constant": "data", "mountPath": "/etc/app", "subPath": "app.conf"}]}
    done = run(bench, Pipeline().task("t", f"cat /etc/app > {out('d')}", writes=["d"]),
               {"t": mount})  # fmt: skip
    assert done.state == "succeeded", done.error
    assert text_of(done, "t.d") == "it"


def test_folder_of_a_mount_is_not_taken_for_another_mount() -> None:
    places = {"/data": Path("/tmp/v/data"), "/tmp": Path("/w"), "/data/in": Path("/data")}
    words = translate(["cat /data/x /tmp/y", "/data/in/z", "/data/inner"], places)
    assert words == ["cat /tmp/v/data/x /w/y", "/data/z", "/tmp/v/data/inner"]


@pytest.mark.parametrize("text", ["db", "- db", "db: hunter2", "db: {a: {b: hunter2}}", "db: {"])
def test_secrets_in_another_form_are_refused(bench: Bench, text: str) -> None:
    (bench.state / "secrets.yaml").write_text(text)
    settings = {"secretAsVolume": [{"secretName": "db", "mountPath": "/s"}]}
    with pytest.raises(ConfigError, match=r"secrets\.yaml is not `name: .* in YAML") as caught:
        run(bench, Pipeline().task("t"), {"t": settings})
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_done_or_listed(bench: Bench) -> None:
    done = run(bench, Pipeline().task("t"), {"t": dict.fromkeys(FIELDS, ())})
    assert done.state == "succeeded"
    (note,) = [event.text for event in bench.events if "are ignored" in event.text]
    listed = note.removeprefix("these settings are ignored on this machine: ").split(", ")
    assert set(listed) == MEANINGLESS


def given(name: str) -> str:
    return "{{$.inputs.parameters['" + name + "']}}"


def test_image_that_is_a_parameter(bench: Bench) -> None:
    pipeline = Pipeline(image=IMAGE).task(
        "t", f"echo ran > {out('d')}", takes={"image": "=image"}, writes=["d"],
        container={"image": given("image")},
    )  # fmt: skip
    pipeline.task("other")
    assert text_of(bench.run(pipeline), "t.d") == "ran\n"
    assert bench.states(bench.run(pipeline))["t"] == "cached"
    done = bench.run(pipeline, image="python:3.11")
    assert bench.states(done) == {"t": "failed", "other": "cached"}
    assert "t uses image python:3.11, which is not a step of this project" in done.error


def test_limits_that_are_parameters(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=2)
    pipeline = Pipeline(cpu="2", memory="64M")
    for name in ("a", "b"):
        pipeline.task(
            name, f"mkdir ../alone; ulimit -d > {out('d')}; sleep 0.1; rmdir ../alone",
            takes={"cpu": "=cpu", "memory": "=memory"}, writes=["d"],
            container={"resources": {"resourceCpuLimit": given("cpu"),
                                     "resourceMemoryLimit": given("memory")}},
        )  # fmt: skip
    done = bench.run(pipeline, caching=False)
    assert done.state == "succeeded", done.error
    memory = text_of(done, "a.d")
    assert text_of(bench.run(pipeline, caching=False, memory="128M"), "a.d") != memory
    done = bench.run(pipeline, caching=False, cpu="many")
    assert "a: its limit is not a quantity such as 2 or 500M: cpu 'many'" in done.error


@pytest.mark.parametrize("uri", ["gs://bucket/key", "file://{folder}/data", "{folder}/data"])
def test_import_that_has_to_be_downloaded(bench: Bench, uri: str) -> None:
    (bench.folder / "data").write_text("it")
    uri = uri.format(folder=bench.folder)
    data = Pipeline().task("get", writes=["data"]).data()
    data["deploymentSpec"]["executors"]["exec-get"] = {"importer": {
        "artifactUri": {"constant": uri}, "typeSchema": {"schemaTitle": "system.Dataset"},
        "downloadToWorkspace": True}}  # fmt: skip
    package = bench.folder / "package.json"
    package.write_text(json.dumps(data), encoding="utf-8")
    done = bench.run(package)
    if uri.startswith("gs"):
        assert done.error == (
            f"get: {uri} is not downloaded to the workspace on this machine; import a path of it"
        )
    else:
        assert done.state == "succeeded", done.error


def test_task_configuration_is_listed(bench: Bench) -> None:
    data = Pipeline().task("t").data()
    data["components"]["comp-t"]["inputDefinitions"]["parameters"]["configuration"] = {
        "parameterType": "TASK_CONFIG", "isOptional": True,
    }  # fmt: skip
    package = bench.folder / "package.json"
    package.write_text(json.dumps(data), encoding="utf-8")
    assert bench.run(package).state == "succeeded"
    notes = [event.text for event in bench.events if "are ignored" in event.text]
    assert notes == ["these settings are ignored on this machine: dsl.TaskConfig"]


class Engine:
    """Runs "containers" as processes that know their image and limits, but has few images."""

    name = "pretended"

    def words(self, reference: str, cpu: float, memory: int, watch: Watch) -> tuple[str, ...]:
        if "none" in reference:
            raise OutsideError(f"cannot pull {reference}")
        return ("env", f"IMAGE={reference}", f"LIMITS={cpu:g} {memory}")

    def guard(self, run: str) -> AbstractContextManager[None]:
        return nullcontext()


def test_parameters_decide_about_containers_too(bench: Bench) -> None:
    bench.runner = LocalRunner(
        bench.state, ShellWorkspaces(bench.work), bench.environments, slots=2, containers=Engine()
    )
    (bench.state / "config-maps.yaml").write_text("app: {mode: fast}\n")
    settings = {"configMapAsEnv": [{"configMapName": "app", "keyToEnv": [
        {"configMapKey": "mode", "envVar": "MODE"}]}]}  # fmt: skip
    pipeline = Pipeline(image="one:1", memory="1G").task(
        "t", f'echo "$IMAGE $LIMITS $CTFLOW_CONTAINER_MODE $CTFLOW_CONTAINER_OWN" > {out("d")}',
        takes={"image": "=image", "memory": "=memory"}, writes=["d"],
        container={"image": given("image"), "env": [{"name": "OWN", "value": "x"}],
                   "resources": {"resourceMemoryLimit": given("memory")}},
    )  # fmt: skip
    assert text_of(run(bench, pipeline, {"t": settings}), "t.d") == "one:1 0 1000000000 fast x\n"
    other = run(bench, pipeline, {"t": settings}, image="two:2")
    assert text_of(other, "t.d") == "two:2 0 1000000000 fast x\n"
    failed = run(bench, pipeline, {"t": settings}, image="none:1")
    assert failed.error == "t: cannot pull none:1"
