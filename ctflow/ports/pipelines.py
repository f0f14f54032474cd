"""Pipelines and their versions on a cluster."""

from __future__ import annotations

from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import Package, Upload


@dataclass(frozen=True)
class VersionRequest:
    """What to upload. ``name``: of the version."""

    package: Package
    name: str
    labels: tuple[tuple[str, str], ...] = ()


class Pipelines(Protocol):
    """Where pipelines run that are uploaded first."""

    def find(self, request: VersionRequest) -> Upload | None:
        """The version, where it is there already; changes nothing.

        Raises:
            StateError: another package has that name.
            OutsideError: the server is down or refuses.
        """
        ...

    def upload(self, request: VersionRequest) -> Upload:
        """Upload the package as a version, once: the same again changes nothing.

        Raises:
            StateError: another package has that name.
            ConfigError: the package is too large, or is no pipeline.
            OutsideError: the server is down or refuses.
        """
        ...
