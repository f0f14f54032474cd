"""Look at every system that the project is set up with, and say what will not work, and the mend.

It only reads. Exit code 5: something that the project needs does not work. Warnings do not count.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ctflow.cli.common import (
    add_json_flag,
    add_project_flags,
    clean,
    print_json,
    settings_of,
    sign,
)
from ctflow.errors import OutsideError, UsageError

if TYPE_CHECKING:
    from ctflow.model.doctor import Finding

_SIGNS = {"ok": "✓", "warning": "–", "failed": "✗", "skipped": " "}
_PLAIN = {"ok": "ok", "warning": "--", "failed": "no", "skipped": "  "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow doctor``."""
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--timeout", default="15s", metavar="TIME",
                        help="how long each system may take to answer (default: 15s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """A line a finding, and its mend below it."""
    from ctflow.lib.durations import seconds
    from ctflow.stages.doctor import examine, fails
    from ctflow.wiring import wire
    from ctflow.wiring.doctor import checks

    try:
        timeout = seconds(args.timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    if not timeout:
        raise UsageError("--timeout must be above 0")
    # Not even the folder of the local state is made.
    found = examine(checks(wire(settings_of(args)), timeout), timeout)
    bad = fails(found)
    if args.json:
        from dataclasses import asdict

        print_json({"ok": not bad, "findings": [asdict(one) for one in found]})
    else:
        _show(found)
    return OutsideError.exit_code if bad else 0


def _show(found: tuple[Finding, ...]) -> None:
    from ctflow.cli.progress import marks

    signs = _SIGNS if marks(sys.stdout)["succeeded"] == "✓" else _PLAIN
    before = ""
    for one in found:
        name = "" if one.system == before else one.system
        before = one.system
        parts = [one.text, one.version, one.mode, f"as {one.who}" if one.who else ""]
        text = "   ".join(clean(part) for part in parts if part)
        print(f"  {name:<11} {sign(signs[one.mark], sys.stdout)} {text}")
        if one.next:
            print(f"  {'':<11}   {clean(one.next)}")
