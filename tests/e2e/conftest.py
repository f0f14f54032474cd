"""Servers that the end-to-end tests share, started when the first test asks for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import containers as real


@pytest.fixture(scope="session")
def containers() -> Iterator[real.Containers]:
    """A registry, podman and buildah, and a base image."""
    if absent := real.missing():
        pytest.skip(f"needs {', '.join(absent)}: run .ci/install-containers")
    # Not below pytest's own folder: its path is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="ctflow-c-", ignore_cleanup_errors=True) as folder:
        made = real.Containers(Path(folder))
        try:
            yield made
        finally:
            made.close()
