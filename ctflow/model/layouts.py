"""The layouts of the JSON and YAML documents: the version of each kind, and how old ones are read.

A document says its ``version``. When a layout changes so that a reader of the old one would misread
it, the kind's version goes up by one and a function here turns the old layout into the next; what
git keeps from years ago is read through all of them in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctflow.errors import UsageError
from ctflow.model.runtimes import OWN

_CURRENT = {"release": 4}


def version_of(kind: str) -> int:
    """The layout that this ctflow writes."""
    return _CURRENT.get(kind, 1)


def upgraded(kind: str, data: dict[str, Any], where: str) -> dict[str, Any]:
    """A document's data, without ``version``, in the layout of today.

    Raises:
        UsageError: no version, or one of a newer ctflow.
    """
    data = dict(data)
    version = data.pop("version", None)
    newest = version_of(kind)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UsageError(
            f"{where} has no valid version, but {version!r}",
            next=f"give the {kind} as ctflow wrote it",
        )
    if version > newest:
        raise UsageError(
            f"{where} has layout {version}, but this ctflow reads only up to {newest}",
            cause="a newer ctflow wrote it",
            next="upgrade ctflow",
        )
    for step in range(version, newest):
        data = _UPGRADES[kind, step](data)
    return data


def _release_2(data: dict[str, Any]) -> dict[str, Any]:
    """Predictions by output and by what made them; before, one file that said neither."""
    kept = data.get("predictions")
    kept = [kept | {"output": "", "made": ""}] if isinstance(kept, dict) else []
    return data | {"predictions": kept}


def _release_3(data: dict[str, Any]) -> dict[str, Any]:
    """What serves may be a standard runtime; before, it was always the project's predictor."""
    serving = data.get("serving")
    if not isinstance(serving, dict):
        return data
    return data | {"serving": serving | {"runtime": OWN, "requirements": []}}


def _release_4(data: dict[str, Any]) -> dict[str, Any]:
    """The predictor may be an image; before, its files were all that a release said."""
    serving = data.get("serving")
    if not isinstance(serving, dict):
        return data
    return data | {"serving": serving | {"image": ""}}


_UPGRADES: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("release", 1): _release_2,
    ("release", 2): _release_3,
    ("release", 3): _release_4,
}
