"""A predictor with a Dockerfile, as a user sees it on a machine without a registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import TinyProject, git

DOCKERFILE = "ARG BASE\nFROM ${BASE}\nCOPY . ./\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[TinyProject]:
    TinyProject.keep_package(tmp_path / "package")
    made = TinyProject(tmp_path)
    made.write("serving/Dockerfile", DOCKERFILE)
    made.write("serving/.dockerignore", "golden.json\nhelper.py\n")
    pushed(made, "an image")
    yield made
    made.ok("deploy", "staging", "--stop")


def pushed(project: TinyProject, message: str) -> None:
    project.commit(message)
    project.push()


def test_from_the_build_to_a_rollback(project: TinyProject) -> None:
    said = project.ok("build", "--dry-run")
    assert "2 steps and the predictor   3 would be built" in said
    built = project.json("build")
    assert [one["step"] for one in built["images"]] == ["evaluate", "train"]
    image = built["predictor"]["reference"]
    assert image.startswith("ctflow.local/tiny/predictor@sha256:")
    assert "2 steps and the predictor   0 built, 3 unchanged" in project.ok("build")
    only = project.json("build", "--only", "predictor")
    assert (only["images"], only["predictor"]["reference"]) == ([], image)

    # The commit's files make the same image as those of the checkout.
    project.ok("ct")
    project.approve()
    first = project.json("why", "staging")["release"]
    assert first["serving"]["image"] == image
    assert set(first["images"]) == {"train", "evaluate"}
    assert f"predictor {image}" in project.ok("deploy", "staging")
    assert project.json("status")[0]["deployment"]["image"] == image
    assert (project.state / "serving/staging/releases").is_dir()
    (code,) = (project.state / "serving/staging/releases").glob("*/code")
    assert not (code / "helper.py").exists()

    git(project.folder, "pull", "-q", "--rebase", "origin", "master")
    project.edit("serving/predictor.py", "return True", "return True  # quick")
    pushed(project, "quick")
    since = project.json("build", "--since", "HEAD~1", "--dry-run")["images"]
    assert [one["step"] for one in since] == ["predictor"]
    assert "same model, new serving code" in project.ok("ct")
    report = project.ok("promotions", "show", "staging")
    assert report.index("Changes") < report.index("Verdict")
    project.approve()
    second = project.json("why", "staging")["release"]["serving"]["image"]
    assert second != image
    assert project.json("status")[0]["deployment"]["state"] == "outdated"
    assert f"predictor {second}" in project.ok("deploy", "staging")
    assert f"predictor {image}" in project.ok("rollback", "staging", "--reason", "not that")
    assert project.json("why", "staging")["release"] == first


def test_what_the_image_lacks_is_missing_here_too(project: TinyProject) -> None:
    project.write("serving/helper.py", "answer = 1\n")
    project.edit("serving/predictor.py", "from pathlib", "import helper\nfrom pathlib")
    pushed(project, "a helper that .dockerignore leaves out")
    said = project.call("ct")
    assert said.returncode == 3
    assert "No module named 'helper' (.dockerignore leaves out helper.py)" in said.stdout
    project.write("serving/.dockerignore", "golden.json\n")
    pushed(project, "let in")
    project.ok("ct")


def test_a_release_of_a_layout_before_is_deployed_as_it_was(project: TinyProject) -> None:
    """It names no image: the whole folder serves."""
    project.write("serving/.dockerignore", "golden.json\n")
    project.write("serving/helper.py", "answer = 1\n")
    project.edit("serving/predictor.py", "from pathlib", "import helper\nfrom pathlib")
    pushed(project, "a helper")
    project.ok("ct")
    project.approve()
    git(project.folder, "pull", "-q", "--rebase", "origin", "master")
    where = "deploy/staging/release.yaml"
    text = (project.folder / where).read_text()
    image = project.json("why", "staging")["release"]["serving"]["image"]
    kept = [line for line in text.splitlines() if image not in line]
    assert len(kept) == len(text.splitlines()) - 1
    old = "\n".join(kept).replace("version: 4", "version: 3") + "\n"
    project.write(where, old)
    project.write("deploy/staging/serving/.dockerignore", "golden.json\nhelper.py\n")
    pushed(project, "as an older ctflow wrote it")
    assert "predictor" not in project.ok("deploy", "staging")
    assert project.json("status")[0]["deployment"]["state"] == "ready"
    assert "predictor's image" not in project.ok("why", "staging")


def test_a_cluster_needs_more_and_says_so_before_the_training(project: TinyProject) -> None:
    project.edit("ctflow.yaml", "  staging: {}", "  staging: {target: kserve}")
    pushed(project, "on a cluster")
    assert project.fails(2, "ct") == (
        "staging is on a cluster, which needs an image of the predictor, and images.registry is not"
        " set; set images.registry and a builder"
    )
    git(project.folder, "rm", "-q", "serving/Dockerfile")
    pushed(project, "no image")
    commit = git(project.folder, "rev-parse", "--short=10", "HEAD")
    assert project.fails(2, "ct") == (
        "staging is on a cluster, which needs an image of the predictor, and commit"
        f" {commit} has no serving/Dockerfile; write one as docs/serving.md shows and commit it, or"
        " say `serving: {runtime: standard}`"
    )
    assert project.json("runs", "list") == []
    project.edit("ctflow.yaml", "  staging: {target: kserve}", "  staging: {}")


def test_a_step_has_the_predictors_name(project: TinyProject) -> None:
    git(project.folder, "mv", "steps/train", "steps/predictor")
    said = project.fails(2, "build")
    assert said == (
        "step 'predictor' has the name that the image of serving/ gets; give the step's folder"
        " another name"
    )
