"""Rules on metrics of queries: what such a rule has to say, and what it cannot."""

from __future__ import annotations

from ctflow.config.metric_names import is_of_queries


def query_fault(
    metric: str, predictions: str | None, group: str | None, others: dict[str, bool]
) -> str:
    """Why a rule on that metric is none, or "". ``others`` are keys it does not go with: given."""
    if not is_of_queries(metric):
        return ""
    if predictions and not group:
        return (
            f"{metric} needs 'group: column', the column of the predictions that names the query "
            "of a row"
        )
    if any(others.values()):
        return f"{metric} goes with none of {', '.join(others)}"
    return ""
