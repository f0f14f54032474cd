"""What a standard runtime installs on this machine, so that it loads what the run has made.

A model is loaded with the library that wrote it. By default the versions are those of the step that
made it, as far as they concern the format; a model of MLflow says its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.lib.requirements import is_requirement, name_of, normalise, restricted
from ctflow.model import STANDARD, Run
from ctflow.ports import Scm

if TYPE_CHECKING:
    from ctflow.config.project import Project

#: A longer one is no list of packages that a person or MLflow wrote.
_MOST = 1 << 16


def runtime_requirements(
    format: str, project: Project, run: Run, scm: Scm, commit: str, model: Callable[[], Path]
) -> tuple[str, ...]:
    """The lines to install beside the model server itself.

    Args:
        format: the model's, one with a standard runtime.
        run: its task made the model.
        model: gives the model's content on this machine.

    Raises:
        ConfigError: nothing says which version of the format's library is needed.
    """
    if project.serving.requirements:
        return project.serving.requirements
    if format == "mlflow":
        return _of_mlflow(model())
    standard = STANDARD[format]
    where, text = _made_with(project, run, scm, commit)
    lines = restricted(text, (*standard.library, *standard.beside))
    if any(name_of(line) in standard.library for line in lines):
        return lines
    if standard.default:
        return (standard.default,)
    library = standard.library[0]
    raise ConfigError(
        f"nothing says which {library} made the model: {where} does not name it",
        next=f"name it there, or in ctflow.yaml: `serving: {{requirements: [{library}==VERSION]}}`",
    )


def _made_with(project: Project, run: Run, scm: Scm, commit: str) -> tuple[str, str]:
    """Where it stands what the model's maker had installed, and the text of a requirements.txt."""
    name = project.model.artifact.rpartition(".")[0]
    task = run.task(name)
    component = f"the component of task {name}"
    if task is not None and task.packages:
        return component, "\n".join(task.packages)
    step = (task.step if task else None) or name
    given = project.steps.get(step)
    folder = (given.folder if given else None) or f"steps/{step}"
    where = f"{folder.strip('/')}/requirements.txt"
    text = scm.read(commit, where)
    if text is None and task is not None and task.step is None:
        return component, ""
    return where, (text or b"").decode("utf-8", "replace")


def _of_mlflow(model: Path) -> tuple[str, ...]:
    """The requirements that an MLflow model holds. A step wrote them: packages only, no options."""
    file = _mlflow_folder(model) / "requirements.txt"
    mend = "say them in ctflow.yaml: `serving: {requirements: [mlflow==VERSION, ...]}`"
    try:
        if file.stat().st_size > _MOST:
            raise ConfigError("the model's requirements.txt is too long", next=mend)
        lines = normalise(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        lines = ()
    wrong = next((number for number, line in enumerate(lines, 1) if not is_requirement(line)), 0)
    if wrong:
        raise ConfigError(
            f"requirement {wrong} in the model's requirements.txt is no package with its version",
            next=mend,
        )
    if not any(name_of(line) in STANDARD["mlflow"].library for line in lines):
        raise ConfigError(
            "the model's folder holds no requirements.txt that names mlflow", next=mend
        )
    return lines


def _mlflow_folder(model: Path) -> Path:
    """The folder with the file ``MLmodel``: the model itself, or a folder in it."""
    found = sorted(file.parent for file in model.glob("*/MLmodel"))
    return found[0] if found and not (model / "MLmodel").is_file() else model
