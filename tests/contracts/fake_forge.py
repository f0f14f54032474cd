"""A forge without a server: pull requests in a file beside a bare repository.

It passes the contract of the ``Forge`` port (``test_forge.py``), as every real one has to.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError
from ctflow.ports import Approval, PullRequest, StatusState


class FakeForge:
    """The ``Forge`` port over a bare repository.

    Args:
        bare: the repository.
        needed: how many people must approve before it merges.
    """

    def __init__(self, bare: Path, needed: int = 0) -> None:
        self._bare = bare
        self._file = bare.with_suffix(".pulls.json")
        self.needed = needed

    # -- the port ---------------------------------------------------------------------------------

    def find(self, branch: str) -> PullRequest | None:
        data = self._data()
        found = [self._seen(one) for one in data["pulls"] if one["branch"] == branch]
        still_open = [one for one in found if one.state == "open"]
        return next(reversed(still_open or found), None)

    def ensure(self, branch: str, base: str, title: str, body: str) -> PullRequest | None:
        head = self._tip(branch)
        if head is None:
            raise OutsideError(f"the forge has no branch {branch}")
        found = self.find(branch)
        data = self._data()
        if found is None or found.state != "open":
            number = str(len(data["pulls"]) + 1)
            url = f"http://forge.test/pulls/{number}"
            found = PullRequest(number, url, branch, head, base, "open", title, body)
            data["pulls"].append(asdict(found))
        found = replace(found, head=head, base=base, title=title, body=body)
        self._keep(data, found)
        return found

    def merge(self, request: PullRequest, message: str) -> str | None:
        now = self._by_id(request.id)
        if now.state == "merged":
            return now.commit
        if now.state != "open" or now.head != request.head:
            return None
        if len(self.approvals(request)) < self.needed:
            return None
        with tempfile.TemporaryDirectory() as place:
            self._git("clone", "-q", "-b", now.base, str(self._bare), place)
            words = ("-C", place, "merge", "-q", "--no-ff", "-m", message, now.head)
            self._git("-C", place, "fetch", "-q", "origin", now.branch)
            self._git(*words)
            self._git("-C", place, "push", "-q", "origin", now.base)
            commit = self._git("-C", place, "rev-parse", "HEAD")
        self._keep(self._data(), replace(now, state="merged", commit=commit))
        return commit

    def close(self, branch: str, comment: str) -> None:
        found = self.find(branch)
        if found is not None and found.state == "open":
            self.comment(found, "closed", comment)
            self._keep(self._data(), replace(found, state="closed"))

    def comment(self, request: PullRequest, topic: str, body: str) -> None:
        data = self._data()
        data["comments"].setdefault(request.id, {})[topic] = body
        self._write(data)

    def set_status(
        self, commit: str, context: str, state: StatusState, text: str, url: str = ""
    ) -> None:
        data = self._data()
        data["statuses"].setdefault(commit, {})[context] = [state, text, url]
        self._write(data)

    def approvals(self, request: PullRequest) -> tuple[Approval, ...]:
        found = self._data()["approvals"].get(request.id, {})
        return tuple(Approval(by, commit) for by, commit in found.items())

    # -- what a person does, and sees -------------------------------------------------------------

    def approve_as(self, request: PullRequest, by: str) -> None:
        """A person approves what they see."""
        data = self._data()
        data["approvals"].setdefault(request.id, {})[by] = request.head
        self._write(data)

    def comments(self, request: PullRequest) -> list[str]:
        """The comments, as a person reads them."""
        return list(self._data()["comments"].get(request.id, {}).values())

    def statuses(self, commit: str) -> dict[str, list[str]]:
        """(state, text, url) by context."""
        found: dict[str, list[str]] = self._data()["statuses"].get(commit, {})
        return found

    def open_requests(self) -> list[PullRequest]:
        """All that are open."""
        found = (self._seen(one) for one in self._data()["pulls"])
        return [one for one in found if one.state == "open"]

    # -- keeping ----------------------------------------------------------------------------------

    def _data(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"pulls": [], "comments": {}, "statuses": {}, "approvals": {}}
        data: dict[str, Any] = json.loads(self._file.read_text())
        return data

    def _write(self, data: dict[str, Any]) -> None:
        self._file.write_text(json.dumps(data))

    def _keep(self, data: dict[str, Any], one: PullRequest) -> None:
        data["pulls"] = [asdict(one) if old["id"] == one.id else old for old in data["pulls"]]
        self._write(data)

    def _by_id(self, id: str) -> PullRequest:
        for one in self._data()["pulls"]:
            if one["id"] == id:
                return self._seen(one)
        raise OutsideError(f"the forge has no pull request {id}")

    def _seen(self, kept: dict[str, Any]) -> PullRequest:
        """As the branches are now: a push that holds its head merges it, as on every forge."""
        one = PullRequest(**kept)
        if one.state != "open":
            return one
        head = self._tip(one.branch) or one.head
        base = self._tip(one.base)
        for pushed in (one.head, head):
            if base is not None and self._holds(base, pushed):
                merged = replace(one, head=pushed, state="merged", commit=base)
                self._keep(self._data(), merged)
                return merged
        if self._tip(one.branch) is None:
            return replace(one, state="closed")
        return replace(one, head=head)

    def _tip(self, branch: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(self._bare), "rev-parse", "-q", "--verify", f"refs/heads/{branch}"],
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() or None

    def _holds(self, newer: str, older: str) -> bool:
        words = ["git", "-C", str(self._bare), "merge-base", "--is-ancestor", older, newer]
        return subprocess.run(words, capture_output=True).returncode == 0

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True)
        if done.returncode:
            raise OutsideError(f"git {words[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()
