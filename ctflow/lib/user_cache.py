"""Where this user's caches are, for all projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def cache_root(environ: Mapping[str, str]) -> Path:
    """The user's cache folder: CTFLOW_CACHE, else XDG_CACHE_HOME/ctflow, else ~/.cache/ctflow."""
    if environ.get("CTFLOW_CACHE"):
        return Path(environ["CTFLOW_CACHE"]).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "ctflow"
