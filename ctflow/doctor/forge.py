"""Where promotions are reviewed."""

from __future__ import annotations

from collections.abc import Sequence

from ctflow.model.doctor import Finding, Skipped


class Forge:
    """The forge that ctflow.yaml names.

    Args:
        kinds: those that this version has.
    """

    system, needed = "forge", True

    def __init__(self, kind: str, kinds: Sequence[str]) -> None:
        self._kind, self._kinds = kind, kinds

    def look(self) -> Sequence[Finding] | Skipped:
        """Only whether this version has it."""
        if self._kind == "none":
            return Skipped("forge.kind is none: a promotion is a branch")
        if self._kind in self._kinds:
            return Skipped(f"{self._kind} is not asked by this version")
        text = f"forge.kind {self._kind!r} is not in this version"
        return [Finding(self.system, "failed", text, next=f"use one of: {', '.join(self._kinds)}")]
