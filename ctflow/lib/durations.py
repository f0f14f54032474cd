"""Lengths of time as people write them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """``"5m"`` -> 300.0; units ms, s, m, h. Raises ValueError for anything else."""
    match = _DURATION.fullmatch(duration.strip())
    if not match:
        raise ValueError(f"{duration!r} is not a duration such as 30s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]
