"""`ctflow cache prune` while others work: what a run needs stays, what nobody needs goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctflow.model import Image
from ctflow.ports import ignore
from ctflow.steps.context import discover_steps
from ctflow.steps.environments import UvEnvironments
from ctflow.steps.local_builder import LocalBuilder
from ctflow.steps.step_cache import CachedStep, entries, prune, tidy
from tests.projects import TinyProject

DAY = 86400.0


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    made = TinyProject(tmp_path, remote=False)
    made.env["CTFLOW_CACHE"] = str(tmp_path / "cache")
    return made


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def snapshots(project: TinyProject) -> set[str]:
    return {place.name for place in (project.state / "steps").iterdir() if place.is_dir()}


# -- at the command line --------------------------------------------------------------------------


def test_nothing_that_a_run_of_another_project_needs_is_pruned(
    project: TinyProject, tmp_path: Path
) -> None:
    """Its environment is shared with this project; its next task starts after the pruning."""
    other = TinyProject(tmp_path, "other", remote=False)
    other.env = project.env
    go = tmp_path / "go"
    with other.start("run", "-p", f"fault=wait:{go}") as running:
        until(lambda: any(other.state.glob("runs/*/train/log.txt")))
        pruned = project.json("cache", "prune")
        assert pruned["environments"] == []
        own = other.json("cache", "prune")
        assert (own["environments"], own["steps"]) == ([], [])
        go.touch()
        text, errors = running.communicate(timeout=60)
    assert running.returncode == 0, text + errors
    assert len(project.json("cache", "list")["environments"]) == 1
    dry = project.json("cache", "prune", "--dry-run")
    assert len(dry["environments"]) == 1
    assert project.json("cache", "prune")["environments"] == dry["environments"]
    assert project.json("cache", "list")["environments"] == []
    assert other.json("run")["state"] == "succeeded"  # made again


def test_snapshots_of_runs_whose_files_are_there_stay(project: TinyProject) -> None:
    first = project.json("run")
    project.write("steps/train/notes.txt", "built, and never run")
    project.ok("build")
    project.write("steps/train/notes.txt", "run later")
    second = project.json("run")
    digests = [{image["digest"][7:] for image in run["images"]} for run in (first, second)]
    listed = {one["digest"] for one in project.json("cache", "list")["steps"]}
    assert listed == snapshots(project)
    assert len(listed) == 4
    (gone,) = listed - digests[0] - digests[1]
    assert "1 step snapshot, " in project.ok("cache", "prune", "--dry-run")
    assert project.json("cache", "prune", "--older", "1d")["steps"] == []
    assert [one["digest"] for one in project.json("cache", "prune")["steps"]] == [gone]
    assert snapshots(project) == digests[0] | digests[1]
    project.write("steps/evaluate/notes.txt", "so that nothing comes from the cache")
    third = project.json("run", "--no-cache")
    project.ok("runs", "prune", "--keep", "1")
    project.ok("cache", "prune")
    assert snapshots(project) == {image["digest"][7:] for image in third["images"]}
    assert not [name for name in os.listdir(project.state / "steps") if gone in name]  # noqa: PTH208


def test_a_failed_run_goes_on_after_everything_was_pruned(project: TinyProject) -> None:
    failed = project.call("run", "-p", "fault=exit")
    assert failed.returncode == 4
    run = project.json("runs", "list")[0]["id"]
    project.write("steps/train/notes.txt", "another one by now")
    project.ok("cache", "prune")
    assert "task train failed" in project.fails(4, "run", "--resume", run)
    shutil.rmtree(project.state / "steps")
    line = project.fails(2, "run", "--resume", run)
    assert f"that run {run} needs is missing" in line
    assert "run `ctflow build` if the step has not changed since; otherwise start a new run" in line
    (project.folder / "steps/train/notes.txt").unlink()
    project.ok("build")
    assert "task train failed" in project.fails(4, "run", "--resume", run)


def test_outside_a_project_only_environments_are_listed(
    project: TinyProject, tmp_path: Path
) -> None:
    project.ok("build")
    done = project.call("cache", "list", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("1 environment, ")
    assert "1 environment, 2 step snapshots, " in project.ok("cache", "list")


# -- the snapshots themselves ---------------------------------------------------------------------


class Steps:
    """A project with one step, and its snapshots."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root / "project", root / "steps"
        self.environments = UvEnvironments(root / "cache")

    def builder(self) -> LocalBuilder:
        return LocalBuilder(self.folder, "p", None, "base", self.environments)

    def build(self, text: str, builder: LocalBuilder | None = None) -> Image:
        place = self.root / "steps" / "train"
        place.mkdir(parents=True, exist_ok=True)
        (place / "Dockerfile").write_text("FROM base\n")
        (place / "main.py").write_text(text)
        (image,) = (builder or self.builder()).build(discover_steps(self.root, {}), ignore)
        return image

    def digests(self) -> list[str]:
        return [one.digest for one in entries(self.folder)]


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def digest_of(image: Image) -> str:
    return image.digest.removeprefix("sha256:")


def used_ago(steps: Steps, image: Image, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(steps.folder / f"{digest_of(image)}.json", (at, at))


def test_what_was_built_is_held_until_its_process_ends(steps: Steps) -> None:
    building = steps.builder()
    image = steps.build("one", building)
    assert prune(steps.folder, ()) == []
    assert prune(steps.folder, (), dry_run=True) == []
    del building
    assert [one.digest for one in prune(steps.folder, ())] == [digest_of(image)]
    assert {place.name for place in steps.folder.iterdir()} <= {".tidied", "stat.json"}


def test_builds_remove_what_no_run_needs_and_nobody_used_for_a_day(steps: Steps) -> None:
    images = [steps.build(text) for text in ("one", "two", "three")]
    for image, days in zip(images, (2, 3, 0.5), strict=True):
        used_ago(steps, image, days * DAY)
    (steps.folder / ".tidied").unlink()
    builder = LocalBuilder(
        steps.folder, "p", None, "base", steps.environments,
        needed=lambda: {digest_of(images[0])},
    )  # fmt: skip
    last = steps.build("four", builder)
    assert set(steps.digests()) == {digest_of(one) for one in (images[0], images[2], last)}


def test_above_the_bound_needed_ones_go_too_the_oldest_first(steps: Steps) -> None:
    images = [steps.build(text * 100_000) for text in ("1", "2", "3")]
    for days, image in enumerate(images, 2):
        used_ago(steps, image, days * DAY)
    needed = steps.digests()
    size = max(one.size for one in entries(steps.folder))
    assert prune(steps.folder, needed, DAY, 2 * size, dry_run=True)[0].digest == needed[-1]
    (steps.folder / ".tidied").unlink()
    tidy(steps.folder, lambda: needed, 2 * size)
    assert steps.digests() == needed[:-1]
    used_ago(steps, images[0], 9 * DAY)
    tidy(steps.folder, tuple, 0)  # it was done just now
    assert len(steps.digests()) == 2


def test_use_is_noted(steps: Steps) -> None:
    image = steps.build("one")
    used_ago(steps, image, 2 * DAY)
    assert not steps.build("one").built
    assert prune(steps.folder, (), DAY) == []


@pytest.mark.parametrize("last", ["unlink", "rename"])
def test_what_a_killed_process_left_is_removed(steps: Steps, last: str) -> None:
    """Killed before the snapshot was renamed, and after."""
    steps.build("one")
    other = steps.build("two")
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from ctflow.steps.step_cache import prune; "
        f"real = Path.{last}; die = lambda *w, **k: (real(*w, **k), "
        f"os.kill(os.getpid(), signal.SIGKILL)); Path.{last} = die; "
        "prune(Path(sys.argv[1]), (sys.argv[2],))"
    )
    words = [sys.executable, "-c", code, str(steps.folder), digest_of(other)]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    assert steps.digests() == [digest_of(other)]
    assert len([place for place in steps.folder.iterdir() if place.is_dir()]) == 2
    prune(steps.folder, {digest_of(other)})
    assert [place.name for place in steps.folder.iterdir() if place.is_dir()] == [digest_of(other)]
    assert steps.build("one").built


def test_what_was_left_by_a_process_of_the_same_id_is_in_nobodys_way(steps: Steps) -> None:
    """In containers process ids come again; so does a snapshot."""
    name = digest_of(steps.build("one"))
    left = steps.folder / f".trash-{name}-{os.getpid()}"
    left.mkdir()
    (left / "main.py").write_text("one")
    removed = prune(steps.folder, ())
    assert [one.digest for one in removed] == [name]
    assert not left.exists()


def test_building_and_pruning_at_once(steps: Steps) -> None:
    """What a build returns is there, whatever others remove meanwhile."""
    over = threading.Event()
    removed: list[CachedStep] = []

    def pruner() -> None:
        while not over.is_set():
            removed.extend(prune(steps.folder, ()))

    thread = threading.Thread(target=pruner)
    thread.start()
    try:
        for number in range(60):
            builder = steps.builder()
            image = steps.build(f"{number % 3}", builder)
            workspace = builder.open(image.reference)
            assert workspace is not None
            assert (workspace.folder / "main.py").read_text() == f"{number % 3}"
    finally:
        over.set()
        thread.join()
    assert removed, "nothing was pruned meanwhile"
