"""What a proposal is called, and what its commit says."""

from __future__ import annotations

from ctflow.lib.digests import short
from ctflow.model import Release
from ctflow.release import files


def title(release: Release) -> str:
    """One line that names the proposal."""
    return f"{release.environment}: serve {release.project} {short(release.model.digest)}"


def message(release: Release) -> str:
    """The proposal's commit message; the trailers are how other stages find it again."""
    forced = release.verdict.override is not None
    why = "a person overrode the gate" if forced else "the gate says promote"
    return (
        f"{title(release)}\n\nFrom run {release.run} of commit {release.commit[:12]}; {why}."
        f" The evidence is in {files.path(release.environment, files.REPORT)}.\n\n"
        f"Ctflow-Environment: {release.environment}\n"
        f"{files.RUN_LINE}{release.run}\n"
        f"Ctflow-Model: {release.model.digest}\n"
    )
