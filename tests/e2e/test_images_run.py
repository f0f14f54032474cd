"""`ctflow run --engine podman`: the template's project in containers, as it runs in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.containers import Containers


def call(root: Path, environ: Mapping[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", *words], cwd=root, capture_output=True, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def environ(containers: Containers, tmp_path: Path) -> dict[str, str]:
    """For ctflow's own process: the engines' settings, and a cache of its own."""
    place = str(Path(__file__).parents[2])
    return {**containers.environ, "CTFLOW_CACHE": str(tmp_path / "cache"), "PYTHONPATH": place}


def results(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has found out: metrics, and of each task its state and outputs' digests."""
    return {
        "metrics": run["metrics"],
        "tasks": {
            task["name"]: (
                task["outputs"],
                {k: [one["digest"] for one in v] for k, v in task["artifacts"].items()},
            )
            for task in run["tasks"]
        },
    }


def test_same_results_as_processes(
    containers: Containers, tmp_path: Path, environ: dict[str, str]
) -> None:
    """The demo project, its images made without an engine, run with podman."""
    call(tmp_path, environ, "new", "demo", "--no-input")
    root = tmp_path / "demo"
    config = root / "ctflow.yaml"
    text = config.read_text().replace("base: python:3.11-slim", f"base: {containers.base}")
    config.write_text(text.replace(
        "\nimages:\n", f"\nimages:\n  registry: {containers.address}/demo\n  builder: layers\n"
    ))  # fmt: skip
    here = json.loads(call(root, environ, "run", "--json", "--no-cache"))
    there = json.loads(call(root, environ, "run", "--json", "--no-cache", "--engine", "podman"))
    assert results(there) == results(here)
    assert {task["state"] for task in there["tasks"]} == {"succeeded"}
    assert all("@sha256:" in image["reference"] for image in there["images"])
    assert there["images"] != here["images"]
    again = json.loads(call(root, environ, "run", "--json", "--engine", "podman"))
    assert {task["name"] for task in again["tasks"] if task["state"] == "cached"} >= {
        "train", "evaluate", "validate"
    }  # fmt: skip
    assert containers.run(["podman", "ps", "--all", "--quiet"]).split() == []
