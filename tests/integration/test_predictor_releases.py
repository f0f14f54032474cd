"""The predictor's image in releases: from git's own serving folder to a rollback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.config.project import Project
from ctflow.config.serving_code import export_code
from ctflow.errors import ConfigError, StateError
from ctflow.evaluation.candidates import ReleaseCandidate
from ctflow.images.predictor import CommitPredictors
from ctflow.lib.digests import digest_bytes
from ctflow.model import Image, Release
from ctflow.ports import Event, StepSource, Watch, ignore
from ctflow.release import files
from ctflow.report.why import why_report
from ctflow.stages.evaluate import evaluate
from ctflow.stages.promote import promote
from ctflow.stages.rollback import rollback
from ctflow.stages.why import why
from ctflow.steps.context import content_digest, context_files
from tests.integration.test_promotion import CONFIG, World, git, no_functions, release_at

REGISTRY = "registry.example/digits"


class Registry:
    """Images by their content and base, as ``ImageBuilder`` has them in a registry."""

    def __init__(self) -> None:
        self.base = "sha256:base-1"
        self.images: dict[str, str] = {}
        self.commits: list[str] = []
        self.texts: list[dict[str, str]] = []

    def at(self, commit: str) -> Registry:
        self.commits.append(commit)
        return self

    def plan(self, steps: Sequence[StepSource]) -> tuple[Image, ...]:
        found = []
        for step in steps:
            content = self._content(step)
            digest = self.images.get(content)
            name = f"{REGISTRY}/{step.name}@{digest or content}"
            found.append(Image(step.name, name, content, digest is None))
        return tuple(found)

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        for step in steps:
            content = self._content(step)
            if content not in self.images:
                watch(Event("note", step.name, f"building step {step.name} with fake"))
                self.images[content] = digest_bytes(f"manifest of {content}".encode())
                inside = context_files(step)
                self.texts.append({one.path: Path(one.source).read_text() for one in inside})
        return self.plan(steps)

    def _content(self, step: StepSource) -> str:
        return content_digest(context_files(step), self.base, lambda one: _sha(one.source))


def _sha(file: str) -> str:
    return digest_bytes(Path(file).read_bytes()).partition(":")[2]


class ImageWorld(World):
    """The project with a Dockerfile in its serving folder; with a registry, or without one."""

    def __init__(self, base: Path, *, local: bool = False) -> None:
        super().__init__(base)
        self.registry = Registry()
        serving = self.work / "serving"
        (serving / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . ./\n")
        (serving / ".dockerignore").write_text("golden.json\n*.md\n")
        self.commit("an image")
        self.settle({}, local=local)

    def settle(self, serving: dict[str, Any], *, local: bool = False, **more: Any) -> None:
        """Take over settings."""
        self.project = Project.model_validate({**CONFIG, **more, "serving": serving})
        self.predictors = CommitPredictors(self.scm, self.project, self.registry.at, local=local)

    def served(self, environment: str = "staging") -> Release:
        found = release_at(self, environment)
        assert found is not None
        return found

    def image(self, environment: str = "staging") -> str:
        serving = self.served(environment).serving
        assert serving is not None
        return serving.image

    def predictor(self, environment: str = "staging") -> dict[str, Any]:
        """What the manifest says of it."""
        tip = self.scm.tip("master")
        text = self.scm.read(str(tip), files.path(environment, files.MANIFEST))
        found: dict[str, Any] = yaml.safe_load(text or b"")["spec"]["predictor"]
        return found

    def report(self, environment: str = "staging") -> str:
        tip = str(self.scm.tip("master"))
        return (self.scm.read(tip, files.path(environment, files.REPORT)) or b"").decode()

    def back(self, environment: str = "staging") -> None:
        rollback(self.project, environment, "slow", scm=self.scm, forge=self.forge, now=2e9)


@pytest.fixture
def world(tmp_path: Path) -> ImageWorld:
    return ImageWorld(tmp_path)


def test_release_and_manifest_name_the_image_that_was_built(world: ImageWorld) -> None:
    run = world.serve(1, 0.8)
    assert run.commit is not None
    (digest,) = world.registry.images.values()
    assert world.image() == f"{REGISTRY}/predictor@{digest}"
    (container,) = world.predictor()["containers"]
    assert container["image"] == world.image()
    assert container["env"] == [{"name": "STORAGE_URI", "value": world.served().model.uri}]
    assert "model" not in world.predictor()
    # What went in is the commit's, after .dockerignore; it is built once, and from that commit.
    (texts,) = world.registry.texts
    assert sorted(texts) == [".dockerignore", "Dockerfile", "predictor.py"]
    assert set(world.registry.commits) == {run.commit.sha}
    notes = [one.text for one in world.notes]
    assert "building the predictor's image with fake" in notes
    assert world.image() in world.report()
    answer = why(world.project, "staging", world.scm)
    said = why_report(answer.release, answer.commit, answer.at, "ada", answer.subject, ())
    assert world.image() in str(said)


def test_what_is_not_committed_is_not_in_the_image(world: ImageWorld) -> None:
    run = world.run(1, 0.8)
    (world.work / "serving" / "predictor.py").write_text("not committed\n")
    world.promote(run)
    assert world.registry.texts[0]["predictor.py"] == "first\n"


def test_other_code_is_another_image_and_a_change_to_propose(world: ImageWorld) -> None:
    world.serve(1, 0.8)
    first = world.image()
    world.pull()
    world.commit("faster", **{"serving/predictor.py": "second\n"})
    again = world.run(1, 0.8)
    verdict = world.judge(again)
    assert verdict.reasons[0].text == "same model, new serving code"
    world.promote(again, verdict=verdict)
    world.approve()
    assert world.image() != first
    assert len(world.registry.images) == 2
    rows = [line for line in world.report().splitlines() if "predictor's image" in line]
    now, then = (one.partition("@")[2] for one in (first, world.image()))
    assert rows[0].index(now) < rows[0].index(then)
    assert "| model |" not in world.report().partition("## Verdict")[0]


def test_a_file_that_the_image_does_not_have_leaves_it_as_it_is(world: ImageWorld) -> None:
    world.serve(1, 0.8)
    first = world.image()
    world.pull()
    world.commit("asks more", **{"serving/golden.json": "more\n"})
    again = world.run(1, 0.8)
    world.promote(again)
    world.approve()
    assert world.image() == first
    assert len(world.registry.images) == 1
    assert world.judge(world.run(1, 0.8)).serves_already


def test_a_base_that_moved_is_another_image_of_the_same_code(world: ImageWorld) -> None:
    world.serve(1, 0.8)
    first = world.image()
    world.registry.base = "sha256:base-2"
    world.settle({})  # as another process finds it
    again = world.run(1, 0.8)
    verdict = world.judge(again)
    assert verdict.reasons[0].text == "same model, new image of the predictor"
    world.promote(again, verdict=verdict)
    world.approve()
    second = world.image()
    assert second != first
    # Taken back, the first image serves again, and only the second is on hold.
    world.back()
    assert world.image() == first
    assert world.predictor()["containers"][0]["image"] == first
    assert world.judge(again).decision == "hold"
    world.registry.base = "sha256:base-1"
    world.settle({})
    assert world.judge(again).serves_already


def test_production_keeps_the_image_that_was_reviewed_in_staging(world: ImageWorld) -> None:
    run = world.serve(1, 0.8)
    first = world.image()
    world.registry.base = "sha256:base-2"
    world.settle({})
    built = dict(world.registry.images)
    world.promote(run, "production", world.judge(run, "production"))
    world.approve("production")
    assert world.image("production") == first
    assert world.predictor("production")["containers"][0]["image"] == first
    assert world.registry.images == built


def test_production_from_a_release_keeps_the_image_too(world: ImageWorld) -> None:
    world.serve(1, 0.8)
    world.registry.base = "sha256:base-2"
    world.settle({})
    candidate = ReleaseCandidate(world.served(), world.store)
    verdict = evaluate(
        candidate, "production", world.project, scm=world.scm, store=world.store,
        looks=world.looks, runner=world.runner, golden=world.golden,
        predictors=world.predictors, functions=no_functions, watch=ignore,
    )  # fmt: skip
    promote(
        candidate, verdict, world.project, scm=world.scm, store=world.store,
        forge=world.forge, predictors=world.predictors,
    )  # fmt: skip
    world.approve("production")
    assert world.image("production") == world.image()


def test_production_takes_no_other_image_of_the_same_code(world: ImageWorld) -> None:
    run = world.serve(1, 0.8)
    verdict = world.judge(run, "production")
    world.promote(run, "production", verdict)
    # Staging moves on, to another image, before production's proposal is merged.
    world.registry.base = "sha256:base-2"
    world.settle({})
    again = world.run(1, 0.8)
    world.promote(again)
    world.approve()
    with pytest.raises(StateError, match="with another image of the predictor"):
        world.approve("production")


def test_without_a_registry_a_release_names_the_content(tmp_path: Path) -> None:
    world = ImageWorld(tmp_path, local=True)
    world.serve(1, 0.8)
    (world_content,) = world.registry.plan([StepSource("predictor", world.work / "serving")])
    assert world.image() == f"ctflow.local/digits/predictor@{world_content.digest}"
    assert world.registry.images == {}
    assert world.predictor()["model"]["storageUri"] == world.served().model.uri
    assert "containers" not in world.predictor()
    first = world.image()
    world.pull()
    world.commit("faster", **{"serving/predictor.py": "second\n"})
    again = world.run(1, 0.8)
    world.promote(again)
    world.approve()
    assert world.image() != first
    world.back()
    assert world.image() == first


def test_a_dry_run_builds_nothing(world: ImageWorld) -> None:
    run = world.run(1, 0.8)
    verdict = world.judge(run, dry_run=True)
    assert world.promote(run, verdict=verdict, dry_run=True).state == "open"
    assert world.registry.images == {}


def test_a_project_that_gets_its_first_image_proposes_it(tmp_path: Path) -> None:
    """A release of before names no image; what it serves is served on until a new one is merged."""
    world = ImageWorld(tmp_path)
    git(world.work, "rm", "-q", "serving/Dockerfile")
    world.commit("as it was")
    world.serve(1, 0.8)
    assert world.image() == ""
    assert world.predictor()["model"]["modelFormat"] == {"name": "sklearn"}
    world.pull()
    world.commit("an image", **{"serving/Dockerfile": "FROM python:3.11-slim\nCOPY . ./\n"})
    again = world.run(1, 0.8)
    verdict = world.judge(again)
    assert verdict.decision == "promote"
    world.promote(again, verdict=verdict)
    world.approve()
    assert "containers" in world.predictor()
    assert "model" not in world.predictor()


def test_includes_are_part_of_the_code_and_of_the_image(world: ImageWorld, tmp_path: Path) -> None:
    (world.work / "common" / "sub").mkdir(parents=True)
    (world.work / "common" / "sub" / "shared.py").write_text("shared = 1\n")
    (world.work / "tool.py").write_text("tool = 1\n")
    (world.work / "tool.py").chmod(0o755)
    serving = {"include": ["common", "tool.py"]}
    world.commit("more", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"serving": serving})})
    world.settle(serving)
    world.serve(1, 0.8)
    (texts,) = world.registry.texts
    assert (texts["common/sub/shared.py"], texts["tool.py"]) == ("shared = 1\n", "tool = 1\n")
    # The same content as of the checkout, whose includes lie elsewhere.
    source = StepSource(
        "predictor", world.work / "serving", (world.work / "common", world.work / "tool.py")
    )
    assert not world.registry.plan([source])[0].built
    tip = str(world.scm.tip("master"))
    kept = sorted(world.scm.files(tip, "deploy/staging/serving"))
    assert "deploy/staging/serving/common/sub/shared.py" in kept
    assert "deploy/staging/serving/tool.py" in kept
    first = world.image()
    world.pull()
    world.commit("changed", **{"common/sub/shared.py": "shared = 2\n"})
    world.promote(world.run(1, 0.8))
    world.approve()
    assert world.image() != first
    commit = git(world.work, "rev-parse", "HEAD")
    export_code(world.scm, commit, world.project.serving, tmp_path / "out")
    assert (tmp_path / "out/common/sub/shared.py").read_text() == "shared = 2\n"
    assert (tmp_path / "out/tool.py").stat().st_mode & 0o100


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("gone", "has no gone, which serving.include names"),
        ("other/predictor.py", "collides with another 'predictor.py'"),
    ],
)
def test_includes_that_cannot_be(world: ImageWorld, include: str, says: str) -> None:
    (world.work / "other").mkdir()
    (world.work / "other" / "predictor.py").write_text("")
    world.commit("more")
    world.settle({"include": [include]})
    with pytest.raises(StateError, match=says):
        world.judge(world.run(1, 0.8))


def test_a_predictor_that_the_image_would_lack(world: ImageWorld) -> None:
    world.commit("too much", **{"serving/.dockerignore": "*\n!golden.json\n"})
    with pytest.raises(ConfigError) as caught:
        world.judge(world.run(1, 0.8))
    assert caught.value.message() == (
        "serving/.dockerignore leaves predictor.py out of the image; add the line `!predictor.py`"
        " to it"
    )


def test_what_does_not_build_is_said_of_the_predictor(world: ImageWorld) -> None:
    world.commit("wrong", **{"serving/.dockerignore": "[\n"})
    with pytest.raises(ConfigError) as caught:
        world.predictors.image(git(world.work, "rev-parse", "HEAD"), ignore)
    assert caught.value.message().startswith("serving/.dockerignore: ")


def on_a_cluster(world: ImageWorld, **more: Any) -> None:
    world.settle({}, environments={"staging": {"target": "kserve"}}, **more)


def test_a_cluster_needs_an_image(world: ImageWorld) -> None:
    """In one line, and what to do."""
    run = world.run(1, 0.8)
    on_a_cluster(world)
    with pytest.raises(ConfigError) as caught:
        world.judge(run)
    assert caught.value.message() == (
        "staging is on a cluster, which needs an image of the predictor, and images.registry is not"
        " set; set images.registry and a builder"
    )
    on_a_cluster(world, images={"registry": REGISTRY, "builder": "local"})
    with pytest.raises(ConfigError, match=r"images\.builder is local"):
        world.judge(run)
    on_a_cluster(world, images={"registry": REGISTRY})
    assert world.judge(run).decision == "promote"
    git(world.work, "rm", "-q", "serving/Dockerfile")
    world.commit("none")
    with pytest.raises(ConfigError, match=r"has no serving/Dockerfile; write one as docs/serving"):
        world.judge(world.run(2, 0.8))


def test_a_release_says_in_json_what_it_did_before(world: ImageWorld) -> None:
    """Nothing but the image is new in what others read."""
    world.serve(1, 0.8)
    serving = world.served().serving
    assert serving is not None
    assert json.loads(json.dumps(replace(serving, image="").__dict__)) == {
        "folder": "deploy/staging/serving", "predictor": "predictor.py", "golden": "golden.json",
        "digest": serving.digest, "runtime": "predictor", "requirements": [], "image": "",
    }  # fmt: skip
