"""Real kfp, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from ctflow.compiler import kfp_compiler
from ctflow.compiler.kfp_compiler import KfpCompiler
from ctflow.errors import ConfigError, CtflowError, OutsideError
from ctflow.steps.environments import UvEnvironments
from tests.work import counted

IMAGES = {"train": f"ctflow.local/digits/train@sha256:{'0' * 64}"}
GOOD = """\
import ctflow
from kfp import dsl

@dsl.container_component
def train(epochs: int, model: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(
        image=ctflow.image("train"), command=["python", "main.py"], args=[epochs, model.path]
    )

@dsl.pipeline(name="digits")
def digits(epochs: int = 3):
    train(epochs=epochs)
"""


class Project:
    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "project"
        self.root.mkdir()
        self.output = tmp_path / "packages" / "package.yaml"
        self.compiler = KfpCompiler(UvEnvironments(tmp_path / "cache"), timeout=60)

    def write(self, text: str, name: str = "pipeline.py") -> Project:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def compile(self, pipeline: str = "pipeline.py:digits") -> list[str]:
        files = self.compiler.compile(self.root, pipeline, IMAGES, self.output)
        return [str(one) for one in files]

    def refused(self, pipeline: str = "pipeline.py:digits") -> CtflowError:
        with pytest.raises(ConfigError) as raised:
            self.compile(pipeline)
        # Whole or not at all, and nothing half made is left.
        assert not self.output.exists()
        assert not self.output.parent.exists() or not list(self.output.parent.iterdir())
        return raised.value


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_compiles_with_pinned_images_to_the_same_bytes(project: Project) -> None:
    project.write(GOOD)
    assert project.compile() == ["pipeline.py"]
    first = project.output.read_bytes()
    spec = yaml.safe_load(first)
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["image"] == IMAGES["train"]
    project.compile()
    assert project.output.read_bytes() == first
    assert str(project.root) not in first.decode()
    assert [one.name for one in project.root.iterdir()] == ["pipeline.py"]


def test_an_environment_of_its_own_gives_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(GOOD).compile()
    first, fingerprint = project.output.read_bytes(), project.compiler.fingerprint()
    monkeypatch.setattr(kfp_compiler, "_own_kfp", lambda: None)
    project.compile()
    assert project.output.read_bytes() == first
    assert project.compiler.fingerprint() == fingerprint


def test_fingerprint_is_cheap(project: Project) -> None:
    with counted() as work:
        assert project.compiler.fingerprint() == "ctflow-compile-1 kfp-2.16.1"
    assert work.processes == 0


def test_reports_what_the_definition_read(project: Project) -> None:
    project.write("NAME = 'digits'\n", "lib/names.py").write("", "lib/__init__.py")
    project.write("{}", "settings.json").write("", "unused.py")
    text = GOOD.replace(
        "from kfp", "import json, lib.names; json.load(open('settings.json'))\nfrom kfp"
    )
    assert sorted(project.write(text).compile()) == [
        "lib/__init__.py", "lib/names.py", "pipeline.py", "settings.json",
    ]  # fmt: skip
    assert project.compile()[0] == "pipeline.py"


def test_definition_in_a_folder_sees_its_neighbours_and_the_root(project: Project) -> None:
    project.write("", "top.py").write("", "sub/near.py")
    project.write(GOOD.replace("from kfp", "import near, top\nfrom kfp"), "sub/p.py")
    assert project.compile("sub/p.py:digits")[0] == "sub/p.py"


def test_a_module_name_that_is_taken(project: Project) -> None:
    project.write(GOOD, "json.py")
    assert project.compile("json.py:digits") == ["json.py"]


def test_output_at_import_does_no_harm(project: Project) -> None:
    noise = "import sys; print('{\"error\": 1}' * 1000); sys.stderr.write('x' * 100000)\n"
    assert project.write(noise + GOOD).compile() == ["pipeline.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def digits(:\n", "pipeline.py:1: SyntaxError"),
        ("x = 1\nraise ValueError('what\\x1b[31m')\n", r"pipeline.py:2: ValueError: what\x1b[31m"),
        ("import nowhere_to_be_found\n", "install 'nowhere_to_be_found' beside ctflow"),
        ("import sys\nsys.exit(3)\n", "pipeline.py:2: the definition calls sys.exit(3)"),
        ("import os\nos._exit(0)\n", "ended with exit code 0 without a result"),
        ("import os\nos.kill(os.getpid(), 9)\n", "was killed by signal 9 without a result"),
        ("digits = 3\n", "digits is a int, not a pipeline"),
        ("def digits():\n    pass\n", "put @dsl.pipeline above `def digits`"),
        ("x = 1\n", "has no function 'digits'"),
        (GOOD.replace("def digits", "def digit"), "did you mean 'digit'?"),
        (GOOD.replace('"train"', '"tarin"', 1).replace("image(\"train\")", "image(\"tarin\")"),
         "no step of that name (steps: train)"),
        (GOOD.replace("(epochs=epochs)", "(epochs='many')"), "Incompatible argument"),
        (GOOD.replace("(epochs=epochs)", "(unknown=1)"), "pipeline.py:12: TypeError"),
        (GOOD.replace("(epochs=epochs)", "()"), "epochs"),
    ],
)  # fmt: skip
def test_wrong_definitions(project: Project, text: str, message: str) -> None:
    assert message in str(project.write(text).refused())


def test_only_the_project_s_frames_are_shown(project: Project) -> None:
    project.write("def deep():\n    raise RuntimeError('no')\n", "helper.py")
    error = project.write("import helper\nhelper.deep()\n").refused()
    assert str(error).startswith("helper.py:2: RuntimeError: no")
    assert error.details == (
        "pipeline.py:2: helper.deep()",
        "helper.py:2: raise RuntimeError('no')",
    )


def test_no_such_file_names_the_nearest(project: Project) -> None:
    assert "did you mean 'pipeline.py'?" in str(project.write(GOOD).refused("pipelin.py:digits"))
    assert "outside the project" in str(project.refused("../pipeline.py:digits"))


def test_a_definition_that_hangs_is_ended_with_all_it_started(
    project: Project, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    project.write(
        "import os, subprocess, sys, threading\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('waiting for a service', flush=True)\n"
        "threading.Event().wait()\n"
    )
    project.compiler = KfpCompiler(UvEnvironments(tmp_path / "cache"), timeout=15)
    error = project.refused()
    assert "did not end within 15 s" in str(error)
    assert error.details[-1] == "waiting for a service"
    for pid in map(int, pids.read_text().split()):
        state = Path(f"/proc/{pid}/stat")
        # Ended, or a zombie that whoever adopted it has not buried yet.
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_kfp_that_cannot_be_had(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfp_compiler, "_own_kfp", lambda: None)
    monkeypatch.setattr(kfp_compiler, "KFP_REQUIREMENT", "kfp==0.0.0.dev0")
    project.write(GOOD)
    with pytest.raises((OutsideError, ConfigError)):
        project.compile()


def test_the_caller_s_process_stays_as_it_was(project: Project) -> None:
    before = (set(sys.path), dict(os.environ), Path.cwd())
    project.write(GOOD).compile()
    assert (set(sys.path), dict(os.environ), Path.cwd()) == before
    assert "kfp" not in sys.modules or "project" not in sys.modules
