"""The report of why an environment serves its model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from ctflow.lib.digests import short
from ctflow.model import Hold, Release
from ctflow.report.blocks import Block, Bullets, Heading, Table
from ctflow.report.promotion import lineage, verdict_blocks


def why_report(
    release: Release,
    commit: str,
    at: float,
    approved_by: str,
    subject: str,
    holds: Sequence[Hold],
) -> list[Block]:
    """Which model, by whose word, on what evidence, from what, and what is on hold."""
    when = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    blocks: list[Block] = [
        Heading(1, f"{release.environment} serves {release.project} {short(release.model.digest)}"),
        Table(
            ("what", "which"),
            (
                ("approved by", approved_by),
                ("when", when),
                ("commit", f"{commit[:12]} {subject}"),
                ("run", release.run),
            ),
        ),
    ]
    blocks += verdict_blocks(release.verdict)
    blocks += lineage(release)
    if holds:
        rows = (f"{short(hold.digest)}: {hold.reason} ({hold.by})" for hold in holds)
        blocks += [Heading(2, "On hold"), Bullets(tuple(rows))]
    return blocks
