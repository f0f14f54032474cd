"""Python components on the image of a step: real packages, a real step, real environments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctflow.errors import ConfigError
from ctflow.model import Package, Run
from ctflow.ports import Event, RunRequest, ignore
from ctflow.runners.local.runner import LocalRunner
from ctflow.steps.context import discover_steps
from ctflow.steps.environments import UvEnvironments
from ctflow.steps.local_builder import LocalBuilder

PIPELINE = """
import sys
from kfp import compiler, dsl

image, target = sys.argv[1:]

@dsl.component(base_image="python:3.11", target_image=image)
def double(text: str) -> str:
    raise AssertionError("the step's own function is run, not this one")

@dsl.component(base_image=image)
def light(text: str) -> str:
    import os
    import helper
    import kfp
    return f"{helper.shout(text)} {kfp.__version__} {os.path.exists('main.py')}"

@dsl.pipeline(name="images")
def images(text: str = "a"):
    light(text=double(text=text).output)

compiler.Compiler().compile(images, target)
"""
MAIN = """
from helper import shout
from kfp import dsl

@dsl.component
def double(text: str) -> str:
    return shout(text + text)
"""


class Project:
    """One step, built; its pipeline, compiled; and a runner."""

    def __init__(self, root: Path, **files: str) -> None:
        self.events: list[Event] = []
        step = root / "steps" / "train"
        step.mkdir(parents=True)
        default = {"Dockerfile": "FROM base\n", "main.py": MAIN,
                   "helper.py": "def shout(text):\n    return text.upper()\n",
                   "kfp_config.ini": "[Components]\ndouble = main.py\n"}  # fmt: skip
        for name, text in (default | files).items():
            if text:
                (step / name).write_text(text)
        self.environments = UvEnvironments(root / "cache")
        builder = LocalBuilder(
            root / "state" / "steps", "digits", None, "python:3.11", self.environments
        )
        (image,) = builder.build(discover_steps(root, {}), ignore)
        (root / "pipeline.py").write_text(PIPELINE)
        self.package = root / "package.yaml"
        subprocess.run(
            [sys.executable, "-W", "ignore", root / "pipeline.py", image.reference, self.package],
            check=True, capture_output=True,
        )  # fmt: skip
        self.runner = LocalRunner(root / "state", builder, self.environments, slots=2)

    def run(self) -> Run:
        package = Package("images", "", "", str(self.package), ())
        return self.runner.run(RunRequest("digits", package), self.events.append)


def test_run_in_the_folder_of_the_step_with_kfp_added(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run()
    assert run.state == "succeeded", (run.error, list(project.runner.logs(run.id)))
    double, light = run.task("double"), run.task("light")
    assert double is not None
    assert light is not None
    assert double.outputs == {"Output": "AA"}
    word, version, inside = light.outputs["Output"].split()
    assert (word, inside) == ("AA", "True")
    assert f"kfp-{version}" in project.package.read_text()  # the one that compiled the package
    assert (double.step, light.step) == ("train", "train")
    # The step's own (empty) environment, and one that has kfp besides.
    assert sorted(len(entry.requirements) for entry in project.environments.entries()) == [0, 1]
    assert {task.state for task in project.run().tasks} == {"cached"}


def test_step_that_has_kfp_runs_in_its_own_environment(tmp_path: Path) -> None:
    project = Project(tmp_path, **{"requirements.txt": "kfp==2.16.1\n"})
    run = project.run()
    assert run.state == "succeeded", run.error
    (entry,) = project.environments.entries()
    assert entry.requirements == ("kfp==2.16.1",)


def test_requirements_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    project = Project(tmp_path, **{"requirements.txt": "click==8.5.1\n"})
    text = project.package.read_text()
    project.package.write_text(text.replace("'kfp==", "'click==7.0' 'kfp=="))
    with pytest.raises(ConfigError, match="cannot be installed together"):
        project.run()
    assert project.runner.list() == []


def test_step_that_does_not_name_the_function_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path, **{"kfp_config.ini": "[Components]\nother = main.py\n"})
    with pytest.raises(ConfigError, match=r"step train does not say where double is.*double = "):
        project.run()
    assert project.runner.list() == []
