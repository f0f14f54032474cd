"""Every verb with ``--dry-run``: it says what it would do, and changes nothing at all."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from ctflow.cli import VERBS
from tests.projects import TinyProject, git

#: How each is called, and a piece of what it says.
CALLS: dict[str, list[tuple[list[str], str]]] = {
    "build": [(["build"], "would be built")],
    "ct": [
        (["ct", "-p", "skill=0.95"], "would be judged, and proposed if the gate says promote"),
        (["ct", "--json"], '"dry_run": true'),
    ],
    "promote": [(["promote"], "would be proposed on branch ctflow/staging/tiny")],
    "deploy": [
        (["deploy"], "serves"),
        (["deploy", "staging", "--stop"], "would stop"),
    ],
    "rollback": [(["rollback", "staging", "--reason", "slow"], "would go back to")],
    "upload": [],  # asks Kubeflow Pipelines: tests/integration/test_kubeflow.py
    "schedule sync": [],  # the same: tests/integration/test_schedule.py
    "images prune": [],  # asks a registry: test_list_and_prune in tests/e2e
    "runs prune": [(["runs", "prune", "--keep", "1"], "would")],
    "cache prune": [(["cache", "prune"], "would")],
}


def verbs() -> Iterator[str]:
    """The verbs that know ``--dry-run``, as their parsers say."""
    for verb, (module, _) in VERBS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"ctflow.cli.{module}").add_arguments(parser)
        if "--dry-run" in parser._option_string_actions:
            yield verb
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, below in action.choices.items():
                    if "--dry-run" in below._option_string_actions:
                        yield f"{verb} {name}"


def test_every_dry_run_is_tested_here() -> None:
    assert sorted(verbs()) == sorted(CALLS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """Two releases, the newer one served; a run that could be proposed, and one that was not."""
    base = tmp_path_factory.mktemp("dry")
    made = TinyProject(base)
    made.env["CTFLOW_CACHE"] = str(base / "cache")
    for skill in ("0.7", "0.8"):
        made.ok("ct", "-p", f"skill={skill}")
        made.approve()
    made.ok("deploy", "staging")
    git(made.folder, "pull", "-q", "--ff-only", "origin", "master")
    made.ok("run", "-p", "skill=0.85")
    made.ok("run", "-p", "skill=0.9")
    made.write("steps/train/notes.txt", "makes a build necessary")
    made.commit("notes")
    made.push()
    yield made
    made.ok("deploy", "staging", "--stop")


def everything(project: TinyProject) -> dict[str, str]:
    """All files below the project, its repository, its state and the cache, and all processes."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(project.base):
        for name in names:
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                found[str(path)] = "link or socket"
            elif "/cache/environments/" not in str(path):
                # SQLite's own files of a record that is read; git's record of the last fetch.
                if not name.endswith(("-shm", "-wal")) and name not in ("FETCH_HEAD", "index"):
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "there"
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(project.base)) and process.status() != "zombie":
                found[f"process {process.pid}"] = process.name()
        except (psutil.Error, OSError):  # it has ended meanwhile
            continue
    return found


@pytest.mark.parametrize(
    ("words", "says"), [call for calls in CALLS.values() for call in calls],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_nothing_changes(project: TinyProject, words: list[str], says: str) -> None:
    before = everything(project)
    assert says in project.ok(*words, "--dry-run")
    after = everything(project)
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}
    assert before.keys() - after.keys() == set()


def test_a_dry_run_makes_no_state(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    if project.state.exists():
        import shutil

        shutil.rmtree(project.state)
    project.ok("ct", "--dry-run")
    assert not project.state.exists()
    assert git(project.folder, "status", "--porcelain") == ""
