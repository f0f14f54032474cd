"""Changes of the default branch where there is a forge: pushed, or merged by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctflow.config.project import Project
from ctflow.ports import PullRequest
from ctflow.release.proposals import proposals
from ctflow.stages.review import reject
from ctflow.stages.rollback import rollback
from ctflow.stages.why import why
from tests.contracts.fake_forge import FakeForge
from tests.integration.test_promotion import CONFIG, World, git


class ForgeWorld(World):
    """A project whose promotions are pull requests."""

    def __init__(self, base: Path, changes: str) -> None:
        super().__init__(base)
        self.forge = FakeForge(base / "bare.git")  # type: ignore[assignment]
        forge = {"kind": "gitea", "repository": "acme/digits", "changes": changes}
        self.project = Project.model_validate(CONFIG | {"forge": forge})

    @property
    def pulls(self) -> FakeForge:
        assert isinstance(self.forge, FakeForge)
        return self.forge

    def request(self, branch: str = "ctflow/staging/digits") -> PullRequest:
        found = self.pulls.find(branch)
        assert found is not None
        return found

    def merge(self, branch: str) -> None:
        """A person presses the forge's button."""
        assert self.pulls.merge(self.request(branch), "Merged by a person") is not None
        self.scm.fetch()

    def serves(self) -> str:
        self.scm.fetch()
        return why(self.project, "staging", self.scm).release.run


@pytest.fixture
def reviewed(tmp_path: Path) -> ForgeWorld:
    """Only pull requests change the default branch."""
    return ForgeWorld(tmp_path, "pull_request")


@pytest.fixture
def pushed(tmp_path: Path) -> ForgeWorld:
    """Whoever may pushes to the default branch."""
    return ForgeWorld(tmp_path, "push")


def test_a_promotion_is_one_pull_request_that_is_updated(pushed: ForgeWorld) -> None:
    run = pushed.run(1, 0.8)
    first = pushed.promote(run)
    assert first.url == pushed.request().url
    again = pushed.promote(run)
    assert (again.url, again.changed) == (first.url, False)
    newer = pushed.promote(pushed.run(2, 0.9))
    (request,) = pushed.pulls.open_requests()
    assert (newer.url, request.head) == (first.url, newer.commit)
    assert request.title.startswith("staging: serve digits")
    assert "r-2" in request.body
    assert "r-1" not in request.body


@pytest.mark.parametrize("changes", ["push", "pull_request"])
def test_approving_merges_the_pull_request(tmp_path: Path, changes: str) -> None:
    world = ForgeWorld(tmp_path, changes)
    world.promote(world.run(1, 0.8))
    merged = world.approve()
    assert merged.state == "merged"
    assert world.serves() == "r-1"
    request = world.request()
    assert request.state == "merged"
    message = git(world.work, "log", "-1", "--format=%B", str(merged.commit))
    assert "Ctflow-Run: r-1" in message
    assert "Approved-by: " in message
    assert world.scm.tip("ctflow/staging/digits") is None


def test_an_approved_one_waits_for_the_forges_rules(reviewed: ForgeWorld) -> None:
    reviewed.pulls.needed = 1
    reviewed.promote(reviewed.run(1, 0.8))
    waits = reviewed.approve()
    assert (waits.state, waits.url) == ("open", reviewed.request().url)
    assert proposals(reviewed.project, reviewed.scm) != []
    reviewed.pulls.approve_as(reviewed.request(), "ada")
    assert reviewed.approve().state == "merged"
    assert reviewed.serves() == "r-1"


def test_what_a_person_merged_on_the_forge_is_merged(reviewed: ForgeWorld) -> None:
    shown = reviewed.promote(reviewed.run(1, 0.8))
    reviewed.merge("ctflow/staging/digits")
    assert reviewed.serves() == "r-1"
    assert proposals(reviewed.project, reviewed.scm) == []
    assert reviewed.promote(reviewed.run(1, 0.8)).state == "none"
    assert shown.url == reviewed.request().url


def test_a_rejection_is_a_pull_request_with_the_hold(reviewed: ForgeWorld) -> None:
    reviewed.promote(reviewed.run(1, 0.8))
    for now in (2e9, 2e9 + 60):  # the second time changes the same one
        waits = reject(
            reviewed.project, "staging", "slow <b>", scm=reviewed.scm, forge=reviewed.forge, now=now
        )
        assert waits.state == "open"
        assert waits.url == reviewed.request("ctflow/staging/digits-hold").url
    assert len(reviewed.pulls.open_requests()) == 2
    assert len(proposals(reviewed.project, reviewed.scm)) == 1
    reviewed.merge("ctflow/staging/digits-hold")
    assert proposals(reviewed.project, reviewed.scm) == []
    done = reject(
        reviewed.project, "staging", "slow", scm=reviewed.scm, forge=reviewed.forge, now=3e9
    )
    assert done.state == "rejected"
    assert reviewed.request().state == "closed"


def test_a_rejection_that_is_pushed_closes_the_pull_request(pushed: ForgeWorld) -> None:
    pushed.promote(pushed.run(1, 0.8))
    opened = pushed.request()
    done = reject(pushed.project, "staging", "slow", scm=pushed.scm, forge=pushed.forge, now=2e9)
    assert done.state == "rejected"
    assert pushed.request().state == "closed"
    assert pushed.pulls.comments(opened) == ["slow"]


def test_a_rollback_is_one_pull_request(reviewed: ForgeWorld) -> None:
    reviewed.serve(1, 0.75)
    reviewed.serve(2, 0.85)
    for now in (2e9, 2e9 + 60):
        done = rollback(
            reviewed.project, "staging", "slow", scm=reviewed.scm, forge=reviewed.forge, now=now
        )
        assert done.pending == reviewed.request("ctflow/staging/digits-rollback").url
        assert done.restored.run == "r-1"
    assert reviewed.serves() == "r-2"  # until it is merged
    assert len(reviewed.pulls.open_requests()) == 1
    reviewed.merge("ctflow/staging/digits-rollback")
    assert reviewed.serves() == "r-1"
    assert why(reviewed.project, "staging", reviewed.scm).holds[0].digest == done.taken.model.digest
