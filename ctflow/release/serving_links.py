"""Symbolic links in the serving code.

A release keeps the folder's files. git keeps a link as a link: one that leads out of the folder
would lead to something else, or to nothing, from where the release has it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from ctflow.errors import StateError
from ctflow.ports import Scm, TreeFile

#: The mode that git gives a link.
LINK = "120000"


def check_links(scm: Scm, commit: str, folder: str, found: Mapping[str, TreeFile]) -> None:
    """Refuse a link that leads out of ``folder``.

    Args:
        found: the commit's files below the folder.

    Raises:
        StateError: there is one.
    """
    for name, file in found.items():
        if file.mode != LINK:
            continue
        target = os.fsdecode(scm.read(commit, name) or b"")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not f"{place}/".startswith(f"{folder}/"):  # an absolute one never does
            raise StateError(
                f"the link {name} leads out of {folder}/, to {target!r}",
                next="copy the file there instead of the link, and commit it",
            )
