"""The paths of a release's files in git."""

from __future__ import annotations

FOLDER = "deploy"
SERVING = "serving"


def folder(environment: str) -> str:
    """The folder of an environment's desired state."""
    return f"{FOLDER}/{environment}"


def path(environment: str, name: str) -> str:
    """The path of one of its files."""
    return f"{FOLDER}/{environment}/{name}"
