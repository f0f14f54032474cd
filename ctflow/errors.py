"""Every error that ctflow raises on purpose: one root, and an exit code for each kind.

A message is one line: what happened, why it probably did, what to do next. The command line prints
it as it is; a traceback is shown only with ``-v``, or when the error is a bug (not a CtflowError).
"""

from __future__ import annotations


class CtflowError(Exception):
    """The root. ``fact`` is what happened; ``cause`` why it probably did; ``next`` what to do."""

    exit_code = 1

    def __init__(
        self, fact: str, *, cause: str = "", next: str = "", details: tuple[str, ...] = ()
    ) -> None:
        self.fact = fact
        self.cause = cause
        self.next = next
        #: Further lines, such as the last log lines of a failed task; printed below the message.
        self.details = details
        super().__init__(self.message())

    def message(self) -> str:
        """The one line that a person reads."""
        text = self.fact.rstrip(".")
        if self.cause:
            text += f" ({self.cause.rstrip('.')})"
        if self.next:
            text += f"; {self.next.rstrip('.')}"
        return " ".join(text.split())


class UsageError(CtflowError):
    """The command line or an argument is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """``ctflow.yaml``, or a file that it names, is wrong or missing."""


class StateError(UsageError):
    """The repository or the project's local state does not allow it: a dirty tree, no such run."""


class GateHeld(CtflowError):
    """The gate said ``hold`` or ``reject``; an answer, not a fault."""

    exit_code = 3


class NothingToPropose(CtflowError):
    """`ctflow ct --exit-code`: the model serves already, so there is nothing to propose."""

    exit_code = 6


class RunFailed(CtflowError):
    """A step or a run failed."""

    exit_code = 4


class OutsideError(CtflowError):
    """A system outside ctflow (git, a registry, a cluster, a disk) failed or refused."""

    exit_code = 5


class Interrupted(CtflowError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
