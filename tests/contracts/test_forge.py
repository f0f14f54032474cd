"""The contract of the ``Forge`` port. Every forge passes it: a fake that does not is no fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctflow.errors import OutsideError
from ctflow.ports import PullRequest
from tests.contracts.fake_forge import FakeForge
from tests.projects import git


@dataclass
class Place:
    """A forge, and a clone of its repository."""

    forge: FakeForge
    work: Path

    def push(self, branch: str, name: str, text: str) -> str:
        """A commit on a branch from the default branch's tip, or on the branch; pushed."""
        git(self.work, "fetch", "-q", "origin")
        known = git(self.work, "branch", "--list", branch)
        git(self.work, "checkout", "-q", *(() if known else ("-b",)), branch,
            *(() if known else ("origin/master",)))  # fmt: skip
        (self.work / name).write_text(text)
        git(self.work, "add", ".")
        git(self.work, "commit", "-qm", f"{name}: {text}")
        git(self.work, "push", "-q", "origin", branch)
        return git(self.work, "rev-parse", "HEAD").strip()

    def opened(self, branch: str = "change", title: str = "A change") -> PullRequest:
        found = self.forge.ensure(branch, "master", title, "Why.")
        assert found is not None
        return found

    def master(self) -> str:
        git(self.work, "fetch", "-q", "origin")
        return git(self.work, "rev-parse", "origin/master").strip()


def fake(base: Path) -> Place:
    git(base, "init", "-q", "--bare", "-b", "master", "bare.git")
    git(base, "clone", "-q", str(base / "bare.git"), "work")
    work = base / "work"
    git(work, "checkout", "-q", "-b", "master")
    (work / "first").write_text("first")
    git(work, "add", ".")
    git(work, "commit", "-qm", "first")
    git(work, "push", "-q", "origin", "master")
    return Place(FakeForge(base / "bare.git"), work)


MAKERS: dict[str, Callable[[Path], Place]] = {"fake": fake}


@pytest.fixture(params=list(MAKERS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return MAKERS[request.param](tmp_path)


def test_a_pull_request_is_opened_once_and_brought_up_to_date(place: Place) -> None:
    first = place.push("change", "a", "1")
    assert place.forge.find("change") is None
    opened = place.opened()
    assert (opened.head, opened.base, opened.state) == (first, "master", "open")
    assert opened.url.endswith(opened.id)
    second = place.push("change", "a", "2")
    again = place.opened(title="Another title")
    assert (again.id, again.head, again.title, again.body) == (
        opened.id, second, "Another title", "Why.",
    )  # fmt: skip
    assert place.forge.find("change") == again
    assert len(place.forge.open_requests()) == 1


def test_a_branch_that_is_not_there_has_no_pull_request(place: Place) -> None:
    with pytest.raises(OutsideError, match="nowhere"):
        place.forge.ensure("nowhere", "master", "A change", "")
    assert place.forge.find("nowhere") is None


def test_it_merges_the_head_that_was_looked_at_and_no_other(place: Place) -> None:
    place.push("change", "a", "1")
    seen = place.opened()
    place.push("change", "a", "2")
    before = place.master()
    assert place.forge.merge(seen, "Merge it") is None
    assert place.master() == before
    now = place.opened()
    merged = place.forge.merge(now, "Merge it\n\nAll of it")
    assert merged == place.master()
    assert git(place.work, "log", "-1", "--format=%s", "origin/master").strip() == "Merge it"
    assert git(place.work, "show", "origin/master:a") == "2"
    assert place.forge.merge(now, "Merge it") == merged  # a second time changes nothing
    assert place.master() == merged
    found = place.forge.find("change")
    assert found is not None
    assert (found.state, found.commit) == ("merged", merged)


def test_what_was_pushed_to_the_base_is_merged_too(place: Place) -> None:
    place.push("change", "a", "1")
    place.opened()
    git(place.work, "push", "-q", "origin", "change:master")
    found = place.forge.find("change")
    assert found is not None
    assert found.state == "merged"
    # The branch can be used for the next one.
    place.push("change", "a", "2")
    again = place.opened()
    assert (again.state, again.id == found.id) == ("open", False)


def test_a_closed_one_says_why_and_another_can_be_opened(place: Place) -> None:
    place.push("change", "a", "1")
    opened = place.opened()
    place.forge.close("change", "Too slow <b>on arm</b>")
    found = place.forge.find("change")
    assert found is not None
    assert (found.id, found.state) == (opened.id, "closed")
    assert any("Too slow" in text for text in place.forge.comments(opened))
    assert place.forge.merge(opened, "Merge it") is None
    place.forge.close("change", "again")  # none is open: no error
    assert place.opened().id != opened.id


def test_a_topic_has_one_comment(place: Place) -> None:
    place.push("change", "a", "1")
    opened = place.opened()
    place.forge.comment(opened, "report", "first")
    place.forge.comment(opened, "deployment", "fine")
    place.forge.comment(opened, "report", "second")
    assert sorted(place.forge.comments(opened)) == ["fine", "second"]


def test_the_newest_status_of_a_context_counts(place: Place) -> None:
    commit = place.push("change", "a", "1")
    place.forge.set_status(commit, "ctflow/gate", "pending", "judging")
    place.forge.set_status(commit, "ctflow/gate", "success", "promote", "http://x.test/1")
    assert place.forge.statuses(commit) == {
        "ctflow/gate": ["success", "promote", "http://x.test/1"]
    }


def test_it_does_not_merge_before_the_forges_rules_are_met(place: Place) -> None:
    place.forge.needed = 1
    place.push("change", "a", "1")
    opened = place.opened()
    assert place.forge.merge(opened, "Merge it") is None
    place.forge.approve_as(opened, "ada")
    (approval,) = place.forge.approvals(opened)
    assert (approval.by, approval.commit) == ("ada", opened.head)
    assert place.forge.merge(opened, "Merge it") == place.master()
