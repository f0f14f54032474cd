"""`ctflow init`: an existing repository gets a ctflow.yaml, and nothing of it changes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ctflow.stages.adopt import pipelines
from tests.projects import TinyProject, git

PIPELINE = """\
from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output


@dsl.component
def fit_it(out: Output[Model], data: Output[Dataset]):
    with open(out.path, "w") as file:
        file.write("weights")


@dsl.pipeline(name="theirs")
def theirs():
    fit_it()
"""


@pytest.fixture
def theirs(tmp_path: Path) -> TinyProject:
    made = TinyProject.__new__(TinyProject)
    made.base, made.folder, made.bare = tmp_path, tmp_path / "Their Repo", tmp_path / "no.git"
    made.env = {}
    made.write("flows/train.py", PIPELINE)
    made.write("notes.txt", "mine")
    git(made.folder, "init", "-q", "-b", "main")
    made.commit("theirs")
    return made


def test_it_writes_one_file_and_the_pipeline_runs(theirs: TinyProject) -> None:
    said = theirs.ok("init")
    assert "pipeline  flows/train.py:theirs" in said
    assert "model     fit-it.out" in said
    assert git(theirs.folder, "status", "--porcelain") == "?? ctflow.yaml"
    text = (theirs.folder / "ctflow.yaml").read_text()
    assert "project: their-repo\nbranch: main\npipeline: flows/train.py:theirs\n" in text
    run = theirs.json("run")
    assert run["state"] == "succeeded"
    (task,) = run["tasks"]
    assert (task["name"], sorted(task["artifacts"])) == ("fit-it", ["data", "out"])
    assert "already exists; see `ctflow config`" in theirs.fails(2, "init")
    assert (theirs.folder / "ctflow.yaml").read_text() == text


def test_several_pipelines_or_none(theirs: TinyProject) -> None:
    theirs.write("flows/other.py", PIPELINE.replace("def theirs", "def other"))
    line = theirs.fails(2, "init")
    assert "there are 2 pipelines; name one with --pipeline: flows/other.py:other, " in line
    assert "there is no pipeline x.py:y; found: " in theirs.fails(2, "init", "--pipeline", "x.py:y")
    assert not (theirs.folder / "ctflow.yaml").exists()
    theirs.ok("init", "--pipeline", "flows/other.py:other", "--project", "mine")
    assert "project: mine\n" in (theirs.folder / "ctflow.yaml").read_text()


def test_where_there_is_nothing_to_take(tmp_path: Path) -> None:
    made = TinyProject.__new__(TinyProject)
    made.base, made.folder, made.bare, made.env = tmp_path, tmp_path / "x", tmp_path / "n", {}
    made.write("a.py", "def pipeline(): pass\n")
    assert "is not in a git repository" in made.fails(2, "init")
    git(made.folder, "init", "-q")
    made.commit("x")
    assert "no function here is decorated with dsl.pipeline" in made.fails(2, "init")


def test_the_source_is_read_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + PIPELINE)
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "b.py").write_text(PIPELINE)
    assert [one.place for one in pipelines(tmp_path)] == ["a.py:theirs"]
    assert not (tmp_path / "ran").exists()


# -- templates ------------------------------------------------------------------------------------


def made_from(base: Path, *words: str) -> TinyProject:
    maker = TinyProject.__new__(TinyProject)
    maker.base, maker.folder, maker.bare, maker.env = base, base, base / "no.git", {}
    maker.ok("new", *words)
    made = TinyProject.__new__(TinyProject)
    made.base, made.bare, made.env = base, base / "no.git", {}
    made.folder = base / "flowers"
    return made


@pytest.mark.parametrize(
    ("template", "golden", "first"),
    # So many trees learn the noise of that table: worse than by default, but above the bounds.
    [("minimal", "2/2", ()), ("tabular", "3/3", ("-p", "trees=1000"))],
    ids=["minimal", "tabular"],
)
def test_the_small_templates_go_all_the_way(
    tmp_path: Path, template: str, golden: str, first: tuple[str, ...]
) -> None:
    made = made_from(tmp_path, "--template", template, "--no-input", "project=flowers")
    files = git(made.folder, "ls-files").split()
    assert len(files) < 12
    assert "digits" not in (made.folder / "README.md").read_text()
    assert not (made.folder / "steps").exists()
    done = made.json("ct", *first)
    assert done["verdict"]["decision"] == "promote"
    assert any(f"golden requests {golden}" in one["text"] for one in done["verdict"]["reasons"])
    made.approve()
    if first:
        done = made.json("ct")
        was_confirmed(done)
        made.approve()
    try:
        assert f"golden {golden}" in made.ok("deploy", "staging")
    finally:
        made.ok("deploy", "staging", "--stop")


def was_confirmed(done: dict[str, Any]) -> None:
    """The tabular template's gate asked again, on examples that no metric tells of."""
    assert done["verdict"]["decision"] == "promote"
    texts = [one["text"] for one in done["verdict"]["reasons"]]
    assert any(one.startswith("accuracy +0.0") and "over champion" in one for one in texts)
    confirmed = "confirmed on evaluate.reserved: accuracy +0.0"
    assert any(one.startswith(confirmed) for one in texts), texts
    evaluated = next(one for one in done["run"]["tasks"] if one["name"] == "evaluate")
    found = {name: one for name, (one,) in evaluated["artifacts"].items()}
    seen, reserved = (rows_of(found[name]["uri"]) for name in ("predictions", "reserved"))
    assert not {row["id"] for row in seen} & {row["id"] for row in reserved}
    assert min(len(seen), len(reserved)) > 500
    right = sum(row["label"] == row["prediction"] for row in seen)
    assert found["metrics"]["metadata"]["accuracy"] == pytest.approx(right / len(seen))


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "{{cookiecutter.project}}").mkdir(parents=True)
    (own / "cookiecutter.json").write_text('{"project": "x", "colour": "red"}')
    (own / "{{cookiecutter.project}}" / "ctflow.yaml").write_text(
        "project: {{ cookiecutter.project }}\n# {{ cookiecutter.colour }}\n"
    )
    made = made_from(tmp_path, "--template", str(own), "--no-input", "project=flowers")
    assert (made.folder / "ctflow.yaml").read_text() == "project: flowers\n# red\n"
    git(own, "init", "-q", "-b", "main")
    git(own, "add", ".")
    git(own, "commit", "-qm", "template")
    base = tmp_path / "by-url"
    base.mkdir()
    made = made_from(base, "--template", own.as_uri(), "--no-input", "project=flowers")
    assert (made.folder / "ctflow.yaml").read_text() == "project: flowers\n# red\n"


def test_what_is_no_template(tmp_path: Path) -> None:
    maker = TinyProject.__new__(TinyProject)
    maker.base, maker.folder, maker.bare, maker.env = tmp_path, tmp_path, tmp_path / "n", {}
    (tmp_path / "empty").mkdir()
    for name, code, says in (
        ("minmal", 2, "there is no template 'minmal'; name one of digits, minimal, tabular"),
        ("empty", 2, "empty is not a template: it has no cookiecutter.json"),
        (f"file://{tmp_path}/no.git", 5, "cannot clone the template"),
    ):
        assert says in maker.fails(code, "new", "--template", name, "--no-input")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
