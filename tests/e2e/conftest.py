"""Servers that the end-to-end tests share, started when the first test asks for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import containers as real
from tests import engines
from tests.e2e import node as nodes


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


@pytest.fixture(scope="session")
def node() -> Iterator[nodes.Node]:
    """Kubernetes with this machine as its node, and what Kubeflow Pipelines needs on it."""
    if absent := nodes.missing():
        pytest.skip(absent)
    with nodes.running() as started:
        yield started


@pytest.fixture(scope="session")
def _engines() -> None:
    if absent := engines.missing():
        pytest.skip(
            f"needs {', '.join(absent)}: run .ci/install-containers, and .ci/install-buildkit with "
            "the folder that it prints on PATH"
        )


@pytest.fixture(scope="session")
def buildkit(_engines: None) -> Iterator[engines.Buildkit]:
    """A buildkitd."""
    with _folder() as folder:
        made = engines.Buildkit(folder)
        yield made
        made.close()


@pytest.fixture(scope="session")
def docker(_engines: None) -> Iterator[engines.Docker]:
    """A dockerd; its client has the buildx plug-in."""
    with _folder() as folder:
        made = engines.Docker(folder, buildx=True)
        yield made
        made.close()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ctflow-e-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "d"
