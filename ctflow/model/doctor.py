"""What `ctflow doctor` finds."""

from __future__ import annotations

from typing import Literal

from ctflow.lib.quick import dataclass

Mark = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line about a system.

    Attributes:
        mark: ``failed``: what the project needs does not work; ``warning``: something else.
        mode: how it is set up, such as ``multi-user``.
        who: who asks it; never a secret.
        next: the mend.
    """

    system: str
    mark: Mark
    text: str
    version: str = ""
    mode: str = ""
    who: str = ""
    next: str = ""


@dataclass(frozen=True)
class Skipped:
    """Why a system was not asked."""

    reason: str
