"""Snapshots of steps, made and found again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctflow.errors import ConfigError, StateError
from ctflow.model import Image
from ctflow.ports import ignore
from ctflow.steps.context import context_files, discover_steps
from ctflow.steps.environments import UvEnvironments
from ctflow.steps.local_builder import LocalBuilder
from ctflow.steps.snapshot import StatCache
from tests.work import counted


class Project:
    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.state = root / ".ctflow" / "steps"
        self.environments = UvEnvironments(cache)

    def step(self, name: str, **files: str) -> Path:
        folder = self.root / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in ({"Dockerfile": "FROM base\n", "main.py": f"# {name}\n"} | files).items():
            (folder / file).write_text(text)
        return folder

    def builder(self, registry: str | None = None) -> LocalBuilder:
        return LocalBuilder(self.state, "digits", registry, "python:3.11-slim", self.environments)

    def build(self, builder: LocalBuilder | None = None) -> tuple[Image, ...]:
        return (builder or self.builder()).build(discover_steps(self.root, {}), ignore)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tmp_path / "cache")


def test_builds_once_then_only_what_changed(project: Project) -> None:
    for name in ("collect", "train"):
        project.step(name)
    first = project.build()
    assert [(one.step, one.built) for one in first] == [("collect", True), ("train", True)]
    assert first[0].reference == f"ctflow.local/digits/collect@{first[0].digest}"
    second = project.build()
    assert [one.built for one in second] == [False, False]
    assert [one.reference for one in second] == [one.reference for one in first]
    project.step("train", **{"main.py": "# other\n"})
    third = project.build()
    assert [one.built for one in third] == [False, True]
    assert third[1].digest != first[1].digest


def test_registry_prefixes_references(project: Project) -> None:
    project.step("train")
    builder = project.builder("ghcr.io/acme/digits/")
    (image,) = project.build(builder)
    assert image.reference == f"ghcr.io/acme/digits/train@{image.digest}"
    assert builder.open(image.reference) is not None


def test_workspace_holds_the_context(project: Project) -> None:
    folder = project.step("train", **{".dockerignore": "secret", "secret": "x"})
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("main.py")
    builder = project.builder()
    (image,) = project.build(builder)
    workspace = builder.open(image.reference)
    assert workspace is not None
    assert workspace.step == "train"
    assert sorted(one.name for one in workspace.folder.iterdir()) == [
        ".dockerignore", "Dockerfile", "link", "main.py", "run.sh",
    ]  # fmt: skip
    assert os.access(workspace.folder / "run.sh", os.X_OK)
    assert (workspace.folder / "link").readlink() == Path("main.py")
    ran = subprocess.run(
        [workspace.environment.python, "-c", "import sys; print(sys.prefix)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(ran.stdout.strip()) == workspace.environment.path


def test_opens_nothing_it_has_not_built(project: Project) -> None:
    project.step("train")
    builder = project.builder()
    (image,) = project.build(builder)
    assert builder.open(image.reference.replace("digits", "other")) is None
    assert builder.open(f"ctflow.local/digits/train@sha256:{'0' * 64}") is None
    assert builder.open("ctflow.local/digits/train@sha256:../../../etc") is None
    assert builder.open("python:3.11-slim") is None
    assert builder.open("") is None


def test_key_is_of_content_and_requirements(project: Project) -> None:
    project.step("a", **{"main.py": "same"})
    project.step("b", **{"main.py": "same"})
    project.step("c", **{"main.py": "same", "requirements.txt": "# nothing\n"})
    builder = project.builder()
    workspaces = [builder.open(one.reference) for one in project.build(builder)]
    keys = [one.key for one in workspaces if one is not None]
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


def test_step_that_wrote_over_its_source_is_reported_and_mended(project: Project) -> None:
    project.step("train")
    builder = project.builder()
    (image,) = project.build(builder)
    workspace = builder.open(image.reference)
    assert workspace is not None
    main = workspace.folder / "main.py"
    main.chmod(0o644)
    main.write_text("# changed behind our back\n")
    with pytest.raises(StateError, match="its snapshot was changed"):
        builder.open(image.reference)
    (again,) = project.build()
    assert again.built
    assert again.digest == image.digest
    assert main.read_text() == "# train\n"
    assert project.builder().open(image.reference) is not None


def test_what_a_step_left_behind_is_removed_when_nobody_runs_in_it(project: Project) -> None:
    project.step("train")
    (image,) = project.build()
    folder = project.state / image.digest.removeprefix("sha256:")
    (folder / "left").mkdir()
    (folder / "left" / "over").write_text("x")
    (folder / "__pycache__").mkdir()
    (again,) = project.build()
    assert again.built
    assert not (folder / "left").exists()
    assert (folder / "__pycache__").exists()
    assert not project.build()[0].built


def test_empty_folders_are_there_and_may_be_written_into(project: Project) -> None:
    (project.step("train") / "out/deep").mkdir(parents=True)
    builder = project.builder()
    (image,) = project.build(builder)
    workspace = builder.open(image.reference)
    assert workspace is not None
    out = workspace.folder / "out/deep"
    assert list(out.iterdir()) == []
    (out / "scratch").write_text("left behind")
    assert builder.open(image.reference) is not None  # no source of the step was changed


def test_what_was_left_in_an_empty_folder_is_removed(project: Project) -> None:
    (project.step("train") / "out").mkdir()
    (image,) = project.build()
    folder = project.state / image.digest.removeprefix("sha256:")
    (folder / "out/left").write_text("x")
    assert project.build()[0].built
    assert list((folder / "out").iterdir()) == []
    for instead in (None, "a file"):
        (folder / "out").rmdir()
        if instead is not None:
            (folder / "out").write_text(instead)
        assert project.build()[0].built
        assert (folder / "out").is_dir()
    assert not project.build()[0].built


def test_what_a_running_step_wrote_stays(project: Project) -> None:
    project.step("train")
    running = project.builder()
    (image,) = project.build(running)
    workspace = running.open(image.reference)
    assert workspace is not None
    (workspace.folder / "scratch").write_text("in use")
    project.build()
    assert (workspace.folder / "scratch").read_text() == "in use"


def test_lost_snapshot_or_index_is_made_again(project: Project) -> None:
    project.step("train")
    (image,) = project.build()
    folder = project.state / image.digest.removeprefix("sha256:")
    shutil.rmtree(folder)
    assert project.build()[0].built
    (project.state / f"{folder.name}.json").write_text('{"requirements"')
    assert project.builder().open(image.reference) is None
    assert project.build()[0].built
    assert project.builder().open(image.reference) is not None


def test_a_changed_file_of_same_size_and_time_is_seen(project: Project) -> None:
    main = project.step("train", **{"main.py": "aaaa"}) / "main.py"
    os.utime(main, (1, 1))
    (before,) = project.build()
    main.write_text("bbbb")
    os.utime(main, (1, 1))
    (after,) = project.build()
    assert before.digest != after.digest


def test_digests_are_remembered(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.step("train")
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("ctflow.steps.snapshot.time.time_ns", lambda: later)
    project.build()
    known = json.loads((project.state / "stat.json").read_text())
    assert set(known) == {str(folder / "main.py"), str(folder / "Dockerfile")}
    # Were a file read again, its digest would not be the one that the memory is made to hold.
    (project.state / "stat.json").write_text(
        json.dumps({path: [*mark[:-1], "0" * 64] for path, mark in known.items()})
    )
    cache = StatCache(project.state / "stat.json")
    (source,) = discover_steps(project.root, {})
    assert {cache.digest(one) for one in context_files(source)} == {"0" * 64}


def test_errors_name_the_step(project: Project) -> None:
    project.step("train", **{"requirements.txt": "-r other.txt\n"})
    with pytest.raises(ConfigError, match=r"step train: requirements\.txt: '-r other\.txt'"):
        project.build()
    (project.root / "steps/train/requirements.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"step train: requirements\.txt is not UTF-8"):
        project.build()


def test_fifty_unchanged_steps_are_quick(project: Project) -> None:
    for number in range(50):
        project.step(f"step{number}")
    project.build()
    with counted() as work:
        images = project.build()
    assert work.processes == 0
    assert work.opened <= 50 * 7  # no file of a step is read again
    assert not any(one.built for one in images)


def test_two_processes_build_the_same_project(project: Project) -> None:
    for number in range(6):
        project.step(f"step{number}")
    code = (
        "import sys; from pathlib import Path; from tests.integration.test_local_builder import"
        " Project; p = Project(Path(sys.argv[1]), Path(sys.argv[2])); "
        "print([i.digest for i in p.build()])"
    )
    cache = project.root.parent / "cache"
    command = [sys.executable, "-c", code, str(project.root), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [one.communicate(timeout=60)[0] for one in running]
    assert [one.returncode for one in running] == [0, 0, 0]
    assert len(set(printed)) == 1
    builder = project.builder()
    assert all(builder.open(one.reference) for one in project.build(builder))
