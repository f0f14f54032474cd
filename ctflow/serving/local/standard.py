"""The standard runtimes of this machine: a serving folder that ctflow writes, not the project.

It holds the model class of the format (``standard_models.py``, copied, so that a later ctflow
changes nothing that serves), requirements.txt, and the project's golden requests if it has some.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.lib.requirements import name_of

#: The model server that the classes are written for and tested with.
KSERVE = "kserve==0.21.0"
#: The predictor's file in the folder.
PREDICTOR = "predictor.py"
#: The class of each format.
MODELS = {
    "sklearn": "SklearnModel",
    "xgboost": "XgboostModel",
    "lightgbm": "LightgbmModel",
    "onnx": "OnnxModel",
    "mlflow": "MlflowModel",
}
_MODULE = "standard_models"


def write_runtime(folder: Path, runtime: str, requirements: tuple[str, ...]) -> None:
    """Write a standard runtime's files into ``folder``, which may hold golden requests.

    Args:
        runtime: a model format.
        requirements: what the runtime has installed beside the server.

    Raises:
        ConfigError: this ctflow has no such runtime.
    """
    if runtime not in MODELS:
        raise ConfigError(
            f"this ctflow has no standard runtime {runtime!r}; it has {', '.join(MODELS)}",
            next="upgrade ctflow, or promote a run that is served by one of these",
        )
    shutil.copyfile(Path(__file__).with_name(f"{_MODULE}.py"), folder / f"{_MODULE}.py")
    (folder / PREDICTOR).write_text(
        f"from {_MODULE} import {MODELS[runtime]} as Predictor\n", encoding="utf-8"
    )
    server = () if any(name_of(line) == "kserve" for line in requirements) else (KSERVE,)
    lines = "".join(f"{line}\n" for line in (*server, *requirements))
    (folder / "requirements.txt").write_text(lines, encoding="utf-8")
