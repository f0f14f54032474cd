"""The registry client against real registries: contents, logins, and what goes wrong."""

from __future__ import annotations

from tests.containers import Containers
from ctflow.adapters.registry import OciRegistry
import os


def test_base_digest(containers: Containers) -> None:
    registry = OciRegistry(os.environ)
    digest = registry.digest(containers.base)
    assert digest and digest.startswith("sha256:")
    print(
        containers.run(
            [
                "podman",
                "run",
                "--rm",
                containers.base,
                "python",
                "-c",
                "import ssl,sqlite3,ctypes;print(1)",
            ]
        )
    )
    assert registry.digest(f"{containers.address}/nothing:1") is None
