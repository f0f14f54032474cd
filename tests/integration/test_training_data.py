"""Rules on training data from the run to the release: what is kept of it, and what is judged."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.config.project import Project
from ctflow.errors import StateError, UsageError
from ctflow.gate.summaries import read_summary
from ctflow.lib.digests import digest_path
from ctflow.model import Artifact, Release, Run, Task, Verdict
from ctflow.release import files
from ctflow.release.proposals import proposal
from ctflow.stages.planning import plan
from ctflow.stages.rollback import rollback
from ctflow.stages.share import share
from ctflow.stores.folder_store import FolderStore
from tests.integration.test_promotion import CONFIG, World, no_functions
from tests.projects import TinyProject

DATA = "collect.dataset"
PSI = {"metric": "psi", "data": DATA, "column": "age", "max": 0.2, "confidence": 0.95}
KS = {"metric": "ks", "data": DATA, "column": "age", "max": 0.15}
MISSING = {"metric": "missing", "data": DATA, "column": "age", "max": 0.05}
SCHEMA = {"metric": "schema", "data": DATA}
ODD = "<img src=x>|`\x1b[31m"


class Recorded:
    """A runner with a record of runs, besides what ``World`` has."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.runs: dict[str, Run] = {}

    def get(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise StateError(f"there is no run {run_id}")
        return self.runs[run_id]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.runner = Recorded(made.runner)  # type: ignore[assignment]
    return made


def ask(world: World, *rules: dict[str, Any]) -> None:
    """Rules on data beside the others."""
    gate = [*CONFIG["gate"], *rules]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    world.pull()
    world.commit(f"rules {len(rules)}", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"gate": gate})})


def with_data(world: World, run: Run, seed: int, shift: int = 0, extra: str = "") -> Run:
    """The run with training data of its own: ages and cities of 1,000 people."""
    rng = random.Random(seed)
    place = Path(world.base / run.id.replace("r-", "run") / "people.csv")
    rows = [f"{rng.randint(18, 80) + shift},{rng.choice(['Oslo', 'Moss'])}" for _ in range(1000)]
    header = "age,city"
    if extra:
        header, rows = f'{header},"{extra}"', [f"{row},1" for row in rows]
    place.write_text(header + "\n" + "\n".join(rows) + "\n")
    found = Artifact("dataset", "system.Dataset", str(place), *digest_path(place))
    task = Task("collect", "succeeded", artifacts={"dataset": (found,)})
    run = replace(run, tasks=(task, *run.tasks))
    world.runner.runs[run.id] = run
    return run


def serve(world: World, number: int, skill: float, **data: Any) -> Release:
    """Run, promote and approve; the release."""
    world.promote(with_data(world, world.run(number, skill), number, **data))
    world.approve()
    world.pull()
    return released(world)


def released(world: World) -> Release:
    tip = world.scm.tip("master")
    assert tip is not None
    found = files.at(world.scm, tip, "staging")
    assert found is not None
    return found


def of(verdict: Verdict, rule: str) -> tuple[str, str]:
    (found,) = (one for one in verdict.reasons if one.rule == rule)
    return found.decision, found.text


def test_the_summary_is_kept_and_the_next_data_is_compared_with_it(world: World) -> None:
    ask(world, PSI, KS, MISSING, SCHEMA)
    first = with_data(world, world.run(1, 0.8), 1)
    verdict = world.judge(first)
    assert verdict.decision == "promote"
    assert of(verdict, "missing of age")[1].startswith("missing of age 0.000 <= 0.05")
    assert "psi of age: no champion yet, so there is no data to compare with" in verdict.notes
    assert "schema of collect.dataset: no champion yet" in " ".join(verdict.notes)
    proposed = world.promote(first, verdict=verdict)
    assert world.promote(first, verdict=verdict).commit == proposed.commit  # exactly once
    world.approve()
    world.pull()
    release = released(world)
    (ref,) = release.summaries
    kept = world.store.fetch_predictions(ref.key(release.model.digest))
    assert kept is not None
    summary = read_summary(kept[0])
    assert (summary.rows, summary.whole, summary.data) == (1000, True, release.data[DATA])
    assert {name: one.kind for name, one in summary.columns.items()} == {
        "age": "number",
        "city": "text",
    }
    # Only what a rule asks for is kept: no city.
    assert [name for name, one in summary.columns.items() if one.detailed] == ["age"]
    # The data itself may be gone.
    Path(first.tasks[0].artifacts["dataset"][0].uri).unlink()

    same = world.judge(with_data(world, world.run(2, 0.9), 2))
    assert same.decision == "promote"
    assert of(same, "psi of age")[0] == "promote"
    assert of(same, "schema of collect.dataset")[1].endswith(
        "champion's 2 columns are there, of their kinds"
    )
    older = with_data(world, world.run(3, 0.95), 3, shift=20)
    verdict = world.judge(older)
    assert verdict.decision == "reject"
    decision, text = of(verdict, "psi of age")
    assert decision == "reject"
    assert "shown to be > 0.20" in text
    assert "1,000 rows against the champion's 1,000" in text
    assert of(verdict, "ks of age")[0] == "reject"
    # What is stopped is not started.
    model = older.artifact("train.model")
    assert model is not None
    assert Path(model.uri) not in [one.path for one in world.tried]


def test_what_is_shown_of_odd_columns_is_escaped(world: World) -> None:
    ask(world, SCHEMA)
    serve(world, 1, 0.8)
    run = with_data(world, world.run(2, 0.9), 2, extra=ODD)
    verdict = world.judge(run)
    assert verdict.decision == "promote"
    assert "new: '<img src=x>|` [31m'" in of(verdict, "schema of collect.dataset")[1]
    world.promote(run, verdict=verdict)
    report = world.scm.read(
        proposal(world.project, "staging", world.scm).commit, files.path("staging", files.REPORT)
    )
    assert report is not None
    assert b"schema of collect" in report.replace(b"\\", b"")
    assert b"<img" not in report.replace(rb"\<", b"")
    assert b"\x1b" not in report


def test_a_rule_that_is_new_reads_the_champions_data_where_its_run_is_here(world: World) -> None:
    serve(world, 1, 0.8)
    assert released(world).summaries == ()
    ask(world, PSI, SCHEMA)
    run = with_data(world, world.run(2, 0.9), 2)
    assert world.judge(run).decision == "promote"
    # Data that is not as it was says nothing.
    theirs = Path(world.runner.get("r-1").tasks[0].artifacts["dataset"][0].uri)
    theirs.write_text(theirs.read_text() + "19,Oslo\n")
    assert of(world.judge(run), "psi of age")[0] == "hold"
    # Nor does another clone's run; and it says what helps.
    world.runner.runs.clear()
    verdict = world.judge(run)
    assert verdict.decision == "hold"
    rest = "and its run is not here; let a model in with --override --reason, whose summary is kept"
    for rule in ("psi of age", "schema of collect.dataset"):
        assert of(verdict, rule) == (
            "hold",
            f"{rule} is not known: the champion came without a summary of collect.dataset, {rest}",
        )


def test_the_same_data_needs_no_summary(world: World) -> None:
    serve(world, 1, 0.8)
    ask(world, PSI)
    world.runner.runs.clear()
    verdict = world.judge(with_data(world, world.run(2, 0.9), 1))
    assert verdict.decision == "promote"
    assert of(verdict, "psi of age")[1].startswith("psi of age 0.000")


def test_a_column_that_no_rule_asked_for_before(world: World) -> None:
    ask(world, PSI)
    serve(world, 1, 0.8)
    ask(world, PSI, PSI | {"column": "city"})
    run = with_data(world, world.run(2, 0.9), 2)
    assert world.judge(run).decision == "promote"
    world.runner.runs.clear()
    verdict = world.judge(run)
    assert of(verdict, "psi of age")[0] == "promote"
    assert of(verdict, "psi of city")[0] == "hold"
    assert "without column city of the champion's data" in of(verdict, "psi of city")[1]


def test_a_summary_that_was_changed_is_not_believed(world: World) -> None:
    ask(world, PSI)
    release = serve(world, 1, 0.8)
    world.runner.runs.clear()
    run = with_data(world, world.run(2, 0.9), 2)
    (ref,) = release.summaries
    key = ref.key(release.model.digest)
    kept = world.store.fetch_predictions(key)
    assert kept is not None
    content = kept[0].read_bytes()
    kept[0].write_bytes(b"other")
    assert "summary is not sound" in of(world.judge(run), "psi of age")[1]
    other = world.base / "other.json"
    other.write_text("{}")
    world.store.put_predictions(key, other)
    assert "is not what the release names" in of(world.judge(run), "psi of age")[1]
    kept[0].parent.joinpath(kept[0].name).write_bytes(content)
    for one in kept[0].parent.iterdir():
        if one.name != kept[0].name:
            one.unlink()
    assert world.judge(run).decision == "promote"
    kept[0].unlink()
    verdict = world.judge(run)
    assert verdict.decision == "hold"
    assert "copy it with `ctflow store pull FOLDER`" in of(verdict, "psi of age")[1]


def test_a_store_that_is_shared_has_the_summary(world: World, tmp_path: Path) -> None:
    ask(world, PSI)
    serve(world, 1, 0.8)
    team = FolderStore(tmp_path / "team")
    share(world.project, world.scm, world.store, team)
    world.runner.runs.clear()
    world.store = team
    assert world.judge(with_data(world, world.run(2, 0.9), 2)).decision == "promote"


def test_new_serving_code_and_a_rollback_keep_the_summary(world: World) -> None:
    ask(world, PSI)
    before = serve(world, 1, 0.8).summaries
    assert len(before) == 1
    (world.work / "serving" / "predictor.py").write_text("faster\n")
    world.commit("a faster predictor")
    run = world.runner.get("r-1")
    head = world.run(1, 0.8).commit
    world.promote(replace(run, commit=head))
    world.approve()
    world.pull()
    assert released(world).summaries == before
    serve(world, 2, 0.9)
    assert released(world).summaries != before
    rollback(world.project, "staging", "it is slow", scm=world.scm, forge=world.forge, now=2e9)
    world.scm.fetch()
    assert released(world).summaries == before


def test_data_says_nothing_of_the_answers(world: World) -> None:
    world.project = Project.model_validate(CONFIG | {"gate": [MISSING]})
    verdict = world.judge(with_data(world, world.run(1, 0.8), 1))
    assert verdict.decision == "reject"
    assert verdict.reasons[0].text.startswith("no rule of the gate judges the model's answers")


def test_an_output_that_holds_no_data_is_one_clear_error(world: World) -> None:
    ask(world, PSI | {"data": "train.model"})
    run = with_data(world, world.run(1, 0.8), 1)
    (Path(run.tasks[1].artifacts["model"][0].uri) / "more").write_text("x")
    with pytest.raises(UsageError, match="a folder of 2 files"):
        world.judge(run)
    ask(world, PSI | {"data": "collect.rows"})
    with pytest.raises(StateError, match="has no output 'rows'"):
        world.judge(run)


def test_the_plan_says_that_data_is_judged_later(world: World) -> None:
    ask(world, PSI, SCHEMA)
    serve(world, 1, 0.8)
    found = plan(
        world.project, "staging", scm=world.scm, store=world.store, looks=world.looks,
        functions=no_functions,
    )  # fmt: skip
    assert found.notes == (
        "measured when a model is judged, not planned: psi of age, schema of collect.dataset",
    )


# -- as a user sees it -----------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))
    return TinyProject(tmp_path)


def test_a_champion_and_then_data_that_drifted(project: TinyProject) -> None:
    data = "data: evaluate.predictions"
    ruled = f"""\
  - {{metric: psi, {data}, column: age, max: 0.2, confidence: 0.95}}
  - {{metric: schema, {data}, columns: {{age: number, label: number}}}}
environments:"""
    project.edit("ctflow.yaml", "environments:", ruled)
    project.edit(
        "steps/evaluate/main.py", "\\n\" for i",
        ",{20 + 37 * i % 61 + 30 * (fault == 'older')}\\n\" for i",
    )  # fmt: skip
    project.edit("steps/evaluate/main.py", "id,label,prediction", "id,label,prediction,age")
    project.commit("rules on data")
    project.push()
    done = project.ok("ct")
    assert "psi of age: no champion yet, so there is no data to compare with" in done
    kept = "schema of evaluate.predictions: 2 columns are there, of their kinds"
    assert kept in done
    project.approve()
    assert kept in project.ok("why", "staging")
    plan = project.ok("gate", "--plan")
    assert "not planned: psi of age, schema of evaluate.predictions" in plan
    older = project.call("ct", "-p", "skill=0.9", "-p", "fault=older")
    assert older.returncode == 3, older.stderr
    (line,) = [line for line in older.stdout.splitlines() if "psi of age" in line]
    assert "shown to be > 0.20" in line
    assert "400 rows against the champion's 400" in line
    assert project.proposed() == "none"
    assert "psi of age" in project.call("gate").stdout
    better = project.ok("ct", "-p", "skill=0.9")
    (line,) = [line for line in better.splitlines() if "psi of age" in line]
    assert "psi of age 0.000" in line
    assert "shown to be <= 0.20" in line
    typo = project.fails(2, "gate", "--set", f"gate=[{{metric: psy, {data}, column: a, max: 1}}]")
    assert "did you mean psi?" in typo
