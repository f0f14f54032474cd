"""Adopt: an existing repository with a KFP pipeline gets a ctflow.yaml, and nothing else.

Pipelines are found by reading the source, never by running it.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

from ctflow.errors import StateError, UsageError
from ctflow.lib.quick import dataclass

FILE = "ctflow.yaml"
_SKIPPED = frozenset({"node_modules", "site-packages", "venv", "env", "build", "dist"})
#: Larger files are data or generated, not pipelines that somebody wrote.
_MOST = 1 << 20


@dataclass(frozen=True)
class Found:
    """A pipeline: ``place`` is ``file.py:function``, ``models`` its ``task.output`` of models."""

    place: str
    models: tuple[str, ...]


def pipelines(root: Path) -> list[Found]:
    """The functions below ``root`` that ``dsl.pipeline`` decorates, in the files' order."""
    found = []
    for file in _sources(root):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue  # not Python that this Python reads: no pipeline of ours
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        models = {one.name: _models(one) for one in functions}
        for one in functions:
            if any(_name(decorator) == "pipeline" for decorator in one.decorator_list):
                place = f"{file.relative_to(root).as_posix()}:{one.name}"
                found.append(Found(place, tuple(_tasks(one, models))))
    return found


def _sources(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED)
        for name in sorted(files):
            path = Path(folder) / name
            if name.endswith(".py") and path.stat().st_size <= _MOST:
                yield path


def _name(node: ast.expr) -> str:
    """The last word of a decorator or a called thing: ``dsl.pipeline(...)`` -> ``pipeline``."""
    target = node.func if isinstance(node, ast.Call) else node
    if isinstance(target, ast.Attribute):
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""


def _models(function: ast.FunctionDef) -> list[str]:
    """The parameters that are annotated as an output model."""
    found = []
    for argument in function.args.args:
        text = ast.unparse(argument.annotation) if argument.annotation else ""
        words = text.replace("dsl.", "").replace(" ", "")
        if words.startswith("Output[") and words.endswith("Model]"):
            found.append(argument.arg)
    return found


def _tasks(pipeline: ast.FunctionDef, models: dict[str, list[str]]) -> Iterator[str]:
    """The models of the tasks that a pipeline calls, named as KFP's compiler names tasks."""
    for node in ast.walk(pipeline):
        if isinstance(node, ast.Call):
            for output in models.get(_name(node), ()):
                yield f"{_name(node).replace('_', '-')}.{output}"


def configuration(project: str, branch: str, pipeline: Found, model: str) -> str:
    """The text of a ctflow.yaml."""
    return f"""\
# yaml-language-server: $schema=https://raw.githubusercontent.com/ctflow/ctflow/main/docs/ctflow.schema.json
project: {project}
branch: {branch}
pipeline: {pipeline.place}

# The output of the pipeline that is the model, and its format.
model: {{artifact: {model}, format: sklearn}}

# The rules that a model must pass. Without a rule, no model passes.
gate: []
#  - {{metric: accuracy, min: 0.80}}
#  - {{metric: accuracy, over: champion, predictions: evaluate.predictions}}

# The standard runtime of the model's format serves it, unless serving/predictor.py is there.
environments:
  staging: {{}}
"""


def write(root: Path, text: str) -> Path:
    """Put ctflow.yaml in place, whole.

    Raises:
        StateError: there is one already.
    """
    place = root / FILE
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise already(root) from None
    return place


def already(root: Path) -> StateError:
    """What to say where ctflow is at home."""
    return StateError(f"{root / FILE} already exists", next="see `ctflow config`")


def chosen(found: list[Found], wanted: str | None) -> Found:
    """The one pipeline that is meant.

    Raises:
        UsageError: there is none, none of that name, or several to choose from.
    """
    if wanted is not None:
        match = next((one for one in found if one.place == wanted), None)
        if match is None:
            names = ", ".join(one.place for one in found) or "none"
            raise UsageError(f"there is no pipeline {wanted}", next=f"found: {names}")
        return match
    if not found:
        raise UsageError(
            "no function here is decorated with dsl.pipeline",
            next="write one, or start a project with `ctflow new`",
        )
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} pipelines",
            next=f"name one with --pipeline: {', '.join(one.place for one in found)}",
        )
    return found[0]
