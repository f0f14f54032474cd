"""kill -9 at any of its acts: nothing is lost, and the same call again ends as if never killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.projects import TinyProject, git

BRANCH = "ctflow/staging/tiny"
#: How often each command is killed: at acts spread evenly over all that it does.
KILLS = int(os.environ.get("CTFLOW_TESTS_KILLS", "5"))
KILLED = str(Path(__file__).parents[1] / "killed.py")
SEED = 20


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


class World:
    """A project as it was before the command; ``fresh`` gives it back after each kill."""

    def __init__(self, base: Path) -> None:
        self.project = TinyProject(base / "world")
        self.base = base

    def keep(self) -> None:
        """This is how each trial starts."""
        shutil.copytree(self.project.base, self.base / "kept", symlinks=True)

    def fresh(self) -> None:
        """As it was kept, at the same paths."""
        shutil.rmtree(self.project.base)
        shutil.copytree(self.base / "kept", self.project.base, symlinks=True)

    def state(self) -> dict[str, Any]:
        """What a person would compare: the branches' content, the proposals, the holds."""
        bare = self.project.bare
        tree = git(bare, "rev-parse", "master^{tree}")
        return {
            "branches": git(bare, "for-each-ref", "--format=%(refname)").split(),
            "merges": len(git(bare, "rev-list", "--merges", "master").split()),
            "commits": len(git(bare, "rev-list", "master").split()),
            "master": tree,
        }

    def check(self) -> None:
        """The record and both repositories are whole, and nobody was left behind."""
        record = self.project.state / "record.db"
        if record.exists():
            connection = sqlite3.connect(record)
            try:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            finally:
                connection.close()
        deadline = time.monotonic() + 20
        while left := alive(self.project.base):
            assert time.monotonic() < deadline, [one.cmdline() for one in left]
            time.sleep(0.05)
        # Only now: git itself, which was not killed, has ended what it was at.
        for place in (self.project.folder / ".git", self.project.bare):
            git(place, "fsck", "--strict", "--no-dangling")
            assert not list(place.rglob("*.lock")), "a lock of git's is left"


def alive(base: Path) -> list[psutil.Process]:
    """The living processes that work below ``base`` or were told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = str(base) in " ".join(process.cmdline())
            if process.pid != os.getpid() and (told or process.cwd().startswith(str(base))):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def killed(world: World, act: int, *words: str) -> bool:
    """Call ctflow, killed at that act; whether it came to that (it may do a few acts less)."""
    program = (KILLED, str(act), str(int(signal.SIGKILL)), str(world.base / "acts"))
    process = world.project.start(*words, program=program, start_new_session=True)
    with process:
        out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), out + err
    return process.returncode != 0


def acts_of(world: World, *words: str) -> list[int]:
    """Let the command do its work, from the kept state on; the acts to kill it at.

    Twice, and the second counts: the first may fill the user's caches, which no trial does again.
    """
    for _ in range(2):
        world.fresh()
        assert not killed(world, 0, *words)
    total = int((world.base / "acts").read_text())
    rng = random.Random(SEED)
    # One in each slice of all that it does: early, late and all between.
    edges = [1 + total * number // KILLS for number in range(KILLS + 1)]
    return [rng.randrange(low, max(high, low + 1)) for low, high in pairwise(edges)]


def kill_and_call_again(world: World, *words: str) -> None:
    """Kill the command again and again, each time at another act, and call it again."""
    world.keep()
    acts = acts_of(world, *words)
    wanted = world.state()
    tip = world.project.tip(BRANCH)
    for act in acts:
        world.fresh()
        assert killed(world, act, *words)
        world.check()
        again = world.project.call(*words)
        text = f"killed at act {act}: {again.stdout}{again.stderr}"
        assert again.returncode == 0, text
        assert world.state() == wanted, text
        if words[0] == "promote":
            assert world.project.tip(BRANCH) == tip, text  # the very same commit
        world.check()


def test_promote(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = world.project.json("run")
    kill_and_call_again(world, "promote", run["id"])


def test_approve(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.project.ok("ct")
    kill_and_call_again(world, "promotions", "approve", "staging", world.project.proposed())


def test_continuous_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.project.edit("ctflow.yaml", "staging: {}", "staging: {merge: auto}")
    world.project.commit("auto")
    world.project.push()
    world.keep()
    acts = acts_of(world, "ct")
    wanted = world.state()
    came = 0
    for act in acts:
        world.fresh()
        came += killed(world, act, "ct")
        world.check()
        again = world.project.call("ct")
        assert again.returncode == 0, again.stdout + again.stderr
        found = world.state()
        assert {**found, "master": ""} == {**wanted, "master": ""}, again.stdout
        states = {run["state"] for run in world.project.json("runs", "list")}
        assert states <= {"succeeded", "failed", "canceled"}
        world.check()
    assert came >= KILLS - 1


def test_rollback(tmp_path: Path) -> None:
    """Killed after git moved and called again it may go back no further than once."""
    world = World(tmp_path)
    for skill in ("0.7", "0.8", "0.9"):
        world.project.ok("ct", "-p", f"skill={skill}")
        world.project.approve()
    words = ("rollback", "staging", "--reason", "slow", "--no-deploy")
    world.keep()
    before = world.project.tip()
    acts = acts_of(world, *words)
    for act in acts:
        world.fresh()
        killed(world, act, *words)
        world.check()
        world.project.ok(*words)
        answer = world.project.json("why", "staging")
        assert answer["release"]["parameters"]["skill"] == 0.8
        assert [hold["reason"] for hold in answer["holds"]] == ["slow"]
        assert len(git(world.project.bare, "rev-list", f"{before}..master").split()) == 1
        world.check()


def test_trigger_worker(tmp_path: Path) -> None:
    world = World(tmp_path)
    project = world.project
    queue = project.state / "trigger" / "jobs"
    queue.mkdir(parents=True)
    (queue / "000001.json").write_text(
        json.dumps(
            {"number": 1, "kind": "ct", "commit": project.tip(), "state": "waiting", "created": 1.0}
        )
    )
    world.keep()
    acts = acts_of(world, "trigger", "work")
    wanted = world.state()
    for act in acts:
        world.fresh()
        killed(world, act, "trigger", "work")
        project.ok("trigger", "work")
        (job,) = project.json("trigger", "status")
        assert (job["state"], job["code"]) == ("done", 0)
        assert world.state() == wanted
        world.check()
