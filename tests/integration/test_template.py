"""The generated project, for real: rendered, tested, run by hand, and served."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ctflow
from ctflow.config.settings import load_settings
from ctflow.scaffold.cookiecutter import own_requirement, template_folder

FORGE = [
    "project=on", "repository=Acme/Digits", "branch=release/2.0",
    "description=Say \"7\", 'é' or \\ : {anything} #1",
]  # fmt: skip
WORKFLOWS = ("ci", "train", "deploy")
STEPS = ("collect", "validate", "train", "evaluate")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder; its ``home`` must be empty at the end."""
    folder = tmp_path_factory.mktemp("new")
    (folder / "home").mkdir()
    yield folder
    assert list((folder / "home").iterdir()) == []


def environment(place: Path, **more: str) -> dict[str, str]:
    """A process's variables: another home, an identity, and no settings of whoever tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "CTFLOW_", "XDG_"))}
    for who in ("AUTHOR", "COMMITTER"):
        kept |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.com"}
    return kept | {
        "HOME": str(place / "home"), "GIT_CONFIG_NOSYSTEM": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(ctflow.__file__).parents[1]), **more,
    }  # fmt: skip


def call(place: Path, *words: str | Path, cwd: Path | None = None, **more: Any) -> str:
    """Run a command that must succeed; its standard output."""
    result = subprocess.run(
        [str(word) for word in words], cwd=cwd or place, env=environment(place),
        capture_output=True, text=True, **more,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


def ctflow_new(place: Path, *words: str) -> str:
    return call(place, sys.executable, "-m", "ctflow", "new", *words)


@pytest.fixture(scope="module")
def plain(place: Path) -> Path:
    """A project with the default answers."""
    assert "ctflow ct" in ctflow_new(place, "--no-input")
    return place / "digits"


@pytest.fixture(scope="module")
def forged(place: Path) -> Path:
    """A project with a forge, and answers that are awkward in YAML, Python and Markdown."""
    ctflow_new(place, "forged", "--no-input", *FORGE)
    return place / "forged"


@pytest.fixture(scope="module")
def clustered(place: Path) -> Path:
    """A project whose pipelines run on Kubeflow Pipelines."""
    ctflow_new(place, "clustered", "--no-input", "repository=acme/digits", "runner=kubeflow")
    return place / "clustered"


@pytest.fixture(params=["plain", "forged", "clustered"])
def project(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of every file but git's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_it_is_one_commit_on_the_branch_and_clean(place: Path, plain: Path, forged: Path) -> None:
    for folder, branch in ((plain, "master"), (forged, "release/2.0")):
        assert call(place, "git", "branch", "--show-current", cwd=folder).strip() == branch
        assert call(place, "git", "rev-list", "--count", "HEAD", cwd=folder).strip() == "1"
        assert call(place, "git", "status", "--porcelain", cwd=folder) == ""
        assert call(place, "git", "log", "-1", "--format=%an", cwd=folder).strip() == "Ada"
        tracked = call(place, "git", "ls-files", cwd=folder).splitlines()
        assert sorted(tracked) == sorted(contents(folder))


def test_the_files_are_those_that_the_design_names(plain: Path) -> None:
    files = set(contents(plain))
    wanted = {
        "ctflow.yaml", "pipeline.py", "README.md", "requirements-dev.txt", ".gitignore",
        ".github/CODEOWNERS", "serving/predictor.py", "serving/golden.json",
        "serving/requirements.txt", "deploy/staging/kustomization.yaml",
        "deploy/production/kustomization.yaml",
    }  # fmt: skip
    wanted |= {f".github/workflows/{name}.yaml" for name in WORKFLOWS}
    names = ("Dockerfile", "main.py", "requirements.txt", ".dockerignore")
    wanted |= {f"steps/{step}/{name}" for step in STEPS for name in names}
    assert wanted <= files
    text = b"".join(contents(plain).values()).decode()
    assert "cookiecutter." not in text
    assert not re.search(r"\{%|(?<!\$)\{\{", text)


@pytest.mark.parametrize("words", [[], FORGE])
def test_plain_cookiecutter_gives_the_same_files(
    place: Path, plain: Path, forged: Path, tmp_path: Path, words: list[str]
) -> None:
    # Cookiecutter by itself keeps its replay files in the home folder, so it gets another one.
    result = subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", "-o", str(tmp_path / "out"),
         str(template_folder()), *words],
        env=environment(place, HOME=str(tmp_path)), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    made = tmp_path / "out" / ("on" if words else "digits")
    theirs, ours = contents(made), contents(forged if words else plain)
    # It cannot know which ctflow there is; ours names the very one that made the project.
    named = f"\n{own_requirement()}\n".encode()
    assert named in ours["requirements-dev.txt"]
    ours["requirements-dev.txt"] = ours["requirements-dev.txt"].replace(named, b"\nctflow\n")
    assert theirs == ours


def test_plain_cookiecutter_refuses_bad_answers(place: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", "-o", str(tmp_path / "out"),
         str(template_folder()), "project=My Model"],
        env=environment(place, HOME=str(tmp_path)), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode != 0
    assert "KServe wants lower-case letters" in result.stderr
    assert not (tmp_path / "out" / "My Model").exists()


def test_the_configuration_is_valid_and_holds_the_answers(plain: Path, forged: Path) -> None:
    by_default = load_settings(plain, {}).project
    assert (by_default.project, by_default.branch) == ("digits", "master")
    assert (by_default.forge.kind, by_default.images.registry) == ("none", None)
    assert by_default.environments["production"].after == "staging"
    with_forge = load_settings(forged, {}).project
    assert (with_forge.project, with_forge.branch) == ("on", "release/2.0")
    assert with_forge.forge.kind == "none"
    assert "#   repository: Acme/Digits\n" in (forged / "ctflow.yaml").read_text()
    assert with_forge.images.registry == "ghcr.io/acme/digits"
    assert "/deploy/   @Acme" in (forged / ".github" / "CODEOWNERS").read_text()


def test_the_answers_and_the_templates_version_are_recorded(forged: Path) -> None:
    record = yaml.safe_load((forged / ".ctflow-template.yaml").read_text())
    assert record["version"] == ctflow.__version__
    given = dict(word.split("=", 1) for word in FORGE)
    assert record["answers"] == given | {"registry": "ghcr.io/acme/digits", "runner": "local"}


def test_every_environment_pins_the_same_versions(plain: Path) -> None:
    pins: dict[str, set[str]] = {}
    files = [plain / "requirements-dev.txt", *plain.glob("*/requirements.txt")]
    for file in [*files, *plain.glob("steps/*/requirements.txt")]:
        for line in file.read_text().splitlines():
            name, equals, version = line.partition("==")
            if equals:
                pins.setdefault(name, set()).add(version)
    assert set(pins) == {"kfp", "kserve", "numpy", "scikit-learn"}
    assert all(len(versions) == 1 for versions in pins.values()), pins


# -- the workflows -----------------------------------------------------------------------------


def workflow(project: Path, name: str) -> dict[str, Any]:
    # BaseLoader: YAML 1.1 reads the key `on` as true.
    text = (project / ".github" / "workflows" / f"{name}.yaml").read_text()
    loaded: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    return loaded


def test_the_workflows_are_valid(place: Path, project: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is of the `check` group")
    files = [project / ".github" / "workflows" / f"{name}.yaml" for name in WORKFLOWS]
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    call(place, sys.executable, *words, *files)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_workflows_have_least_rights_and_pinned_actions(project: Path, name: str) -> None:
    found = workflow(project, name)
    assert found["permissions"] == {"contents": "read"}
    assert found["concurrency"]["group"]
    text = (project / ".github" / "workflows" / f"{name}.yaml").read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    for use in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    for job in found["jobs"].values():
        assert int(job["timeout-minutes"]) > 0
        for step in job["steps"]:
            # What a person or a branch is called must not become a shell's code.
            assert "${{" not in step.get("run", "")
            assert "${{" not in step.get("with", {}).get("script", "")


def test_pull_requests_see_no_secret(project: Path) -> None:
    assert list(workflow(project, "ci")["on"]) == ["pull_request"]
    assert "secrets." not in (project / ".github" / "workflows" / "ci.yaml").read_text()


def test_the_workflows_follow_the_default_branch(forged: Path) -> None:
    train, deploy = (workflow(forged, name)["on"]["push"] for name in ("train", "deploy"))
    assert train["branches"] == deploy["branches"] == ["release/2.0"]
    assert train["paths-ignore"] == deploy["paths"] == ["deploy/**"]


def test_the_workflows_call_verbs_that_there_are(project: Path) -> None:
    from ctflow.cli import VERBS

    for name in WORKFLOWS:
        text = (project / ".github" / "workflows" / f"{name}.yaml").read_text()
        called = re.findall(r"^.*(?:run: |^ +)ctflow (\w+)", text, re.MULTILINE)
        assert called
        assert set(called) <= set(VERBS)


# -- the pipeline and its steps ----------------------------------------------------------------


@pytest.mark.slow
def test_its_own_tests_pass_as_generated(place: Path, plain: Path) -> None:
    out = call(place, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=plain)
    assert " passed" in out
    assert "skipped" not in out


def test_the_pipeline_compiles_with_awkward_answers(
    place: Path, forged: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); import pipeline; from kfp import compiler\n"
        "compiler.Compiler().compile(pipeline.pipeline, sys.argv[1])"
    )
    images = {step: f"ghcr.io/acme/{step}@sha256:{'0' * 64}" for step in STEPS}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "package.yaml")], cwd=forged,
        env=environment(place, CTFLOW_IMAGES=json.dumps(images)), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    package = yaml.safe_load((tmp_path / "package.yaml").read_text())
    assert package["pipelineInfo"]["name"] == "on"
    assert package["pipelineInfo"]["description"] == FORGE[3].partition("=")[2]


class Bench:
    """Runs the steps by hand, each in its folder."""

    def __init__(self, place: Path, project: Path, out: Path) -> None:
        self.place, self.project, self.out = place, project, out

    def step(self, step: str, *words: str | Path) -> None:
        folder = self.project / "steps" / step
        call(self.place, sys.executable, "main.py", *words, cwd=folder)

    def data(self) -> None:
        self.step("collect", "--dataset", self.out / "dataset.csv")
        self.step(
            "validate", "--dataset", self.out / "dataset.csv", "--report", self.out / "report.md",
            "--metrics", self.out / "facts.json", "--training-set", self.out / "training.csv",
            "--evaluation-set", self.out / "evaluation.csv",
        )  # fmt: skip

    def model(self, name: str, *parameters: str) -> dict[str, bool]:
        """Train and evaluate; for each example whether the answer was right."""
        out = self.out / name
        self.step(
            "train", "--training-set", self.out / "training.csv", "--model", out / "model",
            "--metrics", out / "train.json", *parameters,
        )  # fmt: skip
        self.step(
            "evaluate", "--evaluation-set", self.out / "evaluation.csv",
            "--model", out / "model", "--metrics", out / "metrics.json",
            "--confusion", out / "confusion.json", "--predictions", out / "predictions.csv",
            "--reserved", out / "reserved.csv",
        )  # fmt: skip
        with (out / "predictions.csv").open(newline="") as file:
            return {row["id"]: row["label"] == row["prediction"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def bench(place: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(place, plain, tmp_path_factory.mktemp("bench"))
    made.data()
    return made


@pytest.fixture(scope="module")
def right(bench: Bench) -> dict[str, bool]:
    """The default model's answers."""
    return bench.model("default")


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(bench: Bench, right: dict[str, bool]) -> None:
    again = Bench(bench.place, bench.project, bench.out / "again")
    again.data()
    assert again.model("default") == right
    for name in ("dataset.csv", "training.csv", "evaluation.csv", "report.md", "facts.json"):
        assert (again.out / name).read_bytes() == (bench.out / name).read_bytes()
    one, two = contents(bench.out / "default"), contents(again.out / "default")
    assert list(one) == [
        "confusion.json", "metrics.json", "model/model.joblib", "predictions.csv", "reserved.csv",
        "train.json",
    ]  # fmt: skip
    assert one == two


@pytest.mark.slow
def test_one_parameter_makes_a_surely_better_and_another_a_worse_model(
    bench: Bench, right: dict[str, bool]
) -> None:
    from scipy.stats import binomtest

    def gain(other: dict[str, bool]) -> tuple[float, float]:
        assert other.keys() == right.keys()
        won = sum(other[name] and not right[name] for name in right)
        lost = sum(right[name] and not other[name] for name in right)
        return (won - lost) / len(right), float(binomtest(won, won + lost).pvalue)

    assert 0.93 < sum(right.values()) / len(right) < 0.96
    better, p_better = gain(bench.model("better", "--hidden-units", "128"))
    worse, p_worse = gain(bench.model("worse", "--epochs", "15"))
    assert better > 0.01
    assert p_better < 0.01
    assert worse < -0.01
    assert p_worse < 0.01


#: Answers requests through KServe's own REST application, without a socket.
SERVE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from kserve import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from starlette.testclient import TestClient
from predictor import Predictor

predictor = Predictor("digits", sys.argv[2])
predictor.load()
models = ModelRepository()
models.update(predictor)
name = "kserve.model_server:app"
RESTServer(name, DataPlane(models), ModelRepositoryExtension(models), 0).create_application()
from kserve.model_server import app

paths = {"v1": "/v1/models/digits:predict", "v2": "/v2/models/digits/infer"}
with TestClient(app, raise_server_exceptions=False) as client:
    replies = [client.post(paths[p], json=request) for p, request in json.load(sys.stdin)]
json.dump([[reply.status_code, reply.json()] for reply in replies], sys.stdout)
"""


def serve(bench: Bench, requests: list[tuple[str, Any]]) -> list[tuple[int, Any]]:
    folder, model = bench.project / "serving", bench.out / "default" / "model"
    words = (sys.executable, "-c", SERVE, folder, model)
    replies: list[tuple[int, Any]] = json.loads(
        call(bench.place, *words, input=json.dumps(requests))
    )
    return replies


@pytest.mark.slow
def test_the_predictor_answers_the_golden_requests(bench: Bench, right: dict[str, bool]) -> None:
    golden = json.loads((bench.project / "serving" / "golden.json").read_text())
    assert {one["protocol"] for one in golden} == {"v1", "v2"}
    replies = serve(bench, [(one["protocol"], one["request"]) for one in golden])
    for one, (status, reply) in zip(golden, replies, strict=True):
        assert status == 200, reply
        if one["protocol"] == "v1":
            assert reply == one["expect"]
        else:
            wanted = one["expect"]["outputs"]
            outputs = [{key: out[key] for key in ("name", "data")} for out in reply["outputs"]]
            assert outputs == wanted


@pytest.mark.slow
def test_the_predictor_refuses_what_is_no_image(bench: Bench, right: dict[str, bool]) -> None:
    def v2(shape: list[int], data: list[Any], datatype: str = "FP64") -> tuple[str, Any]:
        tensor = {"name": "images", "shape": shape, "datatype": datatype, "data": data}
        return "v2", {"inputs": [tensor]}

    bad: list[tuple[str, Any]] = [
        ("v1", {"instances": [[1] * 63]}),
        ("v1", {"instances": [[1] * 64, [2]]}),
        ("v1", {"instances": [["a"] * 64]}),
        ("v1", {"instances": "abc"}),
        ("v1", {"instances": [{"p0": 1}]}),
        ("v1", {"wrong": []}),
        v2([1, 63], [1] * 63),
        v2([2, 64], [1] * 64),
        v2([1, 64], ["a"] * 64, "BYTES"),
        v2([1, 64], [None] * 64),
        ("v2", {"inputs": []}),
    ]
    replies = serve(bench, [*bad, ("v1", {"instances": []}), v2([1, 64], [3] * 64, "INT32")])
    assert [status for status, _ in replies] == [400] * len(bad) + [200, 200]
    assert "63" in replies[0][1]["error"]
    assert replies[-2][1] == {"predictions": []}


# -- killed ------------------------------------------------------------------------------------


def start_new(place: Path, folder: Path, act: int, number: signal.Signals) -> int:
    """Call `ctflow new` in a folder, with a signal at that act; its exit code."""
    folder.mkdir()
    words = [str(Path(__file__).parents[1] / "killed.py"), str(act), str(int(number))]
    done = subprocess.run(
        [sys.executable, *words, str(folder.with_suffix(".acts")), "new", "--no-input"],
        cwd=folder, env=environment(place), capture_output=True, timeout=120,
    )  # fmt: skip
    return done.returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_leaves_no_half_of_a_project(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """At the first acts, one of which makes the hidden folder, and at some of all the others."""
    assert start_new(place, tmp_path / "whole", 0, number) == 0
    total = int((tmp_path / "whole.acts").read_text())
    assert total > 20
    for act in (*range(1, 7), *range(7, total + 1, max(1, total // 5)), total):
        folder = tmp_path / f"at-{act}"
        code = start_new(place, folder, act, number)
        target = folder / "digits"
        if target.exists():
            assert call(place, "git", "status", "--porcelain", cwd=target) == ""
            continue
        if number == signal.SIGTERM:
            assert code in (130, -signal.SIGTERM)  # before ctflow listens to it
            assert list(folder.iterdir()) == [], f"at act {act}"
        call(place, sys.executable, "-m", "ctflow", "new", "--no-input", cwd=folder)
        assert [path.name for path in folder.iterdir()] == ["digits"], f"at act {act}"
        assert call(place, "git", "status", "--porcelain", cwd=target) == ""
