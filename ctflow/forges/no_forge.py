"""Where there is no forge: the ``Forge`` port for promotions that are branches and nothing more."""

from __future__ import annotations

from ctflow.errors import StateError
from ctflow.ports import Approval, PullRequest, StatusState


class NoForge:
    """Nobody to tell: the branch itself is the proposal, ``ctflow promotions`` reviews it."""

    def find(self, branch: str) -> PullRequest | None:
        """There is no pull request."""
        return None

    def ensure(self, branch: str, base: str, title: str, body: str) -> PullRequest | None:
        """There is none to open."""
        return None

    def merge(self, request: PullRequest, message: str) -> str | None:
        """Raises StateError: no pull request can have come from here."""
        raise StateError(f"there is no forge to merge {request.url} on")

    def close(self, branch: str, comment: str) -> None:
        """There is no pull request to close; the hold in git says why."""

    def comment(self, request: PullRequest, topic: str, body: str) -> None:
        """There is nowhere to write it."""

    def set_status(
        self, commit: str, context: str, state: StatusState, text: str, url: str = ""
    ) -> None:
        """There is nowhere to show it."""

    def approvals(self, request: PullRequest) -> tuple[Approval, ...]:
        """Approvals are kept in git; see ``ctflow.release.approval``."""
        return ()
