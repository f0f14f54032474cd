"""Where promotions are reviewed."""

from __future__ import annotations

from typing import Protocol


class Forge(Protocol):
    """Where promotions are reviewed."""

    def publish(self, branch: str, title: str, body: str) -> str | None:
        """Open the branch's pull request, or update it; its URL (None: there is no forge)."""
        ...

    def close(self, branch: str, comment: str) -> None:
        """Close the branch's pull request unmerged."""
        ...
