"""What ctflow writes about a version or a run into its description, and reads from there.

KFP's runs have no labels, and versions have tags from 2.17 on only. The last line of a description
is ``ctflow: {...}``, JSON with the keys ``package``, ``commit``, ``branch``, ``actor``, ``project``
and ``key``, of recurring runs also ``schedule`` and ``settings``; what is before it is for people.
KFP's API cannot change a description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ctflow.lib.text import one_line

_MARK = "ctflow: "
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Characters of the text for people.
_LONGEST = 500


def written(text: str, labels: Mapping[str, str]) -> str:
    """A description: ``text`` in one line, then the labels."""
    line = _MARK + json.dumps({k: v for k, v in labels.items() if v}, sort_keys=True)
    shown = one_line(text, _LONGEST)
    return f"{shown}\n{line}" if shown else line


def read(description: object) -> dict[str, str]:
    """The labels of a description; empty where it has none of ours."""
    if not isinstance(description, str):
        return {}
    last = description.rstrip().rpartition("\n")[2]
    if not last.startswith(_MARK):
        return {}
    try:
        data = json.loads(last[len(_MARK) :])
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)}


def package_digest(description: object) -> str:
    """The digest of the package, or empty."""
    found = read(description).get("package", "")
    return found if _DIGEST.fullmatch(found) else ""


def tags(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels as KFP's tags: values of at most 63 characters.

    A digest has 64 digits: its first 32 are enough to search by, and the description has them all.
    """
    found = {"ctflow": "version"}
    for key in ("commit", "branch"):
        if labels.get(key):
            found[key] = one_line(labels[key], 63)
    if labels.get("package"):
        found["package"] = labels["package"].removeprefix("sha256:")[:32]
    return found
