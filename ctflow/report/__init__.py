"""Reports: one model of blocks, rendered as markdown, as terminal text and as HTML."""

from ctflow.report.promotion import Confusion, Evidence, promotion_report, verdict_blocks

__all__ = ["Confusion", "Evidence", "promotion_report", "verdict_blocks"]
