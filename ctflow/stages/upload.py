"""Upload: package -> pipeline version."""

from __future__ import annotations

from ctflow.model import Package, Upload
from ctflow.model.versions import version_labels, version_name
from ctflow.ports import VersionRequest
from ctflow.tools import Tools


def upload(
    tools: Tools, package: Package, name: str | None = None, *, dry_run: bool = False
) -> Upload | None:
    """The package as a version of the pipeline, uploaded if it is not there yet.

    Args:
        name: of the version; default: after the commit.
        dry_run: upload nothing; None then where the version is not there.

    Raises:
        ConfigError: a step's image is on this machine only, or the package is too large.
        StateError: another package has that name.
        OutsideError: the server is down or refuses.
    """
    request = VersionRequest(package, name or version_name(package), version_labels(package))
    return tools.pipelines.find(request) if dry_run else tools.pipelines.upload(request)
