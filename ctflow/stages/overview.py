"""Overview: what serves where, what is proposed, and what is on hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ctflow.lib.digests import short
from ctflow.lib.quick import dataclass
from ctflow.model import Deployment, Hold
from ctflow.release import files
from ctflow.release.observed import observed
from ctflow.release.proposals import proposals
from ctflow.tools import Tools


@dataclass(frozen=True)
class Row:
    """One environment of ``ctflow status``."""

    deployment: Deployment
    run: str
    proposed: str
    holds: tuple[Hold, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def status(tools: Tools) -> list[Row]:
    """What serves where, beside what git says, as far as this clone has fetched."""
    tip = tools.scm.tip(tools.project.branch)
    waiting = {one.promotion.environment: one for one in proposals(tools.project, tools.scm)}
    rows = []
    for name in tools.project.environments:
        release = files.at(tools.scm, tip, name) if tip else None
        holds = files.holds_at(tools.scm, tip, name) if tip else ()
        one = waiting.get(name)
        proposed = ""
        if one:
            proposed = f"model {short(one.release.model.digest)} of run {one.release.run}"
        deployment = observed(tools.project, name, scm=tools.scm, server=tools.target(name))
        rows.append(Row(deployment, release.run if release else "", proposed, holds))
    return rows
