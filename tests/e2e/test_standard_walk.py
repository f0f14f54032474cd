"""A project without serving code, from its first push to a rollback: real runs, real environments,
a real model server that loads what the step's own version of the library wrote."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.projects import TRAIN, TinyProject, git

PINS = "numpy==2.2.6\nscikit-learn==1.7.2\n"
#: The answer is the model's skill in percent, whatever it is asked.
DUMP = """
import joblib
import numpy as np
from sklearn.dummy import DummyRegressor

fitted = DummyRegressor(strategy="constant", constant=round(100 * float(skill)))
fitted.fit(np.zeros((2, 1)), np.zeros(2))
joblib.dump(fitted, os.path.join(model, "model.joblib"))
"""
GOLDEN = [
    {
        "name": "a share",
        "request": {"instances": [[1.0]]},
        "expect": {"predictions": [{"$range": [0, 100]}]},
    }
]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[TinyProject]:
    made = TinyProject(tmp_path)
    git(made.folder, "rm", "-qr", "serving")
    made.write("steps/train/main.py", TRAIN + DUMP)
    made.write("steps/train/requirements.txt", PINS)
    made.commit("no serving code")
    made.push()
    yield made
    made.ok("deploy", "staging", "--stop")


def merged(project: TinyProject) -> None:
    project.approve()
    git(project.folder, "pull", "-q", "--rebase", "origin", "master")


def pushed(project: TinyProject, message: str) -> None:
    project.commit(message)
    project.push()


def served(project: TinyProject) -> Any:
    return project.json("status")[0]["deployment"]


def test_from_the_first_push_to_a_rollback(project: TinyProject) -> None:
    first = project.json("ct")
    texts = [one["text"] for one in first["verdict"]["reasons"]]
    assert texts[-1] == "the model loads and is ready"
    assert first["verdict"]["notes"][-2] == (
        "served by the standard runtime sklearn (numpy==2.2.6, scikit-learn==1.7.2)"
    )
    merged(project)
    assert "golden" not in project.ok("deploy", "staging")
    now = served(project)
    url, model = now["url"], now["model"]
    answer = requests.post(f"{url}/v1/models/tiny:predict", json={"instances": [[0]]}, timeout=60)
    assert (answer.json(), answer.headers["x-ctflow-model"]) == ({"predictions": [80.0]}, model)
    tensor = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [0, 1]}]}
    answer = requests.post(f"{url}/v2/models/tiny/infer", json=tensor, timeout=60)
    assert answer.json()["outputs"][0]["data"] == [80.0, 80.0]

    # A second model, with golden requests and a rule on its times from now on.
    project.write("serving/golden.json", json.dumps(GOLDEN))
    project.edit("ctflow.yaml", "skill: 0.8", "skill: 0.9")
    project.edit("ctflow.yaml", "gate:\n", "gate:\n  - {metric: p50_ms, max: 60000}\n")
    pushed(project, "better, with golden requests")
    second = project.json("ct")
    texts = [one["text"] for one in second["verdict"]["reasons"]]
    assert "golden requests 1/1" in texts
    assert any(one.startswith("p50_ms") for one in texts)
    merged(project)
    answers: list[requests.Response] = []
    stop = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                place = f"{url}/v1/models/tiny:predict"
                answers.append(session.post(place, json={"instances": [[0]]}, timeout=60))

    client = threading.Thread(target=ask)
    client.start()
    try:
        assert "golden 1/1" in project.ok("deploy", "staging")
    finally:
        stop.set()
        client.join()
    assert {one.status_code for one in answers} == {200}
    assert {one.json()["predictions"][0] for one in answers} >= {80.0}
    again = requests.post(f"{url}/v1/models/tiny:predict", json={"instances": [[0]]}, timeout=60)
    assert again.json() == {"predictions": [90.0]}

    project.ok("rollback", "staging", "--reason", "slow")
    assert served(project)["model"] == model
    again = requests.post(f"{url}/v1/models/tiny:predict", json={"instances": [[0]]}, timeout=60)
    assert again.json() == {"predictions": [80.0]}


def test_what_cannot_be_served_is_said_before_it_is_trained(project: TinyProject) -> None:
    project.edit("ctflow.yaml", "format: sklearn", "format: pytorch")
    pushed(project, "another format")
    assert project.fails(2, "ct") == (
        "no standard runtime serves models of format 'pytorch' here (there are sklearn, xgboost,"
        " lightgbm, onnx, mlflow); write serving/predictor.py, or correct model.format"
    )
    assert project.json("runs", "list") == []
