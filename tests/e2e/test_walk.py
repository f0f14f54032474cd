"""The whole walk of ``make demo``, and what each verb says afterwards: a real repository, real
training, a real KServe server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import requests

DEMO = Path(__file__).parents[2] / "examples" / "mnist" / "demo.py"
#: Walks as the demo does, and leaves the server running for the assertions below.
WALK = """\
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("demo", sys.argv[1])
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)
demo.walk(pathlib.Path(sys.argv[2]))
"""


def environ() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("CTFLOW_")}


def ctflow(project: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", *words, "--json"],
        cwd=project, env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("walk")
    done = subprocess.run(
        [sys.executable, "-c", WALK, str(DEMO), str(base)],
        env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    folder = base / "digits"
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        if folder.is_dir():
            (stopped,) = ctflow(folder, "deploy", "staging", "--stop")
            assert stopped["state"] == "stopped"


def test_the_walk_ends_where_it_says(project: Path) -> None:
    staging, production = ctflow(project, "status")
    deployment = staging["deployment"]
    assert deployment["state"] == "ready"
    assert deployment["model"] == deployment["wanted"]
    assert staging["proposed"] == ""
    (hold,) = staging["holds"]
    assert hold["reason"] == "slow on the old phones"
    assert hold["digest"] != deployment["model"]
    assert production["deployment"]["state"] == "absent"
    why = ctflow(project, "why", "staging")
    assert why["release"]["model"]["digest"] == deployment["model"]
    assert why["release"]["run"] == staging["run"]
    assert ctflow(project, "promotions", "list") == []


def test_each_push_made_one_run_and_the_gate_let_two_through(project: Path) -> None:
    runs = ctflow(project, "runs", "list")
    assert [run["state"] for run in runs] == ["succeeded"] * 4
    assert len({run["commit"]["sha"] for run in runs}) == 4
    jobs = ctflow(project, "trigger", "status")
    assert [job["code"] for job in jobs if job["kind"] == "ct"] == [0, 0, 3, 3]
    assert [job["code"] for job in jobs if job["kind"] == "deploy"] == [0, 0, 0]
    bare = project.parent / "digits.git"
    words = ["git", "rev-list", "--merges", "master"]
    merges = subprocess.run(words, cwd=bare, capture_output=True, text=True, check=True)
    assert len(merges.stdout.split()) == 2


def test_the_served_model_answers_over_both_protocols(project: Path) -> None:
    deployment = ctflow(project, "status")[0]["deployment"]
    cases = json.loads((project / "serving" / "golden.json").read_text())
    assert {case["protocol"] for case in cases} == {"v1", "v2"}
    for case in cases:
        path = "v1/models/digits:predict" if case["protocol"] == "v1" else "v2/models/digits/infer"
        answer = requests.post(f"{deployment['url']}/{path}", json=case["request"], timeout=30)
        assert answer.status_code == 200
        assert answer.headers["x-ctflow-model"] == deployment["model"]
        found = answer.json()
        assert found["predictions"] if case["protocol"] == "v1" else found["outputs"]
    wrong = requests.post(
        f"{deployment['url']}/v1/models/digits:predict", json={"instances": [[1, 2]]}, timeout=30
    )
    assert wrong.status_code == 400


def test_everything_listens_on_this_machine_only(project: Path) -> None:
    url = ctflow(project, "status")[0]["deployment"]["url"]
    port = int(url.rpartition(":")[2])
    (front,) = (
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    )
    family = {front, *(one.pid for one in psutil.Process(front).children(recursive=True))}
    places = [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.pid in family and connection.status == psutil.CONN_LISTEN
    ]
    assert len(places) >= 2
    assert set(places) == {"127.0.0.1"}
