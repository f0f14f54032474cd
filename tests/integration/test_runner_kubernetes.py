"""kfp-kubernetes on one machine: what KFP's own compiler makes of each of its functions is done
here, listed once as having no meaning, or refused before the first task starts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError
from ctflow.model import Run
from tests.conformance.tools import Bench

ROOT = Path(__file__).parents[2]
#: Function -> the test below that observes what it does.
DONE = {
    "CreatePVC": "test_volume_is_made_shared_and_removed",
    "DeletePVC": "test_volume_is_made_shared_and_removed",
    "add_ephemeral_volume": "test_empty_volumes_are_each_tasks_own",
    "empty_dir_mount": "test_empty_volumes_are_each_tasks_own",
    "mount_pvc": "test_volume_is_made_shared_and_removed",
    "set_timeout": "test_task_that_takes_too_long_is_stopped",
    "use_config_map_as_env": "test_config_maps_come_as_variables_and_files",
    "use_config_map_as_volume": "test_config_maps_come_as_variables_and_files",
    "use_secret_as_env": "test_secrets_come_as_variables_and_files_and_are_not_logged",
    "use_secret_as_volume": "test_secrets_come_as_variables_and_files_and_are_not_logged",
}
#: Function -> the setting that it makes, which is listed as having no meaning here.
LISTED = {
    "add_node_affinity": "nodeAffinity",
    "add_node_affinity_json": "nodeAffinity",
    "add_node_selector": "nodeSelector",
    "add_node_selector_json": "nodeSelector",
    "add_pod_annotation": "podMetadata",
    "add_pod_label": "podMetadata",
    "add_toleration": "tolerations",
    "add_toleration_json": "tolerations",
    "set_image_pull_policy": "imagePullPolicy",
    "set_image_pull_secrets": "imagePullSecret",
    "set_security_context": "securityContext",
    "use_field_path_as_env": "fieldPathAsEnv",
}
SECRETS = """\
db:
  user: ada
  password: hunter2-ö
  number: 012345
  key: |
    -----BEGIN-----
    c2VjcmV0
    }
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages, compiled once."""
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run(
        [sys.executable, "-m", "tests.integration.kubernetes_pipelines", str(folder)],
        check=True, cwd=ROOT,
    )  # fmt: skip
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.state.mkdir()
    (bench.state / "secrets.yaml").write_text(SECRETS, encoding="utf-8")
    (bench.state / "config-maps.yaml").write_text("app: {mode: fast, level: 3}\n")
    return bench


def printed(run: Run, name: str) -> list[str]:
    """What a task gave, in words."""
    task = run.task(name)
    assert task is not None, name
    assert task.state == "succeeded", run.error
    (output,) = task.outputs.values()
    return str(output).split()


def volumes(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.state / "volumes").iterdir())


def test_every_function_is_decided(packages: Path) -> None:
    functions = json.loads((packages / "functions.json").read_text())
    assert functions == sorted([*DONE, *LISTED])
    assert set(DONE.values()) <= set(globals())


def test_volume_is_made_shared_and_removed(bench: Bench, packages: Path) -> None:
    for _ in range(2):  # the second run has a volume of its own: nothing is taken from the cache
        done = bench.run(packages / "volume.yaml")
        assert set(bench.states(done).values()) == {"succeeded"}, done.error
        assert printed(done, "createpvc") == [f"{done.id}-createpvc-work"]
        assert printed(done, "append") == ["one"]
        assert printed(done, "task")[:2] == ["one", "two"]
        assert printed(done, "append-2") == ["one", "two", "three"]
        assert volumes(bench) == []


def test_volume_named_by_a_parameter_stays(bench: Bench, packages: Path) -> None:
    for count in (1, 2):
        done = bench.run(packages / "named_volume.yaml", volume="models")
        assert printed(done, "condition-1.task") == ["ran"] * count
    assert volumes(bench) == ["models"]
    assert (bench.state / "volumes/models/sub/folder/log").is_file()
    failed = bench.run(packages / "named_volume.yaml", volume="../..")
    assert "'../..' cannot be the name of a volume" in failed.error
    assert volumes(bench) == ["models"]


def test_volumes_of_a_loop(bench: Bench, packages: Path) -> None:
    assert bench.run(packages / "looped_volumes.yaml").state == "succeeded"
    assert volumes(bench) == ["left", "right"]


def test_mounts_do_not_change_each_others_folders(bench: Bench, packages: Path) -> None:
    """The project lies below /tmp here, where one of the mounts is."""
    done = bench.run(packages / "below_tmp.yaml")
    assert done.state == "succeeded", list(bench.runner.logs(done.id))
    for name in ("outer", "inner", "deep"):
        assert (bench.state / "volumes" / name / "x").read_text() == f"{name}\n"
    assert printed(done, "task") == ["/database", "/my/data", "/data.csv"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("volume_at_the_root", r"component shell: no volume can be mounted at '/'"),
        ("volume_at_no_path", r"component shell: no volume can be mounted at ''"),
        ("variable_without_a_name", r"component shell sets a variable with the name ''"),
        ("variable_with_a_sign", r"component shell sets a variable with the name 'A=B'"),
        ("two_volumes_at_one_path", r"component shell: several volumes are mounted at /v"),
        ("secret_key", r"shell uses key none of secret db, which has no such key.*secrets\.yaml"),
    ],
)
def test_what_no_pod_could_start_with_is_refused(
    bench: Bench, packages: Path, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        bench.run(packages / f"{name}.yaml")
    assert "ada" not in str(caught.value)
    assert not bench.events


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("secrets", r"task uses secret db, which is not on this machine.*secrets\.yaml"),
        ("config_maps", r"task uses config map app, which is not on.*config-maps\.yaml"),
    ],
)
def test_what_is_not_on_this_machine_is_refused(
    bench: Bench, packages: Path, name: str, message: str
) -> None:
    (bench.state / "secrets.yaml").unlink()
    (bench.state / "config-maps.yaml").unlink()
    with pytest.raises(ConfigError, match=message):
        bench.run(packages / f"{name}.yaml")
    assert not bench.events


def test_secrets_come_as_variables_and_files_and_are_not_logged(
    bench: Bench, packages: Path
) -> None:
    done = bench.run(packages / "secrets.yaml")
    assert printed(done, "task") == ["ada", "6"]  # a number that YAML would read as octal
    lines = ["it is ***, ***.", "***", "begins ***"]
    assert [line for _, line in bench.runner.logs(done.id)] == lines
    assert [event.text for event in bench.events if event.kind == "log"] == lines
    kept = [
        path
        for path in bench.state.rglob("*")
        if path.is_file() and "hunter2-ö".encode() in path.read_bytes()
    ]
    assert kept == [bench.state / "secrets.yaml"]


def test_names_of_secrets_and_config_maps_may_be_parameters(bench: Bench, packages: Path) -> None:
    package = packages / "named_secrets.yaml"
    done = bench.run(package, secret="db")
    assert printed(done, "task-2") == ["fast", "3"]
    assert printed(done, "for-loop-2.0.task") == ["ada", "ada"]
    (bench.state / "config-maps.yaml").write_text(
        "app: {mode: fast, level: 4}\nother: {mode: slow, level: 4}\n"
    )
    assert printed(bench.run(package, secret="db"), "task-2") == ["fast", "4"]
    failed = bench.run(package, secret="cloud", settings="other")
    assert "uses secret cloud, which is not on this machine" in failed.error
    assert printed(failed, "task-2") == ["slow", "4"]


def test_optional_objects_and_keys_may_be_missing(bench: Bench, packages: Path) -> None:
    assert printed(bench.run(packages / "optional.yaml"), "task") == ["so"]


def test_config_maps_come_as_variables_and_files(bench: Bench, packages: Path) -> None:
    package = packages / "config_maps.yaml"
    assert printed(bench.run(package), "task") == ["fast", "3"]
    (bench.state / "config-maps.yaml").write_text("app: {mode: slow, level: 3}\n")
    assert printed(bench.run(package), "task") == ["slow", "3"]
    (bench.state / "config-maps.yaml").write_text("app: {mode: slow, level: 0755}\n")
    assert printed(bench.run(package), "task") == ["slow", "0755"]


def test_empty_volumes_are_each_tasks_own(bench: Bench, packages: Path) -> None:
    done = bench.run(packages / "empty_volumes.yaml", caching=False)
    for name in ("task", "task-2"):
        found = printed(done, name)
        assert [word for word in found if not word.endswith(":")] == ["x", "y"]


def test_task_that_takes_too_long_is_stopped(bench: Bench, packages: Path) -> None:
    started = time.monotonic()
    done = bench.run(packages / "timeout.yaml")
    assert time.monotonic() - started >= 1
    task = done.task("shell")
    assert task is not None
    assert (task.state, task.error) == ("failed", "it took longer than its timeout of 1 s")
    assert printed(done, "shell-2") == ["done"]


@pytest.mark.parametrize("name", sorted(LISTED))
def test_function_without_a_meaning_here_is_listed_once(
    bench: Bench, packages: Path, name: str
) -> None:
    done = bench.run(packages / f"{name}.yaml")
    assert printed(done, "shell") == printed(done, "shell-2") == ["ran"]
    notes: list[Any] = [event.text for event in bench.events if "are ignored" in event.text]
    assert notes == [f"these settings are ignored on this machine: {LISTED[name]}"]
