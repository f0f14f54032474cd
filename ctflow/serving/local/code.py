"""The serving code that a model server runs on: a copy of its own.

Of a predictor with an image it is what the image would hold: what is missing there is missing here
too, and is found before a cluster finds it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.lib.copying import copy_tree
from ctflow.model import OWN
from ctflow.ports import PREDICTOR as IMAGE
from ctflow.ports import GoldenRequest, ServeRequest, StepSource
from ctflow.serving.local.standard import PREDICTOR, write_runtime
from ctflow.steps.context import context_files

_WORTHLESS = shutil.ignore_patterns("__pycache__", "*.pyc", ".pytest_cache", ".venv", ".git")


def write_code(request: ServeRequest | GoldenRequest, target: Path) -> str:
    """Write what serves a request to ``target``, which must not exist; the predictor's file there.

    Raises:
        ConfigError: there is no such code, or ``.dockerignore`` is wrong.
        OSError: the disk is full, or a file cannot be read.
    """
    code = request.code
    if not code.is_dir():
        raise ConfigError(f"there is no serving folder {code}", next="see `serving` in the file")
    if request.runtime != OWN:
        # Nothing else of the folder: no release of a standard runtime holds more.
        target.mkdir(parents=True)
        _beside(code, target, request.golden)
        write_runtime(target, request.runtime, request.requirements)
        return PREDICTOR
    if not request.image:
        copy_tree(code, target, _skipped)
        return request.predictor
    target.mkdir(parents=True)
    for one in context_files(StepSource(IMAGE, code)):
        place = target / one.path
        if one.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if one.kind == "link":
            place.symlink_to(one.target)
        else:
            shutil.copy(one.source, place)
    # For whoever starts and asks it, not for the predictor.
    _beside(code, target, request.golden)
    _beside(code, target, "requirements.txt")
    return request.predictor


def left_out(request: GoldenRequest) -> list[str]:
    """The Python files of the folder that its image leaves out."""
    if not request.image:
        return []
    inside = {one.path for one in context_files(StepSource(IMAGE, request.code))}
    found = (one.relative_to(request.code).as_posix() for one in request.code.rglob("*.py"))
    return sorted(name for name in found if name not in inside)


def _beside(code: Path, target: Path, name: str) -> None:
    if name and (code / name).is_file() and not (target / name).exists():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code / name, target / name)


def _skipped(folder: str, names: list[str]) -> set[str]:
    """What is not served: what Python makes by itself, and links that lead nowhere."""
    return _WORTHLESS(folder, names) | {one for one in names if not (Path(folder) / one).exists()}
