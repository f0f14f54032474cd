"""Models served by the standard runtime of their format: chosen by the commit, kept in the release,
served without code of the project."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import requests
import yaml
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from ctflow.config.project import Project
from ctflow.errors import ConfigError, RunFailed, StateError
from ctflow.model import OWN, Check, ModelRef, Run
from ctflow.ports import GoldenRequest, ServeRequest, Trial, Watch, ignore
from ctflow.release import files
from ctflow.release.proposals import proposal
from ctflow.release.serving import check_serving
from ctflow.report.promotion import lineage
from ctflow.stages.deliver import deploy
from ctflow.stages.rollback import rollback
from tests.integration.test_local_server import Desk, digest
from tests.integration.test_promotion import CONFIG, PROJECT, World, git, release_at
from tests.projects import TEMPLATE

PINS = "scikit-learn==1.7.2\nnumpy==2.2.6  # the arrays\nrequests==2.33.0\n"
WANTED = ("scikit-learn==1.7.2", "numpy==2.2.6")


def project(**given: Any) -> Project:
    return Project.model_validate(CONFIG | given)


class StandardWorld(World):
    """A project without a predictor, whose step names its packages."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.write("steps/train/requirements.txt", PINS)
        git(self.work, "rm", "-qr", "serving")
        self.commit("no serving code")

    def write(self, name: str, text: str) -> None:
        place = self.work / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def golden(self, request: GoldenRequest, watch: Watch) -> Trial:
        self.tried.append(request)
        assert request.code.is_dir()
        return Trial(self.answers if request.golden else (Check("the model is ready", True),))


@pytest.fixture
def world(tmp_path: Path) -> StandardWorld:
    return StandardWorld(tmp_path)


def test_a_commit_without_serving_code_is_served_by_the_formats_runtime(
    world: StandardWorld,
) -> None:
    run = world.run(1, 0.8)
    verdict = world.judge(run)
    assert verdict.reasons[-1].text == "the model loads and is ready"
    assert verdict.notes[-2:] == (
        "served by the standard runtime sklearn (scikit-learn==1.7.2, numpy==2.2.6)",
        "no golden requests: it is only checked that the model loads and is ready",
    )
    (asked,) = world.tried
    assert (asked.runtime, asked.requirements, asked.golden) == ("sklearn", WANTED, "")
    world.promote(run, verdict=verdict)
    world.approve()
    release = release_at(world)
    assert release is not None
    assert release.serving is not None
    assert (release.serving.runtime, release.serving.requirements) == ("sklearn", WANTED)
    rows = dict(row for block in lineage(release) for row in getattr(block, "rows", ()))
    assert rows["served by"] == "standard runtime sklearn: scikit-learn==1.7.2, numpy==2.2.6"
    tip = world.scm.tip("master") or ""
    assert world.scm.files(tip, "deploy/staging/serving") == {}
    manifest = yaml.safe_load(world.scm.read(tip, "deploy/staging/inferenceservice.yaml") or b"")
    assert manifest["spec"]["predictor"]["model"].keys() == {"modelFormat", "storageUri"}
    assert world.judge(run).reasons[0].text == "this model already serves"


def test_what_is_deployed_is_what_the_release_names(world: StandardWorld) -> None:
    world.write("serving/golden.json", "first\n")
    world.commit("golden requests")
    world.serve(1, 0.8)
    asked: list[ServeRequest] = []

    class Target:
        def deploy(self, request: ServeRequest, watch: Watch) -> Any:
            assert sorted(one.name for one in request.code.iterdir()) == ["golden.json"]
            asked.append(request)
            raise StateError("seen")

    with pytest.raises(StateError, match="seen"):
        deploy(
            PROJECT, "staging", scm=world.scm, store=world.store, server=Target(),  # type: ignore[arg-type]
            scratch=world.base / "tmp", watch=ignore,
        )  # fmt: skip
    (one,) = asked
    assert (one.runtime, one.requirements, one.golden) == ("sklearn", WANTED, "golden.json")


def test_a_change_of_the_runtime_is_a_change_to_propose(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.serve(1, 0.8)
    world.pull()
    git(world.work, "rm", "-q", "serving/predictor.py")
    (world.work / "steps" / "train").mkdir(parents=True)
    (world.work / "steps" / "train" / "requirements.txt").write_text(PINS)
    world.commit("let the standard runtime serve it")
    standard = StandardWorld.golden.__get__(world)
    world.golden = standard  # type: ignore[method-assign]
    again = replace(world.run(1, 0.8), id="r-1b", created=2e9, ended=2e9)
    verdict = world.judge(again)
    assert [one.text for one in verdict.reasons] == [
        "same model, new runtime (predictor -> sklearn)", "golden requests 2/2"
    ]  # fmt: skip
    assert world.promote(again, verdict=verdict).state == "open"
    one = proposal(PROJECT, "staging", world.scm)
    report = (world.scm.read(one.commit, "deploy/staging/report.md") or b"").decode()
    # The manifest of before names v2, and stays as it is but for what ctflow owns.
    assert "KServe chooses MLServer" in report.replace("\n", " ")
    tree = world.scm.files(one.commit, "deploy/staging/serving")
    assert list(tree) == ["deploy/staging/serving/golden.json"]
    world.approve()
    served = [release_at(world)]
    rollback(PROJECT, "staging", "slower", scm=world.scm, forge=world.forge, now=3e9)
    served.append(release_at(world))
    assert [one.serving.runtime for one in served if one and one.serving] == ["sklearn", OWN]
    tip = world.scm.tip("master") or ""
    kept = world.scm.files(tip, "deploy/staging/serving")
    assert sorted(Path(name).name for name in kept) == ["golden.json", "predictor.py"]
    assert world.judge(again).reasons[0].rule == "hold"
    # Other requirements are another runtime, too: the hold is on these.
    (world.work / "steps" / "train" / "requirements.txt").write_text("scikit-learn==1.7.1\n")
    world.commit("an older one")
    assert world.judge(replace(world.run(1, 0.8), id="r-1c")).decision == "promote"


def test_requirements_come_from_the_project_else_from_what_made_the_model(
    world: StandardWorld,
) -> None:
    def asked(run: Run, **given: Any) -> tuple[str, ...]:
        world.project = project(**given)
        world.judge(run)
        return world.tried[-1].requirements

    run = world.run(1, 0.8)
    pinned = {"runtime": "standard", "requirements": ["scikit-learn==1.5.2"]}
    assert asked(run, serving=pinned) == ("scikit-learn==1.5.2",)
    assert asked(run, model={"format": "onnx"}) == ("onnxruntime==1.23.2",)
    packages = ("kfp==2.16.1", "xgboost>=3", "numpy==2.2.6")
    component = replace(run, tasks=(replace(run.tasks[0], packages=packages), *run.tasks[1:]))
    assert asked(component, model={"format": "xgboost"}) == ("xgboost>=3", "numpy==2.2.6")
    loose = world.judge(component).notes
    assert any(one.startswith("xgboost>=3 names no single version") for one in loose)
    # The step that the task ran, whatever the task is called, in the folder that it has.
    named = replace(run, tasks=(replace(run.tasks[0], step="fit"), *run.tasks[1:]))
    world.write("code/fit/requirements.txt", "lightgbm==4.7.0\n")
    named = replace(named, commit=replace(run.commit, sha=world.commit("fit")))  # type: ignore[type-var]
    steps = {"fit": {"folder": "code/fit"}}
    assert asked(named, steps=steps, model={"format": "lightgbm"}) == ("lightgbm==4.7.0",)


def test_a_version_that_nothing_names_is_asked_for(world: StandardWorld) -> None:
    world.project = project(model={"format": "xgboost"})
    run = world.run(1, 0.8)
    with pytest.raises(ConfigError) as caught:
        world.judge(run)
    said = caught.value.message()
    assert "nothing says which xgboost made the model: steps/train/requirements.txt does" in said
    assert "`serving: {requirements: [xgboost==VERSION]}`" in said
    other = replace(run, tasks=(replace(run.tasks[0], packages=("kfp==2",)), *run.tasks[1:]))
    with pytest.raises(ConfigError, match="the component of task train does not name it"):
        world.judge(other)


def test_an_mlflow_model_says_its_requirements(world: StandardWorld) -> None:
    world.project = project(model={"format": "mlflow"})
    run = world.run(1, 0.8)
    model = run.artifact("train.model")
    assert model is not None
    with pytest.raises(ConfigError, match=r"holds no requirements\.txt that names mlflow"):
        world.judge(run)
    inside = Path(model.uri) / "kept"
    inside.mkdir()
    (inside / "MLmodel").write_text("flavors: {}\n")
    (inside / "requirements.txt").write_text("mlflow-skinny==3.17.2\nscikit-learn==1.7.2\n")
    world.judge(run)
    assert world.tried[-1].requirements == ("mlflow-skinny==3.17.2", "scikit-learn==1.7.2")
    # A step wrote that file: where packages come from is not its to say.
    (inside / "requirements.txt").write_text("mlflow==3\n--index-url https://evil.example\x1b[1m\n")
    with pytest.raises(ConfigError, match=r"requirement 2 in the model's requirements\.txt is no"):
        world.judge(run)


def test_serving_code_without_a_predictor_is_ambiguous(world: StandardWorld) -> None:
    world.write("serving/README.md", "requests\n")
    world.write("serving/.gitignore", "*.pyc\n")
    check_serving(world.scm, world.commit("words only"), PROJECT)
    world.write("serving/requirements.txt", "kserve\n")
    sha = world.commit("the predictor is ignored")
    with pytest.raises(StateError) as caught:
        check_serving(world.scm, sha, PROJECT)
    said = caught.value.message()
    assert "has no serving/predictor.py (it is missing, or git ignores it)" in said
    assert "say `serving: {runtime: standard}`" in said
    check_serving(world.scm, sha, project(serving={"runtime": "standard"}))
    with pytest.raises(StateError, match=r"has no serving/predictor\.py"):
        check_serving(world.scm, sha, project(serving={"runtime": "predictor"}))
    with pytest.raises(StateError, match=r"has no elsewhere/app\.py"):
        check_serving(
            world.scm, sha, project(serving={"folder": "elsewhere", "predictor": "app.py"})
        )
    named = project(serving={"runtime": "standard", "golden": "golden.json"})
    with pytest.raises(StateError, match=r"has no serving/golden\.json"):
        check_serving(world.scm, sha, named)
    (world.work / "serving" / "golden.json").symlink_to("README.md")
    linked = world.commit("a link")
    with pytest.raises(StateError, match=r"serving/golden\.json is a link"):
        check_serving(world.scm, linked, project(serving={"runtime": "standard"}))


def test_a_format_without_a_runtime_needs_a_predictor(world: StandardWorld) -> None:
    sha = world.scm.tip("master") or ""
    with pytest.raises(ConfigError) as caught:
        check_serving(world.scm, sha, project(model={"format": "pytorch"}))
    assert caught.value.message() == (
        "no standard runtime serves models of format 'pytorch' here (there are sklearn, xgboost,"
        " lightgbm, onnx, mlflow); write serving/predictor.py, or correct model.format"
    )


def test_both_environments_are_the_same_runtime(world: StandardWorld) -> None:
    run = world.serve(1, 0.8)
    world.promote(run, "production", world.judge(run, "production"))
    world.approve("production")
    there, here = (release_at(world, name) for name in ("production", "staging"))
    assert there is not None
    assert here is not None
    assert files.identity_of(there) == files.identity_of(here)


# -- served, by real model servers -----------------------------------------------------------------


class StandardDesk(Desk):
    """Sklearn models, and no serving code."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for file in self.code.iterdir():
            file.unlink()

    def model(self, name: str, fitted: Any) -> Path:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        joblib.dump(fitted, place / "model.joblib")
        return place

    def constant(self, answer: int, **given: Any) -> ServeRequest:
        fitted = DummyClassifier(strategy="constant", constant=answer)
        fitted.fit(np.zeros((2, 1)), np.array([answer, answer]))
        name = f"always-{answer}"
        place = self.model(name, fitted)
        reference = ModelRef(f"file://{place}", digest(name), "sklearn")
        return ServeRequest(
            "digits", "staging", reference, lambda: place, self.code, "", "", "c" * 40,
            runtime="sklearn", requirements=WANTED, **given,
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[StandardDesk]:
    desk = StandardDesk(tmp_path)
    yield desk
    desk.server.stop("staging")
    assert not desk.processes()


def test_switched_without_golden_requests_and_without_a_dropped_request(
    desk: StandardDesk,
) -> None:
    first = desk.server.deploy(desk.constant(3), ignore)
    assert (first.state, first.checks) == ("ready", ())  # no golden request was asked
    assert [check.passed for check in desk.server.check("staging")] == [True]
    assert not list(desk.code.iterdir())  # the runtime's files are in the copy that serves
    answers: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                place = f"{first.url}/v1/models/digits:predict"
                answers.append(session.post(place, json={"instances": [[1.0]]}, timeout=60))

    client = threading.Thread(target=ask)
    client.start()
    try:
        second = desk.server.deploy(desk.constant(7, canary=(50,), pause=0.5), ignore)
    finally:
        stop.set()
        client.join()
    assert (second.state, second.model) == ("ready", digest("always-7"))
    assert {one.status_code for one in answers} == {200}
    assert {tuple(one.json()["predictions"]) for one in answers} == {(3,), (7,)}
    tensor = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [0, 1]}]}
    answer = requests.post(f"{second.url}/v2/models/digits/infer", json=tensor, timeout=60).json()
    assert answer["outputs"][0] | {"parameters": None} == {
        "name": "output-0", "shape": [2], "datatype": "INT64", "data": [7, 7], "parameters": None,
    }  # fmt: skip
    assert desk.server.deploy(desk.constant(7), ignore).changed is False
    broken = replace(desk.constant(9), runtime="pmml")
    failed = desk.server.deploy(broken, ignore)
    assert (failed.state, failed.model) == ("failed", digest("always-7"))
    assert "no standard runtime 'pmml'" in failed.message


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), r"no sklearn model in the model's folder \(it is empty\): exactly one has to end in"),
        (("weights.bin",), r"no sklearn model in the model's folder \(weights.bin\)"),
        (("a.pkl", "b.joblib"), r"more than one model file in the model's folder \(a.pkl, b.job"),
        (("a.pkl",), "before it was ready"),
    ],
    ids=["empty", "other", "two", "broken"],
)
def test_a_model_that_does_not_load_says_why(
    desk: StandardDesk, names: tuple[str, ...], says: str
) -> None:
    place = desk.folder / "bad"
    place.mkdir()
    for name in names:
        (place / name).write_bytes(b"no pickle")
    request = GoldenRequest("digits", place, desk.code, "", "", None, "sklearn", WANTED)
    with pytest.raises(RunFailed, match=says):
        desk.server.try_model(request, ignore)


def test_times_need_golden_requests(desk: StandardDesk) -> None:
    request = GoldenRequest(
        "digits", desk.constant(1).fetch(), desk.code, "", "", lambda times, seconds: False,
        "sklearn", WANTED,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="there are no golden requests, so nothing can be timed"):
        desk.server.try_model(request, ignore)


def test_the_templates_predictor_and_the_standard_runtime_answer_the_same(
    desk: StandardDesk, tmp_path: Path
) -> None:
    """But for the name of V2's output, which is a predictor's own choice."""
    images, digits = load_digits(return_X_y=True)
    model = desk.model("digits", LogisticRegression(tol=0.1).fit(images, digits))
    own = tmp_path / "own"
    own.mkdir()
    text = (TEMPLATE / "serving" / "predictor.py").read_text()
    (own / "predictor.py").write_text(text.replace("{{ cookiecutter.project }}", "digits"))
    (own / "requirements.txt").write_text("kserve\n")
    golden = json.loads((TEMPLATE / "serving" / "golden.json").read_text())
    for one in golden:
        for output in one["expect"].get("outputs", ()):
            assert output.pop("name") == "predictions"
            output |= {"shape": [len(output["data"])], "datatype": "INT64"}
    assert {one["protocol"] for one in golden} == {"v1", "v2"}
    for folder in (own, desk.code):
        (folder / "golden.json").write_text(json.dumps(golden))
    # What else lies in the folder is not the runtime's.
    (desk.code / "joblib.py").write_text("raise SystemExit('not this one')\n")
    asked = GoldenRequest("digits", model, own, "predictor.py", "golden.json")
    standard = replace(asked, code=desk.code, predictor="", runtime="sklearn", requirements=WANTED)
    for request in (asked, standard):
        checks = desk.server.try_model(request, ignore).checks
        assert [(check.name, check.detail) for check in checks] == [
            (one["name"], "") for one in golden
        ]
    timed = desk.server.try_model(replace(standard, more=lambda times, _: len(times) < 5), ignore)
    assert timed.timed is not None
    assert len(timed.timed.times) == 5
