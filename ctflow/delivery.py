"""What is delivered, with a project's tools: what the verbs about serving call."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ctflow.lib.digests import short
from ctflow.model import Deployment, Hold
from ctflow.ports import Watch
from ctflow.release import files as files
from ctflow.wiring import Tools

if TYPE_CHECKING:
    from ctflow.stages.review import Proposal
    from ctflow.stages.rollback import Rollback


def released(tools: Tools) -> list[str]:
    """The environments for which the default branch holds a release."""
    tools.scm.fetch()
    tip = tools.scm.tip(tools.project.branch)
    # Whether it can be read is the business of whoever deploys it.
    held = {
        name: tip and tools.scm.read(tip, files.path(name, files.RELEASE))
        for name in tools.project.environments
    }
    return [name for name, text in held.items() if text is not None]


def deploy(tools: Tools, environment: str, watch: Watch, dry_run: bool = False) -> Deployment:
    """Make the serving target match git."""
    from ctflow.stages.deploy import deploy as stage

    return stage(
        tools.project,
        environment,
        scm=tools.scm,
        store=tools.store,
        server=tools.server,
        scratch=tools.places["tmp"],
        watch=watch,
        dry_run=dry_run,
    )


def rollback(
    tools: Tools, environment: str, reason: str, to_run: str | None, dry_run: bool
) -> Rollback:
    """Change git, unless it is rolled back already and only the deployment is outstanding.

    The same call again, after a kill or by hand, so goes back no further: one that is to take back
    the restored release too comes after that one was deployed, or names another run.
    """
    from ctflow.stages.rollback import rollback as stage
    from ctflow.stages.rollback import standing

    tools.scm.fetch()
    tip = tools.scm.tip(tools.project.branch)
    before = standing(environment, tip, tools.scm) if tip else None
    if before and to_run in (None, before.restored.run):
        serves = tools.server.status(environment).model
        if serves != before.restored.model.digest:
            return before
    return stage(
        tools.project,
        environment,
        reason,
        scm=tools.scm,
        now=time.time(),
        run=to_run,
        dry_run=dry_run,
    )


def also_serving(tools: Tools, environment: str, digest: str) -> list[str]:
    """The other environments whose release is this model."""
    tip = tools.scm.tip(tools.project.branch)
    found = []
    for name in tools.project.environments:
        release = files.at(tools.scm, tip, name) if tip and name != environment else None
        if release is not None and release.model.digest == digest:
            found.append(name)
    return found


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
    from ctflow.stages.deploy import status as stage
    from ctflow.stages.review import proposals

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
        deployment = stage(tools.project, name, scm=tools.scm, server=tools.server)
        rows.append(Row(deployment, release.run if release else "", proposed, holds))
    return rows


def report_of(tools: Tools, one: Proposal) -> str:
    """A proposal's report as text for this terminal."""
    from ctflow.report import promotion_report
    from ctflow.report.text import to_text
    from ctflow.stages.promote import described

    report = promotion_report(
        described(
            one.release,
            one.current,
            one.base,
            one.commit,
            tools.project,
            scm=tools.scm,
            store=tools.store,
        )
    )
    return to_text(report, sys.stdout.isatty())
