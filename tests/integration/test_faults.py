"""Bad input and faults, at the command line: one clear line, the right exit code, nothing lost, and
the next call recovers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.projects import TinyProject, git


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """A project that was trained once, for tests that change nothing in it."""
    project = TinyProject(tmp_path_factory.mktemp("seen"))
    project.ok("run")
    return project


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path, remote=False)


# -- configuration and pipeline -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("project: tiny", "project: [tiny", "ctflow.yaml:2: not valid YAML"),
        ("model:", "modle:", "ctflow.yaml:4: unknown key 'modle'; did you mean 'model'?"),
        ("min: 0.5", "min: high", "ctflow.yaml:6: gate.0.min: input should be a valid number"),
        ("pipeline: pipeline.py:tiny", "pipeline: pipe.py:tiny",
         "there is no pipeline file pipe.py; did you mean 'pipeline.py'?"),
        ("pipeline.py:tiny", "pipeline.py:tinny", "did you mean 'tiny'?"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_line(
    alone: TinyProject, old: str, new: str, says: str
) -> None:
    alone.edit("ctflow.yaml", old, new)
    assert says in alone.fails(2, "run")
    alone.edit("ctflow.yaml", new, old)
    assert alone.json("run")["state"] == "succeeded"


def test_without_a_ctflow_yaml_there_is_no_project(tmp_path: Path, alone: TinyProject) -> None:
    (alone.folder / "ctflow.yaml").unlink()
    line = alone.fails(2, "status")
    assert line.startswith(f"no ctflow.yaml in {alone.folder} or above it; go into")
    assert not (alone.state / "record.db").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('trained.outputs["model"]', 'trained.outputs["mdel"]', "pipeline.py:31: KeyError"),
        ("def tiny(", "def tiny(:", "pipeline.py:29: SyntaxError"),
        ('ctflow.image("train")', 'ctflow.image("trian")', "trian"),
        ("import ctflow\n", "import ctflow\nimport nowhere_at_all\n", "nowhere_at_all"),
        ("import ctflow\n", "import ctflow, os\nos._exit(3)\n", "ended with exit code 3"),
    ],
)
def test_a_pipeline_that_does_not_compile(
    alone: TinyProject, old: str, new: str, says: str
) -> None:
    alone.edit("pipeline.py", old, new)
    assert says in alone.fails(2, "compile")
    alone.edit("pipeline.py", new, old)
    alone.ok("compile")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "-p", "skil=1"], "did you mean 'skill'"),
        (["run", "-p", "skill"], "--param skill is not name=value"),
        (["run", "-p", "skill=high"], "skill"),
        (["run", "-p", "skill=[0.5"], 'parameter skill: "[0.5" is not a number'),
        (["run", "--set", "parameters.skil=1"], "did you mean 'skill'"),
        (["gate", "--to", "stagin"], "there is no environment 'stagin'"),
        (["promote", "--to", "stagin"], "there is no environment 'stagin'"),
        (["ct", "--to", "stagin"], "there is no environment 'stagin'"),
        (["deploy", "stagin"], "there is no environment 'stagin'"),
        (["why", "stagin"], "there is no environment 'stagin'"),
        (["rollback", "stagin", "--reason", "x"], "there is no environment 'stagin'"),
        (["promotions", "approve", "stagin", "0123456789"], "there is no environment 'stagin'"),
        (["promotions", "reject", "stagin", "--reason", "x"], "there is no environment 'stagin'"),
        (["gate", "r-none"], "r-none"),
        (["promote", "r-none"], "r-none"),
        (["runs", "show", "r-none"], "r-none"),
        (["run", "--resume", "r-none"], "r-none"),
        (["gate", "--override"], "--override needs a reason"),
        (["gate", "--reason", "x"], "--reason goes with --override"),
        (["deploy", "staging"], "master holds no release for staging"),
        (["rollback", "staging", "--reason", "x"], "nothing to roll back"),
        (["why", "staging"], "staging"),
        (["promotions", "show", "staging"], "nothing is proposed for staging"),
        (["promotions", "approve", "staging"], "nothing is proposed for staging"),
        (["promotions", "approve", "staging", "0123456789"], "nothing is proposed for staging"),
        (["trigger", "logs"], "there is no such job"),
        (["build", "--only", "trian"], "trian"),
    ],
)
def test_wrong_arguments(seen: TinyProject, words: list[str], says: str) -> None:
    assert says in seen.fails(2, *words)


def test_an_unknown_environment_is_said_before_the_training(project: TinyProject) -> None:
    assert "no environment 'stagin'" in project.fails(2, "ct", "--to", "stagin")
    assert project.json("runs", "list") == []


# -- steps, metrics, predictions ------------------------------------------------------------------


def test_a_step_that_fails_shows_its_last_lines(alone: TinyProject) -> None:
    done = alone.call("run", "-p", "fault=exit", "--json")
    assert done.returncode == 4
    *_, said = (line for line in done.stderr.splitlines() if line.startswith("ctflow: "))
    run = json.loads(done.stdout)
    assert said.startswith("ctflow: task train failed")
    assert f"see `ctflow runs logs {run['id']} train`" in said
    shown = done.stderr[done.stderr.index(said) :].splitlines()[1:]
    assert "  epoch 39" in shown
    assert r"  the data is upside down \x1b[31m" in shown
    assert "  epoch 1" not in shown
    assert "\x1b" not in done.stdout + done.stderr
    assert "epoch 1\n" in alone.ok("runs", "logs", run["id"], "train")
    assert "is failed, and only a succeeded run can be judged" in alone.fails(2, "gate")
    assert alone.json("run")["state"] == "succeeded"


@pytest.mark.parametrize(
    ("fault", "says"), [("nan", "accuracy is nan"), ("missing", "accuracy is missing")]
)
def test_a_metric_that_is_nan_or_missing_is_rejected(
    project: TinyProject, fault: str, says: str
) -> None:
    done = project.call("ct", "-p", f"fault={fault}")
    assert done.returncode == 3
    assert "reject" in done.stdout
    assert says.lower() in done.stdout.lower(), done.stdout
    assert project.tip("ctflow/staging/tiny") is None
    verdict = project.json("gate", code=3)
    assert (verdict["decision"], verdict["kind"]) == ("reject", "verdict")
    line = project.fails(3, "promote")
    assert "the gate says reject for staging" in line


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [("empty", 2, "no examples"), ("no-predictions", 4, "wrote nothing to evaluate.predictions")],
)
def test_predictions_that_are_missing_or_empty(
    project: TinyProject, fault: str, code: int, says: str
) -> None:
    done = project.call("ct", "-p", f"fault={fault}")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert project.tip("ctflow/staging/tiny") is None
    project.ok("ct")
    assert project.tip("ctflow/staging/tiny")


def test_a_rule_for_a_task_that_is_not_there(seen: TinyProject) -> None:
    rule = "gate=[{metric: accuracy, over: champion, predictions: evalute.predictions}]"
    line = seen.fails(2, "gate", "--set", rule)
    assert "has no task 'evalute' for 'evalute.predictions'" in line
    assert "its tasks: evaluate, train" in line
    output = "gate=[{metric: accuracy, over: champion, predictions: evaluate.answers}]"
    assert "has no output 'answers'" in seen.fails(2, "gate", "--set", output)
    model = seen.fails(2, "gate", "--set", "model.artifact=fit.model")
    assert "has no task 'fit'" in model


def test_artifacts_that_are_gone_or_changed(project: TinyProject) -> None:
    run = project.json("run")
    model = Path(artifact(run, "train", "model"))
    (model / "skill").write_text("0.99")
    assert "was changed after its run" in project.fails(2, "promote")
    shutil.rmtree(model)
    assert "is gone" in project.fails(2, "promote")
    project.ok("ct")  # the cache sees that its content is gone, and trains again


def artifact(run: dict[str, Any], task: str, name: str) -> str:
    found = next(one for one in run["tasks"] if one["name"] == task)
    uri: str = found["artifacts"][name][0]["uri"]
    return uri


# -- git ------------------------------------------------------------------------------------------


def test_a_link_out_of_the_serving_code_stops_ct_before_the_training(project: TinyProject) -> None:
    (project.folder / "shared.py").write_text("SHARED = 1\n")
    (project.folder / "serving" / "shared.py").symlink_to("../shared.py")
    project.commit("a link")
    project.push()
    line = project.fails(2, "ct")
    assert "the link serving/shared.py leads out of serving/, to '../shared.py'; copy the" in line
    assert project.json("runs", "list") == []
    project.ok("run")
    assert "the link serving/shared.py leads out of serving/" in project.fails(2, "promote")
    assert project.json("promotions", "list") == []
    (project.folder / "serving" / "shared.py").unlink()
    (project.folder / "serving" / "same.py").symlink_to("predictor.py")
    project.commit("a link that stays inside")
    project.push()
    project.ok("ct")
    project.approve()
    project.ok("deploy", "staging")
    project.ok("deploy", "staging", "--stop")


def test_uncommitted_changes_stop_ct_before_the_training(project: TinyProject) -> None:
    project.write("steps/train/notes.txt", "try this")
    line = project.fails(2, "ct")
    assert "there are uncommitted changes (steps/train/notes.txt); commit them" in line
    assert project.json("runs", "list") == []
    run = project.json("run")
    assert run["commit"]["dirty"] == ["steps/train/notes.txt"]
    assert "was made from uncommitted changes" in project.fails(2, "promote")
    project.commit("notes")
    assert "is on no branch of the remote; `git push origin master`" in project.fails(2, "ct")
    assert len(project.json("runs", "list")) == 1
    project.push()
    project.ok("ct")


def test_a_detached_head_is_as_good_as_a_branch(project: TinyProject) -> None:
    git(project.folder, "checkout", "-q", "--detach")
    project.ok("ct")
    project.approve()
    assert git(project.folder, "rev-parse", "HEAD") != project.tip()
    assert git(project.folder, "status", "--porcelain") == ""


def test_no_git_identity_is_said_before_the_training(project: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "nobody").write_text("")
    project.env["GIT_CONFIG_GLOBAL"] = str(tmp_path / "nobody")
    line = project.fails(2, "ct")
    assert line.startswith("git does not know who you are; run `git config --global user.name")
    assert project.json("runs", "list") == []
    assert project.json("run")["state"] == "succeeded"
    del project.env["GIT_CONFIG_GLOBAL"]
    project.ok("ct")


def test_outside_a_repository_run_works_and_ct_says_why_not(alone: TinyProject) -> None:
    shutil.rmtree(alone.folder / ".git")
    assert "is not in a git repository" in alone.fails(2, "ct")
    run = alone.json("run")
    assert (run["state"], run["commit"]) == ("succeeded", None)
    assert "is not in a git repository" in alone.fails(2, "gate")
    git(alone.folder, "init", "-q", "-b", "master")
    assert "has no commit yet; commit the project first" in alone.fails(2, "ct")
    assert alone.json("run")["commit"] is None
    assert "names no commit" in alone.fails(2, "promote")
    alone.write(".gitignore", "__pycache__/\n")
    alone.commit("first")
    alone.ok("ct")
    assert alone.tip("ctflow/staging/tiny")


def test_a_remote_that_is_away_loses_nothing(project: TinyProject) -> None:
    project.bare.rename(project.base / "away")
    run = project.call("ct")
    assert run.returncode == 5
    assert "git fetch failed" in run.stderr
    assert "Traceback" not in run.stderr
    assert project.json("runs", "list") == []  # said before the training
    run = project.json("run")
    (project.base / "away").rename(project.bare)
    project.ok("promote", run["id"])
    assert project.tip("ctflow/staging/tiny")


def test_a_push_that_is_refused_by_the_remote(project: TinyProject) -> None:
    hook = project.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'the branch is protected'\nexit 1\n")
    hook.chmod(0o755)
    done = project.call("ct")
    assert done.returncode == 5
    assert "the branch is protected" in done.stderr
    hook.unlink()
    project.ok("promote")


# -- local state ----------------------------------------------------------------------------------


def test_a_damaged_record_is_named_and_can_be_moved_away(alone: TinyProject) -> None:
    alone.ok("run")
    record = alone.state / "record.db"
    for place in alone.state.glob("record.db-*"):
        place.unlink()
    record.write_bytes(b"this is no database" * 1000)
    for verb in (["runs", "list"], ["run"], ["gate"]):
        line = alone.fails(5, *verb)
        assert f"cannot use the record {record}" in line
        assert "move the file away" in line
    record.rename(alone.base / "broken")
    assert alone.json("run")["state"] == "succeeded"


@pytest.mark.parametrize("size", [0, 16, 100, 4096, 20_000])
def test_a_truncated_record_is_named_and_nothing_is_lost(alone: TinyProject, size: int) -> None:
    run = alone.json("run")
    record = alone.state / "record.db"
    with sqlite3.connect(record) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = record.read_bytes()
    record.write_bytes(whole[:size])
    files = sorted(alone.state.glob("runs/**/*"))
    for words in (["runs", "list"], ["run"], ["runs", "prune", "--keep", "1"], ["cache", "prune"]):
        line = alone.fails(5, *words)
        assert f"the record {record}" in line
        assert "move the file away to start a new record" in line
    assert sorted(alone.state.glob("runs/**/*")) == files
    record.write_bytes(whole)
    assert alone.json("runs", "show") == run


def test_pruning_names_the_folders_that_no_run_has(alone: TinyProject) -> None:
    """They may be those of a record that was lost."""
    run = alone.json("run")
    (alone.state / "record.db").rename(alone.base / "kept.db")
    alone.ok("run", "-p", "skill=0.7")
    said = alone.ok("runs", "prune", "--dry-run")
    assert f"would remove 0 runs, 1 folders of no recorded run ({run['id']}), " in said
    assert alone.json("runs", "prune")["unknown"] == [run["id"]]
    assert "removed 0 runs, 0.0 MB" in alone.ok("runs", "prune")


def test_a_run_whose_package_is_gone_or_changed(alone: TinyProject) -> None:
    alone.fails(4, "run", "-p", "fault=exit")
    (package,) = alone.state.glob("packages/*.yaml")
    content = package.read_bytes()
    for changed, says in (
        (content + b"\n# x\n", "is not what it was"),
        (b"{", "is gone or damaged"),
    ):
        package.write_bytes(changed)
        assert says in alone.fails(2, "run", "--retry-failed", "latest")
    package.unlink()
    line = alone.fails(2, "run", "--retry-failed", "latest")
    assert "start a new run, or `ctflow compile` if nothing has changed since" in line
    package.write_bytes(content)
    assert "task train failed" in alone.fails(4, "run", "--retry-failed", "latest")


def test_two_processes_go_on_with_one_run(alone: TinyProject) -> None:
    go = alone.base / "go"
    with alone.start("run", "-p", f"fault=wait:{go}") as first, killed(first):
        wait_for_log(alone)
    (run,) = alone.json("runs", "list")
    assert run["state"] == "canceled"
    (alone.state / "runs" / run["id"] / "train" / "log.txt").unlink()
    with alone.start("run", "--resume", run["id"]) as going, killed(going):
        wait_for_log(alone)
        line = alone.fails(2, "run", "--resume", run["id"])
        assert line == f"run {run['id']} is still running; wait for its end"
        assert alone.json("runs", "list")[0]["state"] == "running"
        go.touch()
        _, errors = going.communicate(timeout=60)
        assert going.returncode == 0, errors
    assert alone.json("runs", "show")["state"] == "succeeded"


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """At the end of the block, whatever it ends with, the process is killed."""
    try:
        yield
    finally:
        process.kill()


def wait_for_log(project: TinyProject) -> None:
    end = time.monotonic() + 30
    while not any(project.state.glob("runs/*/train/log.txt")):
        assert time.monotonic() < end, "the task did not start"
        time.sleep(0.02)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_damaged_files_of_the_state_are_made_again(alone: TinyProject, content: bytes) -> None:
    first = alone.json("run")
    for pattern in ("packages/index-*.json", "steps/*.json", "packages/*.yaml"):
        found = list(alone.state.glob(pattern))
        assert found, pattern
        for place in found:
            place.write_bytes(content)
    again = alone.json("run")
    assert again["state"] == "succeeded"
    assert again["package"] == first["package"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layout": 99, "current": null}'])
def test_a_damaged_serving_state_is_named(alone: TinyProject, content: str) -> None:
    alone.ok("ct")
    alone.approve()
    place = alone.state / "serving" / "staging" / "state.json"
    place.parent.mkdir(parents=True)
    place.write_text(content)
    for words in (["status"], ["deploy", "staging"]):
        line = alone.fails(2, *words)
        assert str(place) in line
        assert "delete it" in line


def test_a_damaged_model_in_the_store_is_never_served(alone: TinyProject) -> None:
    alone.ok("ct")
    alone.approve()
    (skill,) = (alone.state / "models").glob("sha256-*/*/skill")
    skill.write_text("0.1")
    assert "is damaged" in alone.fails(5, "deploy", "staging")


# -- places that cannot be written ----------------------------------------------------------------


def root() -> bool:
    return os.geteuid() == 0


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory at ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill a file system to its last byte."""
    file = place / "filler"
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"f" * 4096)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return file


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below the folder can be written."""
    places = [folder, *(one for one in folder.rglob("*") if one.is_dir())]
    if root():
        mount = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
    else:
        for place in places:
            place.chmod(0o555)
    try:
        yield
    finally:
        if root():
            subprocess.run(["umount", str(folder)], check=True)
        else:
            for place in places:
                place.chmod(0o755)


def test_a_project_that_cannot_be_written(tmp_path: Path, alone: TinyProject) -> None:
    with read_only(alone.folder):
        line = alone.fails(5, "run")
        assert str(alone.folder / ".ctflow") in line
        assert "Read-only file system" in line or "permission" in line.lower()
        alone.env["CTFLOW_STATE"] = str(tmp_path / "state")
        assert alone.json("run")["state"] == "succeeded"


def test_a_state_that_cannot_be_written_can_be_read(alone: TinyProject) -> None:
    run = alone.json("run")
    alone.fails(4, "run", "-p", "fault=exit")
    with read_only(alone.state):
        assert [one["state"] for one in alone.json("runs", "list")] == ["failed", "succeeded"]
        assert alone.json("runs", "show", run["id"]) == run
        assert "training" in alone.ok("runs", "logs", run["id"])
        assert len(alone.json("runs", "prune", "--keep", "1", "--dry-run")["runs"]) == 1
        for words in (["run"], ["run", "--resume", "latest"], ["runs", "prune", "--keep", "1"]):
            line = alone.fails(5, *words)
            assert "Read-only file system" in line or "permission" in line.lower()
    assert len(alone.json("runs", "list")) == 2


if not root():

    def test_full_disks_in_a_namespace_of_our_own() -> None:
        """Mounting needs root: the tests of ``TestFullDisk`` run as that, in a user namespace."""
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", *words, "-q", "-o", "addopts=",
             f"{__file__}::TestFullDisk"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"{done.stdout}{done.stderr}\nif this system forbids user namespaces, run it as root"
        )
        assert " passed" in done.stdout
        assert "skipped" not in done.stdout


class TestFullDisk:
    """A disk that fills up at each stage; all of it goes on once there is room."""

    __test__ = root()

    def test_before_and_during_a_run(self, alone: TinyProject) -> None:
        with mounted(alone.state, "size=2m"):
            alone.ok("compile")
            alone.ok("run", "-p", "skill=0.7")
            done = alone.call("run", "-p", "size=4000000")
            # Neither the step's model nor its end can be written.
            assert done.returncode == 5, done.stderr
            assert "disk is full" in done.stderr
            assert "Traceback" not in done.stderr
            for place in alone.state.glob("runs/*/**/weights"):
                place.unlink()
            filler = fill(alone.state)
            done = alone.call("run", "-p", "skill=0.75")
            assert done.returncode == 5, done.stderr
            assert "No space left on device" in done.stderr or "disk is full" in done.stderr
            assert "Traceback" not in done.stderr
            filler.unlink()
            states = [one["state"] for one in alone.json("runs", "list")]
            assert states[-1] == "succeeded"
            assert not {"running", "pending"} & set(states)
            assert alone.json("run", "-p", "skill=0.75")["state"] == "succeeded"
            with sqlite3.connect(alone.state / "record.db") as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_during_a_build_and_a_compilation(self, alone: TinyProject) -> None:
        with mounted(alone.state, "size=256k"):
            filler = fill(alone.state)
            for verb in ("build", "compile"):
                line = alone.fails(5, verb)
                assert "No space left on device" in line or "the disk is full" in line
            filler.unlink()
            assert alone.json("run")["state"] == "succeeded"

    def test_during_a_promotion(self, project: TinyProject) -> None:
        store = project.base / "store"
        project.edit("ctflow.yaml", "environments:", f"store: {{models: {store}}}\nenvironments:")
        project.commit("store")
        project.push()
        run = project.json("run", "-p", "size=600000")
        with mounted(store, "size=256k"):
            line = project.fails(5, "promote", run["id"], "--json")
            assert "the disk is full" in line
            assert str(store) in line
            assert project.tip("ctflow/staging/tiny") is None
            assert [place.name for place in store.iterdir()] == []
        project.ok("promote", run["id"])
        assert project.tip("ctflow/staging/tiny")

    def test_during_the_promotions_commit(self, project: TinyProject) -> None:
        run = project.json("run")
        objects = project.folder / ".git" / "objects"
        kept = project.base / "objects"
        shutil.copytree(objects, kept)
        with mounted(objects, "size=512k"):
            shutil.copytree(kept, objects, dirs_exist_ok=True)
            fill(objects)
            line = project.fails(5, "promote", run["id"], "--json")
            assert "disk" in line.lower() or "no space" in line.lower()
        git(project.folder, "fsck", "--strict")
        project.ok("promote", run["id"])

    def test_during_a_deployment(self, project: TinyProject) -> None:
        project.ok("ct")
        project.approve()
        with mounted(project.state / "serving", "size=128k") as place:
            filler = fill(place)
            line = project.fails(5, "deploy", "staging")
            assert "the disk is full" in line
            filler.unlink()
            assert project.json("status")[0]["deployment"]["state"] == "absent"


def test_a_file_size_limit_is_an_error_like_a_full_disk(project: TinyProject) -> None:
    run = project.json("run", "-p", "size=600000")
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = project.call("promote", run["id"], preexec_fn=limit)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert project.tip("ctflow/staging/tiny") is None
    project.ok("promote", run["id"])


# -- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (["compile"], None, "cannot read"),
        (["compile"], "{", "is not JSON"),
        (["compile"], "\x80", "is not JSON"),
        (["compile"], "[]", "does not hold the result of a stage"),
        (["compile"], '{"kind": ["x"]}', "does not hold the result of a stage"),
        (["compile"], '{"kind": "images", "version": 99}', "has layout 99, but this ctflow reads"),
        (["compile"], '{"kind": "images", "version": 1}', "is not a valid images document"),
        (
            ["run"],
            '{"kind": "package", "version": 1, "project": 5}',
            "is not a valid package document",
        ),
        (["gate"], '{"kind": "run", "version": 1}', "is not a valid run document"),
        (["promote"], '{"kind": "verdict", "version": 1}', "is not a valid verdict document"),
    ],
)
def test_documents_that_are_none(
    seen: TinyProject, tmp_path: Path, words: list[str], text: str | None, says: str
) -> None:
    file = tmp_path / "given.json"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    line = seen.fails(2, *words, "--from", str(file))
    assert says in line
    assert str(file) in line


@pytest.mark.parametrize("verb", ["compile", "run", "gate", "promote"])
def test_a_document_of_another_stage_is_refused(
    seen: TinyProject, tmp_path: Path, verb: str
) -> None:
    given = "verdict" if verb in ("compile", "run") else "images"
    words = ["gate"] if given == "verdict" else ["build"]
    file = tmp_path / "given.json"
    file.write_text(json.dumps(seen.json(*words)))
    line = seen.fails(2, verb, "--from", str(file))
    assert f"{file} holds a {given}; give" in line


def test_a_record_that_was_cut_in_the_middle(alone: TinyProject) -> None:
    alone.ok("run")
    record = alone.state / "record.db"
    with sqlite3.connect(record) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(record.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 4096] = os.urandom(len(data[at : at + 4096]))
    record.write_bytes(data)
    for verb in (["runs", "list"], ["run"]):
        line = alone.fails(5, *verb)
        assert str(record) in line
        assert "move the file away" in line
