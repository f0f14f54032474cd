"""What a pipeline version is called: after the commit that its package was made from."""

from __future__ import annotations

from ctflow.lib.digests import hexadecimal
from ctflow.model.runs import Package


def version_name(package: Package) -> str:
    """The commit's id; with uncommitted files or without a commit, the package's digest says more.

    Lower-case letters, digits and ``-``, so that it can be a Kubernetes name too.
    """
    digest = hexadecimal(package.digest)[:12]
    if package.commit is None:
        return f"package-{digest}"
    if package.commit.dirty:
        return f"{package.commit.sha[:12]}-uncommitted-{digest}"
    return package.commit.sha


def version_labels(package: Package) -> tuple[tuple[str, str], ...]:
    """What the version says about itself besides its package."""
    found = {"project": package.project, "pipeline": package.pipeline}
    if package.commit is not None:
        found |= {"commit": package.commit.sha, "branch": package.commit.branch or ""}
    return tuple((key, value) for key, value in found.items() if value)
