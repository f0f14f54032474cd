"""Where promotions are reviewed."""

from __future__ import annotations

from typing import Literal, Protocol

from ctflow.lib.quick import dataclass

PullRequestState = Literal["open", "merged", "closed"]
StatusState = Literal["pending", "success", "failure"]


@dataclass(frozen=True)
class PullRequest:
    """A pull request (a merge request of GitLab), as it was when it was asked for.

    Attributes:
        id: what the forge calls it, such as its number.
        branch: its head branch; ``head`` is that branch's commit.
        base: the branch that it goes to.
        commit: what merged it, on the base branch; None where it is not merged.
    """

    id: str
    url: str
    branch: str
    head: str
    base: str
    state: PullRequestState
    title: str
    body: str
    commit: str | None = None


@dataclass(frozen=True)
class Approval:
    """A person's approval of a pull request, of the commit that they looked at."""

    by: str
    commit: str


class Forge(Protocol):
    """Where promotions are reviewed.

    Every method raises OutsideError when the forge cannot be reached or refuses.
    """

    def find(self, branch: str) -> PullRequest | None:
        """The pull request of a head branch: the open one, else the newest; None: there is none."""
        ...

    def ensure(self, branch: str, base: str, title: str, body: str) -> PullRequest | None:
        """Open the branch's pull request, or bring the open one up to date; exactly one is open.

        The branch is there already. Asking again with the same changes nothing. None where there
        is no forge: then the branch itself is the proposal.
        """
        ...

    def merge(self, request: PullRequest, message: str) -> str | None:
        """Merge it; the commit that did. One that is merged already stays as it is.

        None, and nothing is merged, where its head is not ``request.head`` any more, or where the
        forge's rules are not met yet (approvals, checks).
        """
        ...

    def close(self, branch: str, comment: str) -> None:
        """Close the branch's open pull request unmerged, saying why; none is no error."""
        ...

    def comment(self, request: PullRequest, topic: str, body: str) -> None:
        """Write the comment of a topic, or edit the one that is there: a topic has one comment."""
        ...

    def set_status(
        self, commit: str, context: str, state: StatusState, text: str, url: str = ""
    ) -> None:
        """Set a commit's status of that context; the newest counts."""
        ...

    def approvals(self, request: PullRequest) -> tuple[Approval, ...]:
        """Who approves it now, each person once with their last answer."""
        ...
