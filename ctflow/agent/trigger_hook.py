"""The post-receive hook of a bare repository: a shell script with a part for each project.

Git gives a hook its lines once, on standard input; each part gets them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ctflow.lib.quick import dataclass

MARK = "# Written by `ctflow trigger install`."
_PART = "# ctflow: project "
_ROOT = " in "
_HEAD = f"""\
#!/bin/sh
{MARK}
# A failure here must not look like a failed push: the push is done.
pushed=$(cat)
"""


@dataclass(frozen=True)
class Part:
    """What one project has done on a push.

    Attributes:
        project: its folder in the repository.
        root: the same folder of the clone that is started.
        command: a shell command that reads git's lines.
    """

    project: str
    root: str
    command: str


def read(hook: Path) -> list[Part] | None:
    """The parts of a hook; None: there is one that is not ctflow's."""
    try:
        text = hook.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    if MARK not in text:
        return None
    parts = []
    lines = text.splitlines()
    for line, command in pairwise(lines):
        if line.startswith(_PART):
            project, _, root = line.removeprefix(_PART).partition(_ROOT)
            parts.append(Part(project, root, _command(command)))
    return parts


def _command(line: str) -> str:
    return line.partition(" | ")[2].rpartition(" || ")[0]


def write(hook: Path, parts: Sequence[Part]) -> None:
    """Replace the hook, whole; without parts it is removed."""
    if not parts:
        hook.unlink(missing_ok=True)
        return
    text = _HEAD
    for part in parts:
        text += (
            f"{_PART}{part.project}{_ROOT}{part.root}\n"
            f"printf '%s\\n' \"$pushed\" | {part.command}"
            " || echo 'ctflow: the push did not start a job'\n"
        )
    hook.parent.mkdir(exist_ok=True)
    fresh = hook.with_suffix(".ctflow")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o755)
    fresh.replace(hook)
