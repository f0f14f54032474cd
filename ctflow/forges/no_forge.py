"""Where there is no forge: the ``Forge`` port for promotions that are branches and nothing more."""

from __future__ import annotations


class NoForge:
    """Nobody to tell: the branch itself is the proposal, ``ctflow promotions`` reviews it."""

    def publish(self, branch: str, title: str, body: str) -> str | None:
        """There is no pull request, so there is no URL."""
        return None

    def close(self, branch: str, comment: str) -> None:
        """There is no pull request to close; the hold in git says why."""
