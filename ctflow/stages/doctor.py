"""Doctor: every system that the project is set up with, asked at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ctflow.errors import CtflowError
from ctflow.model.doctor import Finding, Mark, Skipped
from ctflow.ports.doctor import Check


def examine(checks: Sequence[Check], timeout: float) -> tuple[Finding, ...]:
    """What the checks find, in their order; one that hangs holds up no other.

    Args:
        timeout: seconds for each of them.
    """
    found: list[Sequence[Finding] | BaseException | None] = [None] * len(checks)

    def look(at: int) -> None:
        try:
            found[at] = _look(checks[at])
        except BaseException as error:  # noqa: BLE001 (it is raised where the user sees it)
            found[at] = error

    threads = [threading.Thread(target=look, args=(at,), daemon=True) for at in range(len(checks))]
    end = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    lines: list[Finding] = []
    for check, one in zip(checks, tuple(found), strict=True):
        if isinstance(one, BaseException):
            raise one
        lines += one if one is not None else [_silent(check, timeout)]
    return tuple(lines)


def fails(findings: Sequence[Finding]) -> bool:
    """Whether something that the project needs does not work."""
    return any(one.mark == "failed" for one in findings)


def _look(check: Check) -> Sequence[Finding]:
    try:
        found = check.look()
    except CtflowError as error:
        cause = f" ({error.cause})" if error.cause else ""
        return [Finding(check.system, _bad(check), f"{error.fact}{cause}", next=error.next)]
    if isinstance(found, Skipped):
        return [Finding(check.system, "skipped", found.reason)]
    return found


def _silent(check: Check, timeout: float) -> Finding:
    return Finding(
        check.system,
        _bad(check),
        f"no answer within {timeout:g} s",
        next="see whether it runs and can be reached from here, or wait longer with --timeout",
    )


def _bad(check: Check) -> Mark:
    return "failed" if check.needed else "warning"
