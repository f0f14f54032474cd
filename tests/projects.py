"""A small project whose steps cost nothing: standard library only, no requirements.

``train`` writes a model that says its own ``skill``; ``evaluate`` writes the predictions of a model
that is right for that share of 400 examples. The parameter ``fault`` makes either of them fail in a
named way, and ``size`` makes the model so many bytes long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

TEMPLATE = Path(__file__).parents[1] / "templates" / "project" / "{{cookiecutter.project}}"

CONFIG = """\
project: tiny
pipeline: pipeline.py:tiny
parameters: {skill: 0.8, fault: '', size: 0}
model: {artifact: train.model, format: sklearn}
gate:
  - {metric: accuracy, min: 0.5}
  - {metric: accuracy, over: champion, predictions: evaluate.predictions}
environments:
  staging: {}
  production: {after: staging}
"""
PIPELINE = """\
import ctflow
from kfp import dsl


@dsl.container_component
def train(skill: float, fault: str, size: int, model: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(
        image=ctflow.image("train"),
        command=["python", "main.py"],
        args=[str(skill), fault, size, model.path],
    )


@dsl.container_component
def evaluate(
    fault: str,
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    predictions: dsl.Output[dsl.Dataset],
):
    return dsl.ContainerSpec(
        image=ctflow.image("evaluate"),
        command=["python", "main.py"],
        args=[fault, model.path, metrics.path, predictions.path],
    )


@dsl.pipeline(name="tiny")
def tiny(skill: float = 0.8, fault: str = "", size: int = 0):
    trained = train(skill=skill, fault=fault, size=size)
    evaluate(fault=fault, model=trained.outputs["model"])
"""
TRAIN = """\
import os
import sys
import time

skill, fault, size, model = sys.argv[1:]
print("training", flush=True)
if fault == "exit":
    for number in range(40):
        print(f"epoch {number}")
    sys.exit("the data is upside down \\x1b[31m")
if fault.startswith("wait:"):
    # Until the test says so, by making that file.
    while not os.path.exists(fault[5:]):
        time.sleep(0.02)
os.makedirs(model, exist_ok=True)
with open(os.path.join(model, "skill"), "w") as file:
    file.write(skill)
if int(size):
    with open(os.path.join(model, "weights"), "wb") as file:
        file.write(b"w" * int(size))
"""
EVALUATE = """\
import json
import os
import random
import sys

fault, model, metrics, predictions = sys.argv[1:]
with open(os.path.join(model, "skill")) as file:
    skill = float(file.read())
order = list(range(400))
random.Random(1).shuffle(order)
right = set(order[: round(skill * 400)])
value = {"nan": float("nan")}.get(fault, len(right) / 400)
with open(metrics, "w") as file:
    json.dump({} if fault == "missing" else {"accuracy": value}, file)
if fault == "no-predictions":
    sys.exit(0)
rows = [f"e{i},{i % 2},{i % 2 if i in right else 1 - i % 2}\\n" for i in range(400)]
with open(predictions, "w") as file:
    file.write("id,label,prediction\\n" + "".join([] if fault == "empty" else rows))
"""
PREDICTOR = """\
from pathlib import Path

from kserve import Model


class Predictor(Model):
    def __init__(self, name, model_dir):
        super().__init__(name)
        self.folder = Path(model_dir)

    def load(self):
        self.skill = float((self.folder / "skill").read_text())
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": [self.skill for _ in payload["instances"]]}
"""
GOLDEN = [
    {"name": "shape", "protocol": "v1", "request": {"instances": []}, "expect": {"predictions": []}}
]


def git(folder: Path, *words: str) -> str:
    """A git command that must succeed; what it printed."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a ctflow process: none of ctflow's own, but for ``extra``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CTFLOW_")}
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(extra or {})


class TinyProject:
    """The project in ``base/name``, committed; with a bare repository beside it where asked."""

    #: Packages compiled before: importing kfp in each test would cost more than all the rest.
    packages: ClassVar[Path | None] = None

    def __init__(self, base: Path, name: str = "tiny", *, remote: bool = True) -> None:
        self.base, self.folder, self.bare = base, base / name, base / f"{name}.git"
        self.env: dict[str, str] = {}
        files = {
            "ctflow.yaml": CONFIG, "pipeline.py": PIPELINE, ".gitignore": "__pycache__/\n",
            "steps/train/main.py": TRAIN, "steps/evaluate/main.py": EVALUATE,
            "serving/predictor.py": PREDICTOR, "serving/golden.json": json.dumps(GOLDEN),
            "serving/requirements.txt": (TEMPLATE / "serving" / "requirements.txt").read_text(),
        }  # fmt: skip
        for step in ("train", "evaluate"):
            files[f"steps/{step}/requirements.txt"] = ""
            files[f"steps/{step}/Dockerfile"] = "FROM python:3.11-slim\n"
        for path, text in files.items():
            self.write(path, text)
        git(self.folder, "init", "-q", "-b", "master")
        self.commit("first")
        if remote:
            git(base, "init", "-q", "--bare", "-b", "master", self.bare.name)
            git(self.folder, "remote", "add", "origin", str(self.bare))
            self.push()
        if self.packages is not None:
            self.state.mkdir()
            (self.state / ".gitignore").write_text("*\n")
            shutil.copytree(self.packages, self.state / "packages")

    @classmethod
    def keep_package(cls, base: Path) -> None:
        """Compile the pipeline once, for all projects that are made later."""
        if cls.packages is None:
            first = cls(base, remote=False)
            first.ok("compile")
            cls.packages = first.state / "packages"

    @property
    def state(self) -> Path:
        """The local state's folder."""
        return Path(self.env.get("CTFLOW_STATE", self.folder / ".ctflow"))

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text in a file, which must be there."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    def commit(self, message: str) -> str:
        """Commit everything; the commit."""
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-qm", message)
        return git(self.folder, "rev-parse", "HEAD")

    def push(self) -> str:
        """Push master; what git and the hook said."""
        done = subprocess.run(
            ["git", "push", "-q", "origin", "master"], cwd=self.folder, env=environ(self.env),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``ctflow words`` in the project's folder."""
        given: dict[str, Any] = {
            "cwd": self.folder, "env": environ(self.env), "text": True,
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        }  # fmt: skip
        program = options.pop("program", ("-m", "ctflow"))
        return subprocess.Popen([sys.executable, *program, *words], **given | options)

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``ctflow words`` to its end."""
        with self.start(*words, **options) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(list(words), process.returncode, out, err)

    def ok(self, *words: str) -> str:
        """The same, where it must succeed; what it printed."""
        done = self.call(*words)
        assert done.returncode == 0, f"ctflow {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str, code: int = 0) -> Any:
        """The JSON that ``ctflow words --json`` prints."""
        done = self.call(*words, "--json")
        assert done.returncode == code, f"ctflow {' '.join(words)}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def approve(self, environment: str = "staging") -> str:
        """Approve what is proposed for an environment; what it printed."""
        return self.ok("promotions", "approve", environment, self.proposed(environment))

    def proposed(self, environment: str = "staging") -> str:
        """The id of what is proposed for an environment; ``none`` where nothing is."""
        rows = self.json("promotions", "list")
        return next((row["id"] for row in rows if row["environment"] == environment), "none")

    def fails(self, code: int, *words: str) -> str:
        """The one line that ``ctflow words`` fails with: no traceback, nothing cut."""
        done = self.call(*words)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("ctflow: ")]
        assert len(lines) == 1, done.stderr
        return lines[0].removeprefix("ctflow: ")

    def clone(self, name: str, *, state: Path | None = None) -> TinyProject:
        """A second clone of the bare repository, with local state of its own."""
        git(self.base, "clone", "-q", str(self.bare), name)
        other = TinyProject.__new__(TinyProject)
        other.base, other.folder, other.bare = self.base, self.base / name, self.bare
        other.env = {"CTFLOW_STATE": str(state)} if state else {}
        return other

    def tip(self, branch: str = "master") -> str | None:
        """A branch's commit in the bare repository, or here where there is none."""
        place = self.bare if self.bare.is_dir() else self.folder
        done = subprocess.run(
            ["git", "rev-parse", "--quiet", "--verify", f"refs/heads/{branch}"],
            cwd=place, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip() or None
