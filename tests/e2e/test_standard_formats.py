"""Each standard format, made with its own library and served by a real model server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import RunFailed
from ctflow.lib.user_cache import cache_root
from ctflow.ports import Environment, GoldenRequest, Watch, ignore
from ctflow.serving.local import LocalServer
from ctflow.steps.environments import UvEnvironments

FORMATS = Path(__file__).with_name("formats.txt")
#: Writes a folder for each format, and what the library itself answers for two rows.
MAKE = """\
import json, os, sys
from pathlib import Path

import joblib, lightgbm, mlflow.sklearn, numpy as np, onnx, pandas as pd, xgboost
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

base = Path(sys.argv[1])
x, y = load_iris(return_X_y=True)
rows = x[[0, 120]]
answers = {"rows": rows.tolist()}


def folder(name):
    (base / name).mkdir(parents=True)
    return base / name


fitted = LogisticRegression(max_iter=500).fit(x, y)
answers["sklearn"] = fitted.predict(rows).tolist()
joblib.dump(fitted, folder("sklearn") / "model.joblib")
booster = xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(x, y), 8)
answers["xgboost"] = booster.predict(xgboost.DMatrix(rows)).tolist()
for ending in ("bst", "json", "ubj"):
    booster.save_model(folder(f"xgboost-{ending}") / f"model.{ending}")
trees = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 8)
answers["lightgbm"] = trees.predict(rows).tolist()
for ending in ("bst", "txt"):
    trees.save_model(folder(f"lightgbm-{ending}") / f"model.{ending}")
graph = to_onnx(fitted, x[:1].astype(np.float32), options={"zipmap": False})
(folder("onnx") / "model.onnx").write_bytes(graph.SerializeToString())
(folder("onnx-triton/iris/2") / "model.onnx").write_bytes(graph.SerializeToString())
answers["onnx"] = fitted.predict_proba(rows).tolist()
maps = to_onnx(fitted, x[:1].astype(np.float32))
(folder("onnx-maps") / "model.onnx").write_bytes(maps.SerializeToString())
names = ["a", "b", "c", "d"]
signature = infer_signature(pd.DataFrame(x, columns=names), fitted.predict(x))
for name, given in (("mlflow", None), ("mlflow-columns", signature)):
    mlflow.sklearn.save_model(
        fitted, str(base / name), signature=given, serialization_format="cloudpickle",
        pip_requirements=["mlflow-skinny==3.17.2", "scikit-learn==1.7.2"],
    )
(base / "answers.json").write_text(json.dumps(answers))
"""


class Made:
    """The models, and one environment that has all libraries."""

    def __init__(self, folder: Path) -> None:
        environments = UvEnvironments(cache_root({"CTFLOW_CACHE": str(folder / "cache")}))
        self.environment = environments.ensure(FORMATS.read_text(), ignore)
        self.held = environments
        self.folder = folder / "models"
        program = folder / "make.py"
        program.write_text(MAKE)
        done = subprocess.run(
            [str(self.environment.python), str(program), str(self.folder)],
            cwd=folder, capture_output=True, text=True, env=dict(self.environment.variables),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.answers = json.loads((self.folder / "answers.json").read_text())
        self.rows: list[list[float]] = self.answers["rows"]
        self.code = folder / "serving"
        self.code.mkdir()
        self.server = LocalServer(folder / "served", self, ready_timeout=240)

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        assert requirements.startswith("kserve==")
        return self.environment

    def find(self, requirements: str, python: str = "") -> Environment:
        return self.environment

    def ask(self, name: str, golden: list[dict[str, Any]]) -> dict[str, str]:
        """What is wrong with each answer; empty: nothing."""
        (self.code / "golden.json").write_text(json.dumps(golden))
        runtime = name.partition("-")[0]
        request = GoldenRequest(
            "iris", self.folder / name, self.code, "", "golden.json", None, runtime, ("x==1",)
        )
        checks = self.server.try_model(request, ignore).checks
        return {check.name: check.detail for check in checks}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("formats"))


def v1(rows: Any, expect: Any, name: str = "v1") -> dict[str, Any]:
    return {
        "name": name, "protocol": "v1", "request": {"instances": rows},
        "expect": expect if isinstance(expect, int) else {"predictions": expect},
        "tolerance": {"rel": 1e-4, "abs": 1e-5},
    }  # fmt: skip


def tensor(rows: Any, name: str = "x", datatype: str = "FP64") -> dict[str, Any]:
    data = [value for row in rows for value in row]
    return {"name": name, "shape": [2, len(rows[0])], "datatype": datatype, "data": data}


def v2(inputs: list[dict[str, Any]], expect: Any, name: str = "v2") -> dict[str, Any]:
    return {
        "name": name, "protocol": "v2", "request": {"inputs": inputs},
        "expect": expect if isinstance(expect, int) else {"outputs": expect},
        "tolerance": {"rel": 1e-4, "abs": 1e-5},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "datatype"),
    [("sklearn", "INT64"), ("xgboost-bst", "FP32"), ("xgboost-json", "FP32"),
     ("xgboost-ubj", "FP32"), ("lightgbm-bst", "FP64"), ("lightgbm-txt", "FP64")],
)  # fmt: skip
def test_one_prediction_a_row(made: Made, name: str, datatype: str) -> None:
    expected = made.answers[name.partition("-")[0]]
    output = {"name": "output-0", "shape": [2], "datatype": datatype, "data": expected}
    assert made.ask(name, [v1(made.rows, expected), v2([tensor(made.rows)], [output])]) == {
        "v1": "", "v2": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["onnx", "onnx-triton"])
def test_a_graph_has_named_tensors(made: Made, name: str) -> None:
    labels, probabilities = made.answers["sklearn"], made.answers["onnx"]
    each = [
        {"label": label, "probabilities": row}
        for label, row in zip(labels, probabilities, strict=True)
    ]
    named = [{"name": "label", "shape": [2], "datatype": "INT64", "data": labels},
             {"name": "probabilities", "shape": [2, 3], "datatype": "FP32"}]  # fmt: skip
    wanted = v2([tensor(made.rows, "X", "FP32")], named[:1], "one output")
    wanted["request"]["outputs"] = [{"name": "label"}]
    found = made.ask(
        name,
        [
            v1(made.rows, each),
            v1([{"X": row} for row in made.rows], each, "by name"),
            v2([tensor(made.rows, "X", "FP32")], named),
            wanted,
            v2([tensor(made.rows, "X", "FP64")], 400, "datatype"),
            v2([tensor(made.rows, "y", "FP32")], 400, "no such input"),
        ],
    )
    assert not any(found.values()), found


def test_a_graph_that_gives_maps_is_refused(made: Made) -> None:
    with pytest.raises(RunFailed, match="only tensors can be served"):
        made.ask("onnx-maps", [v1(made.rows, 200)])


def test_mlflow_answers_as_its_signature_says(made: Made) -> None:
    labels = made.answers["sklearn"]
    output = [{"name": "output-1", "shape": [2, 1], "datatype": "INT64", "data": labels}]
    assert made.ask("mlflow", [v1(made.rows, labels), v2([tensor(made.rows)], output)]) == {
        "v1": "", "v2": "",
    }  # fmt: skip
    names = "abcd"
    columns = [
        {"name": name, "shape": [2], "datatype": "FP64", "data": [row[place] for row in made.rows]}
        for place, name in enumerate(names)
    ]
    # Whole numbers are written without a point in JSON; the signature says double.
    whole = [{name: round(value) for name, value in zip(names, row, strict=True)}
             for row in made.rows]  # fmt: skip
    found = made.ask(
        "mlflow-columns",
        [
            v1(made.rows, labels),
            v1([dict(zip(names, row, strict=True)) for row in made.rows], labels, "objects"),
            v1(whole, 200, "whole"),
            v2(columns, output),
            v2([tensor(made.rows)], 500, "no columns"),
        ],
    )
    assert not any(found.values()), found
