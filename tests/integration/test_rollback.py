"""Rolling back twice: the same call again goes back no further, unless that is what is wanted."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctflow.config.settings import load_settings
from ctflow.errors import StateError
from ctflow.stages.rollback import roll_back
from ctflow.tools import Tools
from ctflow.wiring import wire
from tests.projects import TinyProject, git

WORDS = ("rollback", "staging", "--reason", "slow", "--no-deploy")


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    """Three releases of staging, none of them deployed."""
    TinyProject.keep_package(tmp_path / "package")
    made = TinyProject(tmp_path, remote=False)
    for skill in ("0.7", "0.8", "0.9"):
        made.ok("ct", "-p", f"skill={skill}")
        made.approve()
    return made


def skill(project: TinyProject) -> float:
    found: float = project.json("why", "staging")["release"]["parameters"]["skill"]
    return found


def tools_of(project: TinyProject, serves: str | None) -> Tools:
    """The project's tools, with a serving target that says what it serves."""
    tools = wire(load_settings(project.folder, os.environ))
    server = SimpleNamespace(status=lambda environment: SimpleNamespace(model=serves))
    tools.__dict__["target"] = lambda environment: server
    return tools


def test_again_without_a_deployment_changes_nothing(project: TinyProject) -> None:
    first = project.json(*WORDS)
    assert (first["already"], skill(project)) == (False, 0.8)
    tip = project.tip()
    again = project.json(*WORDS)
    assert again == {**first, "already": True}
    for words in (WORDS, (*WORDS, "--dry-run"), (*WORDS, "--to-run", first["restored"]["run"])):
        said = project.ok(*words)
        assert f"staging   is back already at {first['restored']['model']['digest'][7:19]}" in said
        assert "it is not deployed yet: run `ctflow deploy staging`" in said
        assert "to go back further, deploy it first, or use --to-run RUN" in said
    assert project.tip() == tip


def test_further_back_by_naming_the_run(project: TinyProject) -> None:
    oldest = project.json("runs", "list")[-1]["id"]
    project.ok(*WORDS)
    assert f"of run {oldest};" in project.ok(*WORDS, "--to-run", oldest)
    assert skill(project) == 0.7
    assert len(project.json("why", "staging")["holds"]) == 2
    tip = project.tip()
    project.ok(*WORDS)
    assert project.tip() == tip


def test_further_back_once_it_was_deployed(project: TinyProject) -> None:
    first = project.json(*WORDS)
    restored: Any = first["restored"]["model"]["digest"]
    taken: Any = first["taken"]["model"]["digest"]
    for serves in (None, taken):
        done = roll_back(tools_of(project, serves), "staging", "slow", None, False)
        assert done.already
    done = roll_back(tools_of(project, restored), "staging", "slow too", None, False)
    assert not done.already
    assert skill(project) == 0.7
    tools = tools_of(project, done.restored.model.digest)
    with pytest.raises(StateError, match="no earlier release"):
        roll_back(tools, "staging", "slow", None, False)


def test_a_new_release_is_taken_back_as_ever(project: TinyProject) -> None:
    project.ok(*WORDS)
    project.ok("ct", "-p", "skill=0.95")
    project.approve()
    done = project.json(*WORDS)
    assert not done["already"]
    assert done["taken"]["parameters"]["skill"] == 0.95
    assert skill(project) == 0.8


def test_once_its_hold_is_removed_it_is_no_rollback_any_more(project: TinyProject) -> None:
    project.ok(*WORDS)
    git(project.folder, "rm", "-q", "deploy/staging/holds.yaml")
    project.commit("it was not that slow")
    assert project.json(*WORDS)["already"] is False
