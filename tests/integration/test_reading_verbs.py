"""Commands that only read are quick: which modules they import, how many git processes they start.

Counted, not timed: a busy machine changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import TinyProject

HEAVY = ("pydantic", "pydantic_core", "git", "gitdb", "numpy", "requests", "yaml", "cookiecutter",
         "kfp", "uv", "obstore")  # fmt: skip
CONFIG = """\
project: digits
gate:
  - {metric: accuracy, min: 0.8}
environments:
  staging: {}
  production: {after: staging}
"""
VERBS = (["status"], ["promotions", "list"], ["runs", "list"], ["config"], ["schema"],
         ["why", "staging"])  # fmt: skip
_SHIM = """\
#!/bin/sh
echo "$*" >> "$GIT_CALLS"
exec {git} "$@"
"""
_MODULES = """\
import json, sys
from ctflow.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as stream:
    json.dump(sorted(sys.modules), stream)
sys.exit(code)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "ctflow.yaml").write_text(CONFIG)
    for words in (["init", "-q", "-b", "master"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    git = shutil.which("git")
    assert git is not None
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(_SHIM.format(git=git))
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CALLS", str(tmp_path / "calls"))
    return folder


def modules(work: Path, words: list[str]) -> tuple[int, list[str]]:
    listing = work.parent / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", _MODULES, listing, *words], cwd=work, capture_output=True
    )
    return done.returncode, json.loads(listing.read_text())


def git_calls(work: Path) -> list[str]:
    calls = work.parent / "calls"
    found = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_reading_verb_imports_nothing_heavy(work: Path, words: list[str]) -> None:
    modules(work, ["config"])  # what is read of ctflow.yaml is kept
    code, found = modules(work, words)
    assert code == (2 if words[0] == "why" else 0)  # there is no release
    assert set(found) & set(HEAVY) == set()


@pytest.mark.parametrize("words", [["status"], ["promotions", "list"], ["why", "staging"]],
                         ids=" ".join)  # fmt: skip
def test_git_is_asked_in_few_processes(work: Path, words: list[str]) -> None:
    modules(work, words)
    calls = git_calls(work)
    assert 1 <= len(calls) <= 3, calls


def test_reading_runs_and_settings_asks_git_nothing(work: Path) -> None:
    for words in (["runs", "list"], ["config"], ["schema"]):
        modules(work, words)
    assert git_calls(work) == []


@pytest.mark.parametrize("fault", ["", "exit"])
def test_a_run_that_has_ended_is_shown_as_when_it_was_watched(tmp_path: Path, fault: str) -> None:
    """``runs wait``: the run's id, and its tasks in the order in which they ran."""
    TinyProject.keep_package(tmp_path / "package")
    project = TinyProject(tmp_path, remote=False)
    watched, again = project.call("run", "-p", f"fault={fault}"), project.call("runs", "wait")
    assert watched.returncode == again.returncode == (4 if fault else 0)
    assert again.stderr == watched.stderr
    *_, last = watched.stdout.splitlines()
    assert last.startswith("  run       r-")
    lines = [line for line in watched.stdout.splitlines() if "building" not in line]
    assert again.stdout.splitlines() == [line for line in lines if " | " not in line]
