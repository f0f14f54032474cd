"""Looking at one system outside, without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ctflow.model.doctor import Finding, Skipped


class Check(Protocol):
    """A look at one system. It reads only."""

    @property
    def system(self) -> str:
        """Its name, in a word or two."""
        ...

    @property
    def needed(self) -> bool:
        """Whether the project cannot work without it."""
        ...

    def look(self) -> Sequence[Finding] | Skipped:
        """What is found. A CtflowError is a finding too."""
        ...
