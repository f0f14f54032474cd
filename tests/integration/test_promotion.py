"""Promotion, review, rollback and why: the stages on real repositories and a real model store."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from ctflow import gate
from ctflow.config.project import Project
from ctflow.errors import CtflowError, GateHeld, StateError
from ctflow.evaluation.candidates import ReleaseCandidate, RunCandidate
from ctflow.forges.no_forge import NoForge
from ctflow.lib.digests import digest_path
from ctflow.model import (
    Artifact,
    Check,
    Commit,
    Override,
    Promotion,
    Release,
    Run,
    Task,
    Verdict,
)
from ctflow.ports import (
    Calls,
    Event,
    GoldenRequest,
    PredictorImages,
    Timed,
    Trial,
    Watch,
)
from ctflow.release import files as files
from ctflow.release.approval import approve
from ctflow.release.proposals import proposal, proposals
from ctflow.scm.git import GitScm
from ctflow.stages.deliver import deploy
from ctflow.stages.evaluate import evaluate
from ctflow.stages.planning import plan
from ctflow.stages.promote import promote
from ctflow.stages.review import reject
from ctflow.stages.rollback import rollback, standing
from ctflow.stages.why import why
from ctflow.stores.folder_looks import FolderLooks
from ctflow.stores.folder_store import FolderStore
from tests.contracts.fake_target import FakeTarget

CONFIG: dict[str, Any] = {
    "project": "digits",
    "gate": [
        {"metric": "accuracy", "min": 0.5},
        {"metric": "accuracy", "over": "champion", "predictions": "evaluate.predictions"},
    ],
    "environments": {"staging": {}, "production": {"after": "staging"}},
}
PROJECT = Project.model_validate(CONFIG)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class NoFunctions:
    """No rule of these tests names a function of the project."""

    used: ClassVar[dict[str, str]] = {}

    def of(self, output: str) -> Calls:
        def refuse(function: str, timeout: float, columns: Any, draws: Any) -> list[float]:
            raise AssertionError("no function is to be asked")

        return refuse


def no_functions(run: Run, watch: Watch) -> AbstractContextManager[NoFunctions]:
    return nullcontext(NoFunctions())


class Rescorer:
    """The runner as far as the gate asks for it: scores a model folder that says its own skill."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.calls: list[Path] = []
        self.examples: dict[str, int] = {}
        self.runs: dict[str, Run] = {}

    def get(self, run_id: str) -> Run:
        return self.runs[run_id]

    def fetch(self, artifact: Artifact) -> Path:
        if not Path(artifact.uri).exists():
            raise StateError(f"the artifact {artifact.name} is gone")
        return Path(artifact.uri)

    def identified(self, run: Run, outputs: Sequence[str], made: Sequence[str] = ()) -> Run:
        return run

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        self.calls.append(content)
        skill = float((content / "skill").read_text())
        place = self.base / f"again-{len(self.calls)}.csv"
        write_predictions(place, skill, self.examples[run.id])
        found = Artifact("predictions", "system.Dataset", str(place), *digest_path(place))
        return Task(task, "succeeded", artifacts={"predictions": (found,)})


def write_predictions(place: Path, skill: float, examples: int = 400) -> Path:
    """Answers of a model that is right for the first ``skill`` share of a shuffled set."""
    order = list(range(400))
    random.Random(1).shuffle(order)
    right = set(order[: round(skill * 400)])
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{examples}-{i},{i % 2},{i % 2 if i in right else 1 - i % 2}" for i in range(400)]
    place.write_text("id,label,prediction\n" + "\n".join(rows) + "\n")
    return place


class NoPredictors:
    """No serving folder of these tests has a Dockerfile."""

    def image(self, commit: str, watch: Watch, *, dry_run: bool = False) -> str:
        return ""


class World:
    """A project with a bare remote, a store, and runs made by hand."""

    def __init__(self, base: Path, remote: bool = True) -> None:
        self.base = base
        self.work = base / "work"
        self.work.mkdir()
        git(self.work, "init", "-q", "-b", "master")
        (self.work / "ctflow.yaml").write_text(yaml.safe_dump(CONFIG))
        (self.work / "serving").mkdir()
        for name in ("predictor.py", "golden.json"):
            (self.work / "serving" / name).write_text("first\n")
        git(self.work, "add", ".")
        git(self.work, "commit", "-qm", "first")
        if remote:
            git(base, "init", "-q", "--bare", "-b", "master", "bare.git")
            git(self.work, "remote", "add", "origin", str(base / "bare.git"))
            git(self.work, "push", "-q", "origin", "master")
        self.scm = GitScm(self.work, base / "scratch")
        self.store = FolderStore(base / "models")
        self.looks = FolderLooks(base / "looks")
        self.runner = Rescorer(base)
        self.forge = NoForge()
        self.predictors: PredictorImages = NoPredictors()
        self.notes: list[Event] = []
        self.tried: list[GoldenRequest] = []
        self.answers = (Check("one", True), Check("two", True))
        #: Milliseconds that the next answer takes, by its number.
        self.takes: Callable[[int], float] = lambda number: 1.0
        self.project = PROJECT

    def run(
        self, number: int, skill: float, examples: int = 400, noisy: float = 0.5, code: str = "1"
    ) -> Run:
        """Run ``number``: a model that is right for ``skill`` of the examples.

        Args:
            noisy: the share of the same examples, made harder, that it is right for.
            code: names the content of the evaluate step.
        """
        folder = self.base / f"run{number}"
        model = folder / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "skill").write_text(str(skill))
        self.runner.examples[f"r-{number}"] = examples
        predictions = write_predictions(folder / "predictions.csv", skill, examples)

        def artifact(name: str, kind: str, place: Path) -> tuple[Artifact, ...]:
            return (Artifact(name, kind, str(place), *digest_path(place)),)

        harder = write_predictions(folder / "noisy.csv", noisy, examples)
        trained = artifact("model", "system.Model", model)
        tasks = (
            Task("train", "succeeded", artifacts={"model": trained}),
            Task(
                "evaluate", "succeeded", input_artifacts={"model": trained},
                made_of={"step": code, "artifact model": trained[0].digest},
                artifacts={
                    "predictions": artifact("predictions", "system.Dataset", predictions),
                    "noisy": artifact("noisy", "system.Dataset", harder),
                },
            ),
        )  # fmt: skip
        commit = Commit(git(self.work, "rev-parse", "HEAD"), "master")
        made = Run(
            f"r-{number}", "digits", "pipeline", "sha256:" + "d" * 64, "succeeded",
            1e9 + number, 1e9 + number + 1, commit, {"epochs": number}, (), tasks,
            {"accuracy": round(skill * 400) / 400},
        )  # fmt: skip
        self.runner.runs[made.id] = made
        return made

    def judge(
        self,
        run: Run,
        environment: str = "staging",
        override: Override | None = None,
        dry_run: bool = False,
    ) -> Verdict:
        self.scm.fetch()
        return evaluate(
            self.candidate(run), environment, self.project, scm=self.scm, store=self.store,
            looks=self.looks, runner=self.runner, golden=self.golden,
            predictors=self.predictors, functions=no_functions,
            watch=self.notes.append, override=override, dry_run=dry_run,
        )  # fmt: skip

    def golden(self, request: GoldenRequest, watch: Watch) -> Trial:
        """The model server as far as the gate asks for it."""
        assert (request.code / request.predictor).is_file()
        self.tried.append(request)
        if request.more is None:
            return Trial(self.answers)
        times: list[float] = []
        while request.more(times, sum(times) / 1000):
            times.append(self.takes(len(times)))
        return Trial(self.answers, Timed(tuple(times), sum(times) / 1000))

    def approve(self, environment: str = "staging", by: str = "") -> Promotion:
        """Merge what is proposed."""
        reviewed = proposal(self.project, environment, self.scm).id
        return approve(self.project, environment, reviewed, scm=self.scm, forge=self.forge, by=by)

    def commit(self, message: str, **changed: str) -> str:
        """Commit what is in the work tree, and the files given, on the checked-out branch; push."""
        for name, text in changed.items():
            (self.work / name).write_text(text)
        git(self.work, "add", ".")
        git(self.work, "commit", "-qm", message)
        if self.scm.has_remote():
            git(self.work, "push", "-q", "origin", "HEAD")
        return git(self.work, "rev-parse", "HEAD")

    def pull(self) -> None:
        """Bring the checked-out branch to what was merged."""
        if self.scm.has_remote():
            git(self.work, "pull", "-q", "--ff-only", "origin", "master")

    def promote(
        self,
        run: Run,
        environment: str = "staging",
        verdict: Verdict | None = None,
        dry_run: bool = False,
    ) -> Promotion:
        verdict = verdict or self.judge(run, environment)
        return promote(
            self.candidate(run), verdict, self.project, scm=self.scm, store=self.store,
            forge=self.forge, predictors=self.predictors, dry_run=dry_run,
        )  # fmt: skip

    def candidate(self, run: Run) -> RunCandidate:
        """The run's model before the gate."""
        return RunCandidate(run, self.project, self.runner)

    def serve(self, number: int, skill: float) -> Run:
        """Run, promote and approve."""
        run = self.run(number, skill)
        self.promote(run)
        self.approve()
        return run


@pytest.fixture(params=["remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, remote=request.param == "remote")


def release_at(world: World, environment: str = "staging") -> Release | None:
    tip = world.scm.tip("master")
    assert tip is not None
    return files.at(world.scm, tip, environment)


def test_first_promotion_from_proposal_to_release(world: World) -> None:
    run = world.run(1, 0.8)
    promotion = world.promote(run)
    assert (promotion.state, promotion.changed) == ("open", True)
    assert [one.promotion.branch for one in proposals(PROJECT, world.scm)] == [
        "ctflow/staging/digits"
    ]
    one = proposal(PROJECT, "staging", world.scm)
    report = world.scm.read(one.commit, "deploy/staging/report.md")
    assert report is not None
    assert b"Confusion matrix of this model" in report
    assert b"no champion yet" in report
    assert release_at(world) is None
    merged = world.approve()
    assert merged.state == "merged"
    release = release_at(world)
    assert release is not None
    assert release.run == "r-1"
    assert proposals(PROJECT, world.scm) == []
    answer = why(PROJECT, "staging", world.scm)
    assert answer.approved_by == "Ada Lovelace <ada@example.org>"
    text = world.scm.read(answer.commit, "deploy/staging/inferenceservice.yaml")
    model = yaml.safe_load(text or b"")["spec"]["predictor"]["model"]
    assert release.model.digest.partition(":")[2] in model["storageUri"]


def test_promoting_the_same_run_again_changes_nothing(world: World) -> None:
    run = world.run(1, 0.8)
    first = world.promote(run)
    again = world.promote(run)
    assert again == replace(first, changed=False)
    world.approve()
    # The gate holds what serves already; a verdict from before must be a no-op too.
    assert world.judge(run).decision == "hold"
    passing = replace(world.judge(run), decision="promote")
    assert world.promote(run, verdict=passing).state == "none"


def test_two_promotes_at_once_end_in_one_proposal(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = world.run(1, 0.8)
    verdict = world.judge(run)

    def one(number: int) -> str | None:
        clone = tmp_path / f"clone{number}"
        git(tmp_path, "clone", "-q", "bare.git", str(clone))
        scm = GitScm(clone, tmp_path / f"scratch{number}")
        promotion = promote(
            world.candidate(run), verdict, PROJECT, scm=scm, store=world.store, forge=world.forge,
            predictors=world.predictors,
        )  # fmt: skip
        commit: str | None = promotion.commit
        return commit

    with ThreadPoolExecutor(4) as pool:
        commits = set(pool.map(one, range(4)))
    world.scm.fetch()
    assert commits == {world.scm.tip("ctflow/staging/digits")}


def test_a_better_model_is_promoted_over_the_champion_and_a_worse_one_is_not(world: World) -> None:
    world.serve(1, 0.8)
    better = world.run(2, 0.9)
    verdict = world.judge(better)
    assert verdict.decision == "promote"
    comparison = verdict.reasons[1].comparison
    assert comparison is not None
    assert comparison.gain == pytest.approx(0.1)
    assert comparison.low > 0
    assert world.runner.calls == []  # the champion's predictions travelled with its release
    world.promote(better)
    world.approve()
    worse = world.run(3, 0.7)
    verdict = world.judge(worse)
    assert verdict.decision == "reject"
    with pytest.raises(GateHeld, match="the gate says reject"):
        world.promote(worse, verdict=verdict)
    assert proposals(PROJECT, world.scm) == []


def test_on_a_new_evaluation_set_the_champion_is_scored_again(world: World) -> None:
    world.serve(1, 0.8)
    better = world.run(500, 0.9, examples=500)
    verdict = world.judge(better)
    assert verdict.decision == "promote", verdict
    assert len(world.runner.calls) == 1
    world.judge(better)
    assert len(world.runner.calls) == 1  # kept with the champion from then on


def test_a_champion_that_cannot_be_scored_holds_everything_back(world: World) -> None:
    world.serve(1, 0.8)
    for place in (world.base / "models").rglob("skill"):
        place.unlink()
    verdict = world.judge(world.run(500, 0.9, examples=500))
    assert verdict.decision == "hold"
    assert "cannot be compared with the champion: the model sha256:" in verdict.reasons[1].text


def test_an_override_needs_a_name_and_is_kept_in_the_release(world: World) -> None:
    world.serve(1, 0.8)
    worse = world.run(2, 0.7)
    forced = world.judge(worse, override=Override("the demo is today", "Ada <a@b>"))
    assert world.promote(worse, verdict=forced).state == "open"
    one = proposal(PROJECT, "staging", world.scm)
    assert one.release.verdict.override == Override("the demo is today", "Ada <a@b>")
    report = (world.scm.read(one.commit, "deploy/staging/report.md") or b"").decode()
    assert "[!CAUTION]" in report


def test_uncommitted_changes_cannot_be_promoted(world: World) -> None:
    run = world.run(1, 0.8)
    assert run.commit is not None
    dirty = replace(run, commit=replace(run.commit, dirty=("steps/train/main.py",)))
    with pytest.raises(StateError, match=r"uncommitted changes \(steps/train/main.py\)"):
        world.promote(dirty)
    with pytest.raises(StateError, match="names no commit"):
        world.promote(replace(run, commit=None))
    with pytest.raises(StateError, match="only a succeeded run"):
        world.judge(replace(run, state="failed"))


@pytest.mark.parametrize("target", ["../ctflow.yaml", "/etc/hostname", "inside/../../serving-2"])
def test_serving_code_with_a_link_out_of_it_is_not_proposed(world: World, target: str) -> None:
    """git keeps a link as a link: it would lead to something else from the release's place."""
    (world.work / "serving" / "inside").mkdir()
    (world.work / "serving" / "inside" / "same.py").symlink_to("../predictor.py")
    (world.work / "serving" / "same").symlink_to("inside")
    world.commit("links that stay inside")
    assert world.serve(1, 0.7).id == "r-1"
    world.pull()
    (world.work / "serving" / "data").symlink_to(target)
    world.commit("a link that does not")
    run = world.run(2, 0.9)
    with pytest.raises(StateError) as caught:
        world.judge(run)
    assert str(caught.value) == (
        f"the link serving/data leads out of serving/, to {target!r};"
        " copy the file there instead of the link, and commit it"
    )
    assert [one.id for one in proposals(PROJECT, world.scm)] == []
    assert len(world.tried) == 1


def test_production_takes_only_what_staging_has(world: World) -> None:
    run = world.run(1, 0.8)
    with pytest.raises(StateError, match="promote it to staging first"):
        world.promote(run, "production")
    world.promote(run)
    world.approve()
    assert world.promote(run, "production").state == "open"
    assert [one.promotion.environment for one in proposals(PROJECT, world.scm)] == ["production"]


def test_what_staging_serves_is_proposed_without_the_run_and_its_files(world: World) -> None:
    """From the release and the store: as another machine would, with a record of its own."""
    world.serve(1, 0.75)
    world.promote(world.run(1, 0.75), "production")
    world.approve("production")
    run = world.run(2, 0.9)
    world.promote(run)
    world.approve()
    world.scm.fetch()
    there = files.at(world.scm, world.scm.tip("master") or "", "staging")
    assert there is not None
    shutil.rmtree(world.base / "run2")
    with pytest.raises(StateError, match="is gone"):
        world.judge(run, "production")
    candidate = ReleaseCandidate(there, world.store)
    verdict = evaluate(
        candidate, "production", world.project, scm=world.scm, store=world.store,
        looks=world.looks, runner=world.runner, golden=world.golden,
        predictors=world.predictors, functions=no_functions, watch=world.notes.append,
    )  # fmt: skip
    assert (verdict.decision, verdict.run) == ("promote", "r-2")
    assert any(reason.comparison for reason in verdict.reasons)  # staging's own predictions count
    assert world.runner.calls == []
    proposed = promote(
        candidate,
        verdict,
        world.project,
        scm=world.scm,
        store=world.store,
        forge=world.forge,
        predictors=world.predictors,
    )
    world.approve("production")
    world.scm.fetch()
    made = files.at(world.scm, world.scm.tip("master") or "", "production")
    assert made is not None
    assert made.model == there.model
    assert made.predictions == there.predictions
    assert (made.run, made.commit, made.parameters) == (run.id, there.commit, run.parameters)
    assert (made.metrics, made.images, made.data) == (there.metrics, there.images, there.data)
    assert proposed.run == "r-2"


def test_a_target_gets_the_manifest_and_brings_the_model_itself(world: World) -> None:
    """A cluster needs what git says and the model's address; only who serves here fetches it."""
    world.serve(1, 0.8)
    world.pull()
    golden = [{"request": {"instances": [2]}, "expect": {"predictions": [1.6]}}]
    world.commit("golden", **{"serving/golden.json": json.dumps(golden)})
    world.promote(world.run(1, 0.8))
    world.approve()
    shutil.rmtree(world.base / "run1")  # what is served is the store's
    target = FakeTarget()
    done = deploy(
        world.project, "staging", scm=world.scm, store=world.store, server=target,
        scratch=world.base / "deploying", watch=world.notes.append,
    )  # fmt: skip
    (request,) = target.asked
    assert (done.state, done.model) == ("ready", request.model.digest)
    assert [one.passed for one in done.checks] == [True]
    tip = world.scm.tip("master") or ""
    assert request.manifest == world.scm.read(tip, "deploy/staging/inferenceservice.yaml")
    assert request.model.uri.encode() in request.manifest
    assert (request.fetch() / "skill").read_text() == "0.8"


def test_a_champion_on_other_examples_holds_where_the_run_is_not_here(world: World) -> None:
    world.promote(world.run(1, 0.75, examples=300))
    world.approve()
    world.promote(world.run(1, 0.75, examples=300), "production")
    world.approve("production")
    for number, skill, examples in ((2, 0.85, 300), (3, 0.95, 400)):
        world.promote(world.run(number, skill, examples=examples))
        world.approve()
    world.scm.fetch()
    there = files.at(world.scm, world.scm.tip("master") or "", "staging")
    assert there is not None
    verdict = evaluate(
        ReleaseCandidate(there, world.store), "production", world.project, scm=world.scm,
        store=world.store, looks=world.looks, runner=world.runner,
        golden=world.golden, predictors=world.predictors, functions=no_functions,
        watch=world.notes.append,
    )  # fmt: skip
    assert verdict.decision == "hold"
    assert any("not on record here" in reason.text for reason in verdict.reasons)


def test_evidence_against_an_older_champion_is_stale(world: World) -> None:
    world.serve(1, 0.6)
    slow = world.run(2, 0.8)
    old_evidence = world.judge(slow)
    world.promote(slow, verdict=old_evidence)
    # Meanwhile somebody puts another model there by hand, as a merged pull request would.
    other = world.run(3, 0.7)
    verdict = world.judge(other)
    model = other.artifact("train.model")
    assert model is not None
    tip = world.scm.tip("master")
    assert tip is not None
    release = files.at(world.scm, tip, "staging")
    assert release is not None
    kept = world.store.put(model, "sklearn")
    changed = replace(release, run="r-3", model=kept, verdict=verdict)
    commit = world.scm.commit_files(tip, files.write(changed, None, None), "by hand")
    assert world.scm.move("master", commit, tip)
    with pytest.raises(StateError, match="is stale"):
        world.approve()
    with pytest.raises(StateError, match="evidence compares with"):
        world.promote(slow, verdict=old_evidence)
    assert world.promote(slow).changed  # judged again, against what is there now
    world.approve()


def test_an_older_run_does_not_push_a_newer_proposal_aside(world: World) -> None:
    older, newer = world.run(1, 0.8), world.run(2, 0.9)
    world.promote(newer)
    with pytest.raises(StateError, match="a newer run, r-2, is already proposed"):
        world.promote(older)
    assert proposal(PROJECT, "staging", world.scm).release.run == "r-2"


def test_a_newer_run_updates_the_one_proposal_in_place(world: World) -> None:
    world.promote(world.run(1, 0.8))
    world.promote(world.run(2, 0.9))
    assert [one.release.run for one in proposals(PROJECT, world.scm)] == ["r-2"]
    tip, base = world.scm.tip("ctflow/staging/digits"), world.scm.tip("master")
    assert tip is not None
    assert world.scm.log(tip, ".")[0].parents == (base,)


def test_a_persons_commit_on_the_proposal_is_not_written_over(world: World) -> None:
    world.promote(world.run(1, 0.8))
    branch = "ctflow/staging/digits"
    tip = world.scm.tip(branch)
    assert tip is not None
    added = world.scm.commit_files(tip, {"deploy/staging/extra.yaml": b"x\n"}, "add a quota")
    assert world.scm.move(branch, added, tip)
    with pytest.raises(StateError, match="add a quota"):
        world.promote(world.run(2, 0.9))
    world.approve()
    merged = world.scm.tip("master")
    assert merged is not None
    assert world.scm.read(merged, "deploy/staging/extra.yaml") == b"x\n"


def test_a_rejected_model_is_not_proposed_again_until_its_hold_is_removed(world: World) -> None:
    run = world.run(1, 0.8)
    world.promote(run)
    with pytest.raises(StateError, match="needs a reason"):
        reject(PROJECT, "staging", " ", scm=world.scm, forge=world.forge, now=2e9)
    done = reject(PROJECT, "staging", "too slow\non arm", scm=world.scm, forge=world.forge, now=2e9)
    assert done.state == "rejected"
    assert proposals(PROJECT, world.scm) == []
    with pytest.raises(GateHeld, match="the gate says hold") as caught:
        world.promote(run)
    assert "on hold for staging (too slow on arm)" in caught.value.details[0]
    passing = replace(world.judge(run), decision="promote")
    with pytest.raises(GateHeld, match=r"on hold for staging \(too slow on arm\)"):
        world.promote(run, verdict=passing)
    tip = world.scm.tip("master")
    assert tip is not None
    freed = world.scm.commit_files(tip, {"deploy/staging/holds.yaml": None}, "allow it")
    assert world.scm.move("master", freed, tip)
    assert world.promote(run).state == "open"


def test_rollback_restores_the_release_before_and_holds_the_model(world: World) -> None:
    world.serve(1, 0.7)
    second = world.serve(2, 0.85)
    third = world.serve(3, 0.95)
    dry = rollback(
        PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9, dry_run=True
    )
    assert dry.restored.run == "r-2"
    done = rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert (done.taken.run, done.restored.run) == ("r-3", "r-2")
    release = release_at(world)
    assert release == done.restored
    with pytest.raises(GateHeld, match="the gate says hold"):
        world.promote(third)
    assert why(PROJECT, "staging", world.scm).holds[0].digest == done.taken.model.digest
    # Twice: one further back, never to a held one.
    assert (
        rollback(
            PROJECT, "staging", "slow too", scm=world.scm, forge=world.forge, now=2e9
        ).restored.run
        == "r-1"
    )
    with pytest.raises(StateError, match="no earlier release"):
        rollback(PROJECT, "staging", "again", scm=world.scm, forge=world.forge, now=2e9)
    with pytest.raises(GateHeld):
        world.promote(second)


def test_rollback_to_a_named_run_and_without_a_release(world: World) -> None:
    with pytest.raises(StateError, match="nothing to roll back"):
        rollback(PROJECT, "staging", "x", scm=world.scm, forge=world.forge, now=2e9)
    world.serve(1, 0.7)
    world.serve(2, 0.85)
    world.serve(3, 0.95)
    done = rollback(PROJECT, "staging", "x", scm=world.scm, forge=world.forge, now=2e9, run="r-1")
    assert done.restored.run == "r-1"


def test_a_merge_that_was_killed_before_it_removed_the_branch_is_over(world: World) -> None:
    run = world.run(1, 0.8)
    world.promote(run)
    one = proposal(PROJECT, "staging", world.scm)
    merged = world.scm.merge_commit(one.base, one.commit, "Promote")
    assert world.scm.move("master", merged, one.base)
    assert proposals(PROJECT, world.scm) == []
    better = world.run(2, 0.9)
    assert world.promote(better).changed  # the leftover branch is not in the way
    assert proposal(PROJECT, "staging", world.scm).release.run == "r-2"


def test_a_review_that_was_killed_before_it_removed_the_branch_is_finished(world: World) -> None:
    branch = "ctflow/staging/digits"
    run = world.run(1, 0.8)
    proposed = world.promote(run).commit
    reviewed = proposal(PROJECT, "staging", world.scm).id
    merged = world.approve()
    assert world.scm.move(branch, proposed, None)
    again = approve(PROJECT, "staging", reviewed, scm=world.scm, forge=world.forge)
    assert (again.state, again.commit, again.changed) == ("merged", merged.commit, False)
    assert world.scm.tip(branch) is None
    proposed = world.promote(world.run(2, 0.9)).commit
    reject(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert world.scm.move(branch, proposed, None)
    with pytest.raises(StateError, match="nothing is proposed"):
        world.approve()
    again = reject(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert (again.state, again.changed) == ("rejected", False)
    assert world.scm.tip(branch) is None


def test_dry_run_writes_nothing(world: World) -> None:
    before = git(world.work, "for-each-ref")
    assert world.promote(world.run(1, 0.8), dry_run=True).state == "open"
    assert git(world.work, "for-each-ref") == before
    assert not (world.base / "models").exists()


def test_a_failing_remote_leaves_nothing_half_done(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = world.run(1, 0.8)
    verdict = world.judge(run)
    (tmp_path / "bare.git").rename(tmp_path / "away.git")
    with pytest.raises(CtflowError):
        world.promote(run, verdict=verdict)
    (tmp_path / "away.git").rename(tmp_path / "bare.git")
    assert world.promote(run, verdict=verdict).changed


# -- what was reviewed is what is merged ----------------------------------------------------------


def test_only_what_was_shown_can_be_approved(world: World) -> None:
    first = world.run(1, 0.8)
    shown = world.promote(first).id
    other = world.promote(world.run(2, 0.9))
    assert other.id != shown
    with pytest.raises(StateError, match=f"'{shown}' is not what is proposed .* run r-2") as caught:
        approve(PROJECT, "staging", shown, scm=world.scm, forge=world.forge)
    assert f"{other.id} is: run r-2" in str(caught.value)
    assert release_at(world) is None
    for wrong in ("", other.id[:3], "0" * 10):
        with pytest.raises(StateError, match="is not what is proposed"):
            approve(PROJECT, "staging", wrong, scm=world.scm, forge=world.forge)
    merged = approve(PROJECT, "staging", other.id[:6], scm=world.scm, forge=world.forge)
    assert merged.state == "merged"
    # The same word again, as a script that was cut off would say it.
    again = approve(PROJECT, "staging", other.id, scm=world.scm, forge=world.forge)
    assert (again.state, again.commit, again.changed, again.id) == (
        "merged", merged.commit, False, other.id
    )  # fmt: skip


def test_a_promotions_id_is_that_of_its_content(world: World) -> None:
    run = world.run(1, 0.8)
    first = world.promote(run)
    world.commit("of somebody else", notes="x\n")
    moved = world.promote(run)
    assert (moved.commit != first.commit, moved.id) == (True, first.id)
    tip = world.scm.tip(moved.branch)
    assert tip is not None
    added = world.scm.commit_files(tip, {"steps/train/main.py": b"evil\n"}, "one more")
    assert world.scm.move(moved.branch, added, tip)
    with pytest.raises(StateError, match="is not what is proposed"):
        approve(PROJECT, "staging", first.id, scm=world.scm, forge=world.forge)


def test_approving_checks_again_what_promoting_checked(world: World) -> None:
    world.serve(1, 0.7)
    run = world.serve(2, 0.8)
    production = world.promote(run, "production")
    rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    with pytest.raises(StateError, match="production comes after staging, which has model"):
        world.approve("production")
    # By hand back in staging, but still on hold there: neither.
    tip = world.scm.tip("master")
    assert tip is not None
    where = "deploy/staging/release.yaml"
    back = world.scm.commit_files(
        tip, {where: world.scm.read(production.base, where)}, "back by hand"
    )
    assert world.scm.move("master", back, tip)
    with pytest.raises(GateHeld, match=r"on hold for staging \(slow\)"):
        world.approve("production")
    with pytest.raises(GateHeld, match=r"on hold for staging \(slow\)"):
        world.promote(run, "production")


def policy_of(world: World, **changed: Any) -> None:
    """Put changed settings on the default branch, and take them as the caller's own."""
    config = CONFIG | changed
    (world.work / "ctflow.yaml").write_text(yaml.safe_dump(config))
    world.commit("settings")
    world.project = Project.model_validate(config)


def test_a_second_person_where_the_team_asks_for_one(world: World) -> None:
    rules = {"staging": {"self": False, "approvals": 2}}
    policy_of(world, environments=rules)
    world.promote(world.run(1, 0.8))
    one = proposal(world.project, "staging", world.scm)
    with pytest.raises(GateHeld, match="another person must approve it"):
        world.approve()
    git(world.work, "config", "user.name", "Grace Hopper")
    git(world.work, "config", "user.email", "grace@example.org")
    first = world.approve()
    assert (first.state, first.id) == ("open", one.id)
    assert world.approve().state == "open"  # the same person twice is one person
    # It stays what was reviewed: neither its id nor the next proposal minds the approval.
    assert proposal(world.project, "staging", world.scm).id == one.id
    git(world.work, "config", "user.email", "alan@example.org")
    git(world.work, "config", "user.name", "Alan Turing")
    merged = world.approve()
    assert merged.state == "merged"
    text = git(world.work, "log", "-1", "--format=%b", str(merged.commit))
    assert [line for line in text.splitlines() if line.startswith("Approved-by")] == [
        "Approved-by: Grace Hopper <grace@example.org>",
        "Approved-by: Alan Turing <alan@example.org>",
    ]


def test_a_newer_run_takes_the_place_of_a_half_approved_one(world: World) -> None:
    policy_of(world, environments={"staging": {"approvals": 2}})
    world.promote(world.run(1, 0.8))
    assert world.approve().state == "open"
    world.promote(world.run(2, 0.9))
    assert world.approve().state == "open"
    assert proposal(world.project, "staging", world.scm).release.run == "r-2"


# -- the default branch decides -------------------------------------------------------------------


def test_other_rules_than_the_default_branchs_are_a_trial(world: World) -> None:
    world.serve(1, 0.8)
    worse = world.run(2, 0.6)
    assert world.judge(worse).decision == "reject"
    lax = CONFIG | {"gate": [{"metric": "accuracy", "min": 0.1}]}
    world.project = Project.model_validate(lax | {"environments": {"staging": {"merge": "auto"}}})
    trial = world.judge(worse)
    assert trial.decision == "promote"
    assert trial.trial == "gate here is not as on master"
    assert trial.notes[0] == "a trial: gate here is not as on master"
    with pytest.raises(GateHeld, match="a trial: gate here is not as on master"):
        world.promote(worse, verdict=trial)
    # Also where the verdict came by file, without a word of how it was made.
    with pytest.raises(GateHeld, match="a trial: its rules are not those of master"):
        world.promote(worse, verdict=replace(trial, trial="", notes=()))
    assert proposals(PROJECT, world.scm) == []
    forced = world.judge(worse, override=Override("we need it", "Ada <a@b>"))
    assert forced.override is not None
    assert world.promote(worse, verdict=forced).state == "open"
    one = proposal(PROJECT, "staging", world.scm)
    report = (world.scm.read(one.commit, "deploy/staging/report.md") or b"").decode()
    assert "[!CAUTION]" in report
    assert "gate here is not as on master" in report
    # Merged into the default branch, the same rules are the rules.
    policy_of(world, gate=lax["gate"])
    assert world.judge(worse).trial == ""


def test_the_default_branchs_environments_count(world: World) -> None:
    run = world.run(1, 0.8)
    asked = {"staging": {"merge": "auto"}, "production": {}, "canary": {}}
    world.project = Project.model_validate(CONFIG | {"environments": asked})
    verdict = world.judge(run, "production")
    assert any("of staging, production, canary" in note.text for note in world.notes)
    with pytest.raises(StateError, match="production comes after staging"):
        world.promote(run, "production", verdict)
    with pytest.raises(StateError, match="master has no environment 'canary'"):
        world.promote(run, "canary")


# -- commits that others can have -----------------------------------------------------------------


def test_a_run_of_a_commit_that_nobody_else_has_is_not_proposed(tmp_path: Path) -> None:
    world = World(tmp_path)
    git(world.work, "checkout", "-qb", "mine")
    git(world.work, "commit", "-q", "--allow-empty", "-m", "never pushed")
    run = world.run(1, 0.8)
    with pytest.raises(StateError, match="of run r-1 is on no branch of the remote; push"):
        world.promote(run)
    git(world.work, "push", "-q", "origin", "mine")
    assert world.promote(run).state == "open"
    # Its branch goes, as a squash merge leaves it: the release has all that it needs.
    git(world.base / "bare.git", "branch", "-D", "mine")
    with pytest.raises(StateError, match="on no branch of the remote"):
        world.promote(run)
    world.approve()
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", (tmp_path / "bare.git").as_uri(), str(clone))
    scm = GitScm(clone, tmp_path / "scratch-clone")
    release = files.at(scm, scm.tip("master") or "", "staging")
    assert release is not None
    assert release.serving is not None
    assert not scm.has(release.commit)
    scm.export(scm.tip("master") or "", release.serving.folder, tmp_path / "code")
    assert (tmp_path / "code" / "predictor.py").read_text() == "first\n"


# -- what serves the model is part of the release --------------------------------------------------


def test_new_serving_code_for_the_same_model_is_a_change_to_propose(world: World) -> None:
    run = world.serve(1, 0.8)
    assert world.judge(run).reasons[0].text == "this model already serves"
    world.pull()
    (world.work / "serving" / "predictor.py").write_text("mended\n")
    world.commit("mend the predictor")
    again = replace(world.run(1, 0.8), id="r-1b", created=2e9, ended=2e9)
    verdict = world.judge(again)
    assert [one.text for one in verdict.reasons] == [
        "same model, new serving code", "golden requests 2/2"
    ]  # fmt: skip
    assert world.promote(again, verdict=verdict).state == "open"
    one = proposal(PROJECT, "staging", world.scm)
    assert world.scm.read(one.commit, "deploy/staging/serving/predictor.py") == b"mended\n"
    world.approve()
    # Back: the model stays, the new code is on hold, and the old one is there again.
    done = rollback(PROJECT, "staging", "it leaks", scm=world.scm, forge=world.forge, now=3e9)
    assert (done.taken.run, done.restored.run) == ("r-1b", "r-1")
    tip = world.scm.tip("master")
    assert tip is not None
    assert world.scm.read(tip, "deploy/staging/serving/predictor.py") == b"first\n"
    held = world.judge(again)
    assert (held.decision, held.reasons[0].rule) == ("hold", "hold")
    better = world.run(2, 0.9)  # another model with that code is another matter
    assert world.judge(better).decision == "promote"
    assert standing("staging", tip, world.scm) == replace(done, already=True)


def test_rejecting_new_serving_code_does_not_hold_the_model_that_serves(world: World) -> None:
    world.serve(1, 0.8)
    world.pull()
    (world.work / "serving" / "golden.json").write_text("other\n")
    world.commit("other answers")
    again = replace(world.run(1, 0.8), id="r-1b", created=2e9, ended=2e9)
    world.promote(again)
    reject(PROJECT, "staging", "wrong", scm=world.scm, forge=world.forge, now=2e9)
    release = release_at(world)
    assert release is not None
    tip = world.scm.tip("master") or ""
    (hold,) = files.holds_at(world.scm, tip, "staging")
    assert hold.serving
    assert files.is_held(files.identity_of(release), (hold,)) is None
    assert world.judge(again).decision == "hold"
    assert proposals(PROJECT, world.scm) == []


def test_a_model_that_fails_its_golden_requests_is_not_proposed(world: World) -> None:
    run = world.run(1, 0.8)
    world.answers = (Check("one", True), Check("seven", False, "expected 7, got 1"))
    verdict = world.judge(run)
    assert verdict.decision == "reject"
    assert verdict.reasons[-1].text == "golden requests 1/2: seven: expected 7, got 1"
    with pytest.raises(GateHeld, match="the gate says reject"):
        world.promote(run, verdict=verdict)
    tried = len(world.tried)
    assert world.judge(world.run(2, 0.2)).decision == "reject"
    assert len(world.tried) == tried  # the rules stopped it before


def test_a_model_without_a_single_byte_is_not_proposed(world: World) -> None:
    run = world.run(1, 0.8)
    model = run.artifact("train.model")
    assert model is not None
    (Path(model.uri) / "skill").write_bytes(b"")
    verdict = world.judge(run)
    assert verdict.decision == "reject"
    assert verdict.reasons[0].text == "train.model is empty"
    assert world.tried == []
    with pytest.raises(GateHeld, match="the gate says reject"):
        world.promote(run, verdict=verdict)


def test_a_verdict_on_other_serving_code_is_refused(world: World) -> None:
    run = world.run(1, 0.8)
    verdict = world.judge(run)
    with pytest.raises(StateError, match="about other serving code"):
        world.promote(run, verdict=replace(verdict, serving="sha256:" + "0" * 64))
    with pytest.raises(StateError, match="about other serving code"):
        world.promote(run, verdict=replace(verdict, serving=""))


def test_a_proposal_does_not_undo_serving_code_that_came_in_since(world: World) -> None:
    run = world.serve(1, 0.8)
    better = world.run(2, 0.9)
    world.promote(better)
    world.pull()
    (world.work / "serving" / "predictor.py").write_text("mended\n")
    world.commit("mend the predictor")
    again = replace(world.run(1, 0.8), id="r-1b", created=1.5e9, ended=1.5e9)
    tip = world.scm.tip("ctflow/staging/digits")
    assert world.scm.move("ctflow/staging/digits", None, tip)
    world.promote(again)
    world.approve()
    assert world.scm.move("ctflow/staging/digits", tip, None)
    with pytest.raises(StateError, match="from before the serving code of staging changed"):
        world.approve()
    assert run.id == "r-1"


def test_a_commit_without_serving_code_makes_no_release(world: World) -> None:
    git(world.work, "rm", "-q", "serving/golden.json")
    world.commit("no golden requests")
    with pytest.raises(StateError, match=r"has no serving/golden.json \(it is missing, or git"):
        world.judge(world.run(1, 0.8))


# -- merged, however it came -----------------------------------------------------------------------


def squash(world: World, branch: str = "ctflow/staging/digits") -> None:
    """Merge the proposal as a forge's "Squash and merge" does."""
    tip, commit = world.scm.tip("master"), world.scm.tip(branch)
    assert tip is not None
    assert commit is not None
    merged = world.scm.merge_commit(tip, commit, "x")
    tree = git(world.work, "rev-parse", f"{merged}^{{tree}}")
    made = git(world.work, "commit-tree", tree, "-p", tip, "-m", "staging: serve digits (#3)")
    assert world.scm.move("master", made, tip)


def test_a_squash_merge_is_a_merge(world: World) -> None:
    world.promote(world.run(1, 0.8))
    reviewed = proposal(PROJECT, "staging", world.scm).id
    squash(world)
    assert proposals(PROJECT, world.scm) == []
    with pytest.raises(StateError, match="nothing is proposed"):
        reject(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert files.holds_at(world.scm, world.scm.tip("master") or "", "staging") == ()
    merged = approve(PROJECT, "staging", reviewed, scm=world.scm, forge=world.forge)
    assert (merged.state, merged.changed) == ("merged", False)
    assert world.scm.tip("ctflow/staging/digits") is None


def test_a_leftover_of_a_squash_merge_is_in_nobodys_way(world: World) -> None:
    world.promote(world.run(1, 0.8))
    squash(world)
    better = world.run(2, 0.9)
    assert world.promote(better).changed
    squash(world)
    leftover = world.scm.tip("ctflow/staging/digits")
    world.promote(world.run(3, 0.95))
    world.approve()
    assert world.scm.move("ctflow/staging/digits", leftover, None)
    assert proposals(PROJECT, world.scm) == []


def test_a_taken_back_model_can_be_proposed_again_when_its_hold_is_gone(world: World) -> None:
    world.serve(1, 0.7)
    second = world.serve(2, 0.85)
    rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    tip = world.scm.tip("master")
    assert tip is not None
    freed = world.scm.commit_files(tip, {"deploy/staging/holds.yaml": None}, "allow it")
    assert world.scm.move("master", freed, tip)
    # Its release is word for word the one that was merged before: that was another time.
    assert world.promote(second).state == "open"
    assert proposal(PROJECT, "staging", world.scm).release.run == "r-2"
    world.approve()


def test_update_branch_on_a_forge_adds_nothing_to_the_proposal(world: World) -> None:
    branch = "ctflow/staging/digits"
    world.promote(world.run(1, 0.8))
    reviewed = proposal(PROJECT, "staging", world.scm).id
    world.commit("of somebody else", notes="x\n")
    tip, commit = world.scm.tip("master"), world.scm.tip(branch)
    assert tip is not None
    assert commit is not None
    updated = world.scm.merge_commit(commit, tip, f"Merge branch 'master' into {branch}")
    assert world.scm.move(branch, updated, commit)
    assert proposal(PROJECT, "staging", world.scm).id == reviewed
    world.promote(world.run(2, 0.9))  # not blocked
    world.approve()


# -- the champion's predictions --------------------------------------------------------------------


def test_each_output_is_compared_with_its_own(world: World) -> None:
    over = {"metric": "accuracy", "over": "champion"}
    rules = [
        {"metric": "skill", "min": 0.3},
        over | {"predictions": "evaluate.noisy"},
        over | {"predictions": "evaluate.predictions", "margin": 0.02},
    ]
    policy_of(world, gate=rules)
    world.promote(replace(world.run(1, 0.95, noisy=0.7), metrics={"skill": 0.9}))
    world.approve()
    release = release_at(world)
    assert release is not None
    assert [ref.output for ref in release.predictions] == ["evaluate.noisy", "evaluate.predictions"]
    challenger = replace(world.run(2, 0.85, noisy=0.8), metrics={"skill": 0.9})
    verdict = world.judge(challenger)
    assert [one.decision for one in verdict.reasons] == ["promote", "promote", "reject"]
    (noisy, clean) = (one.comparison for one in verdict.reasons[1:])
    assert noisy is not None
    assert clean is not None
    assert (noisy.champion, clean.champion) == pytest.approx((0.7, 0.95))
    assert world.runner.calls == []


def as_parquet(run: Run, *, folder: bool = False) -> Run:
    """The run with each predictions file written as Parquet, in its types."""

    def moved(artifact: Artifact) -> Artifact:
        if artifact.type != "system.Dataset":
            return artifact
        place = Path(artifact.uri).with_suffix(".parquet")
        table = pyarrow.csv.read_csv(artifact.uri)
        if folder:
            place = place.with_suffix(".out")
            place.mkdir(exist_ok=True)
            (place / "_SUCCESS").touch()
        pq.write_table(table, place / "part-0.parquet" if folder else place)
        return Artifact(artifact.name, artifact.type, str(place), *digest_path(place))

    return replace(
        run,
        tasks=tuple(
            replace(
                task,
                artifacts={
                    name: tuple(map(moved, artifacts)) for name, artifacts in task.artifacts.items()
                },
            )
            for task in run.tasks
        ),
    )


@pytest.mark.parametrize("folder", [False, True])
def test_parquet_predictions_go_the_whole_way(world: World, folder: bool) -> None:
    reserve(world)
    first = as_parquet(with_reserved(world, world.run(1, 0.8), 0.8), folder=folder)
    world.promote(first)
    world.approve()
    (kept, _) = sorted((world.base / "models" / "predictions").rglob("*.gz"))
    assert gzip.decompress(kept.read_bytes()).startswith(b"PAR1")

    found = plan(
        world.project, "staging", scm=world.scm, store=world.store, looks=world.looks,
        functions=no_functions,
    )  # fmt: skip
    assert [(one.examples, one.missing) for one in found.rules] == [(400, ""), (400, "")]

    better = as_parquet(with_reserved(world, world.run(2, 0.9), 0.89), folder=folder)
    verdict = world.judge(better)
    assert verdict.decision == "promote"
    assert verdict.reasons[-2].text.startswith("confirmed on evaluate.reserved: accuracy +0.090")
    assert world.runner.calls == []
    # The same examples: what is CSV is compared with what is Parquet.
    plain = world.judge(with_reserved(world, world.run(3, 0.9), 0.89))
    assert [one.text for one in plain.reasons] == [one.text for one in verdict.reasons]
    assert plain.evaluated == verdict.evaluated
    assert world.runner.calls == []

    world.promote(better, verdict=verdict)
    report = world.scm.read(proposal(world.project, "staging", world.scm).commit,
                            "deploy/staging/report.md")  # fmt: skip
    assert report is not None
    assert b"Confusion matrix of this model" in report


def test_a_champion_scored_again_may_write_parquet(world: World) -> None:
    world.serve(1, 0.8)
    score = world.runner.score_again

    def as_table(run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        done = score(run, task, artifact, content, watch)
        return as_parquet(replace(run, tasks=(done,)), folder=True).tasks[0]

    world.runner.score_again = as_table  # type: ignore[method-assign]
    for number in (2, 3):
        assert world.judge(as_parquet(world.run(number, 0.9, code="2"))).decision == "promote"
    assert len(world.runner.calls) == 1  # kept from then on


def test_other_evaluation_code_scores_the_champion_again(world: World) -> None:
    world.serve(1, 0.8)
    # The same examples and labels, judged by code that was changed since.
    verdict = world.judge(world.run(2, 0.9, code="2"))
    assert len(world.runner.calls) == 1
    assert verdict.decision == "promote"
    world.judge(world.run(3, 0.9, code="2"))
    assert len(world.runner.calls) == 1  # kept from then on, under that code
    world.judge(world.run(4, 0.9))
    assert len(world.runner.calls) == 1  # and so are those of the code before


@pytest.mark.parametrize("how", ["damaged", "replaced"])
def test_kept_predictions_that_are_not_the_releases_are_not_believed(
    world: World, how: str
) -> None:
    world.serve(1, 0.9)
    (kept,) = (world.base / "models" / "predictions").rglob("*.gz")
    if how == "damaged":
        kept.write_bytes(b"other")
    else:
        release = release_at(world)
        assert release is not None
        worse = write_predictions(world.base / "worse.csv", 0.2)
        world.store.put_predictions(release.predictions[0].key(release.model.digest), worse)
    verdict = world.judge(world.run(2, 0.8))
    assert verdict.decision == "reject"
    assert len(world.runner.calls) == 1
    assert any("not used: " in note.text for note in world.notes)


def test_an_unreadable_release_in_history_is_skipped_with_a_note(world: World) -> None:
    world.serve(1, 0.7)
    for text in (b"{", b"kind: release\nversion: 99\n"):
        tip = world.scm.tip("master")
        assert tip is not None
        where = "deploy/staging/release.yaml"
        kept = world.scm.read(tip, where)
        broken = world.scm.commit_files(tip, {where: text}, "break it")
        mended = world.scm.commit_files(broken, {where: kept}, "mend it")
        assert world.scm.move("master", mended, tip)
    world.serve(2, 0.85)
    done = rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert done.restored.run == "r-1"
    world.serve(3, 0.95)
    with pytest.raises(StateError, match=r"no earlier release of run r-0 .*2 cannot be read"):
        rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9, run="r-0")
    world.scm.fetch()
    assert done.skipped == ()
    back = rollback(
        PROJECT, "staging", "slow too", scm=world.scm, forge=world.forge, now=2e9, dry_run=True
    )
    assert back.restored.run == "r-1"


def test_attempts_on_one_evaluation_set_are_counted_and_go_into_git(world: World) -> None:
    world.serve(1, 0.8)
    held, better = world.run(2, 0.8025), world.run(3, 0.9)
    assert not _attempts(world.judge(held))
    verdict = world.judge(better)
    assert _attempts(verdict)[0].startswith("attempt 2 on the evaluation set")
    assert world.judge(better) == verdict
    assert not _attempts(world.judge(held))
    tip = world.promote(better).commit
    assert world.promote(better).commit == tip
    world.approve()
    models = [one.artifact("train.model") for one in (held, better)]
    where = "deploy/staging/looks.json"
    text = world.scm.read(world.scm.tip("master") or "", where)
    assert text is not None
    (found,) = json.loads(text)["sets"].values()
    assert found == [one.digest for one in models if one]
    # Another clone, which has seen nothing, goes on counting; a rollback forgets nothing.
    world.looks = FolderLooks(world.base / "other")
    rollback(PROJECT, "staging", "slow", scm=world.scm, forge=world.forge, now=2e9)
    assert world.scm.read(world.scm.tip("master") or "", where) == text
    assert world.judge(world.run(4, 0.85)).notes[0].startswith("attempt 3 ")
    release = world.scm.read(tip or "", "deploy/staging/release.yaml")
    assert release is not None
    assert found[0].encode() not in release


def test_a_dry_run_and_a_first_model_count_nothing(world: World) -> None:
    first = world.run(1, 0.8)
    world.judge(first)
    world.promote(first)
    world.approve()
    world.judge(world.run(2, 0.9), dry_run=True)
    assert not _attempts(world.judge(world.run(3, 0.9)))


def test_new_examples_begin_a_new_count(world: World) -> None:
    world.serve(1, 0.8)
    world.judge(world.run(2, 0.81))
    assert not _attempts(world.judge(world.run(3, 0.81, examples=7)))


def _attempts(verdict: Verdict) -> list[str]:
    return [note for note in verdict.notes if note.startswith("attempt")]


def test_a_margin_counts_from_the_last_gain_over_many_promotions(world: World) -> None:
    margin = {
        "metric": "accuracy", "over": "champion", "margin": 0.1,
        "predictions": "evaluate.predictions",
    }  # fmt: skip
    gate = [{"metric": "accuracy", "min": 0.5}, margin]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    world.commit("margin", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"gate": gate})})
    first = world.serve(1, 0.9)
    best = first.artifact("train.model")
    assert best is not None
    key = "accuracy of evaluate.predictions"
    world.serve(2, 0.87)
    release = release_at(world)
    assert release is not None
    assert release.verdict.anchors == {key: best.digest}
    worse = world.run(3, 0.82)
    verdict = world.judge(worse)
    assert verdict.decision == "hold"
    assert [one.decision for one in verdict.reasons] == ["promote", "promote", "hold"]
    # On new examples, the anchor is scored again as the champion is.
    world.judge(world.run(4, 0.84, examples=9))
    assert len(world.runner.calls) == 2
    # A person may accept the loss: then later models are held to that.
    verdict = world.judge(worse, override=Override("cheaper", "Ada"))
    assert verdict.override is not None
    taken = worse.artifact("train.model")
    assert taken is not None
    assert verdict.anchors == {key: taken.digest}


def reserve(world: World) -> None:
    """Ask the rule over the champion of a reserved set too."""
    over = CONFIG["gate"][1] | {"confirm": "evaluate.reserved"}
    gate = [CONFIG["gate"][0], over]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    world.commit("reserve", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"gate": gate})})


def with_reserved(world: World, run: Run, skill: float, examples: int = 900) -> Run:
    """The run with answers to a reserved set, of which ``skill`` is right."""
    place = write_predictions(world.base / f"reserved-{run.id}.csv", skill, examples)
    made = Artifact("reserved", "system.Dataset", str(place), *digest_path(place))
    train, task = run.tasks
    return replace(
        run, tasks=(train, replace(task, artifacts=task.artifacts | {"reserved": (made,)}))
    )


def test_a_reserved_set_is_opened_only_for_what_passes(world: World) -> None:
    reserve(world)
    first = with_reserved(world, world.run(1, 0.8), 0.8)
    world.promote(first)
    world.approve()
    release = release_at(world)
    assert release is not None
    assert sorted(ref.output for ref in release.predictions) == [
        "evaluate.predictions", "evaluate.reserved",
    ]  # fmt: skip

    same = with_reserved(world, world.run(2, 0.8025), 0.9)
    verdict = world.judge(same)
    assert verdict.decision == "hold"
    assert list(verdict.evaluated) == ["evaluate.predictions"]
    # Chosen for its luck on the first set: the reserved one does not bear it out.
    lucky = with_reserved(world, world.run(3, 0.9), 0.8)
    verdict = world.judge(lucky)
    assert verdict.decision == "hold"
    last = verdict.reasons[-1]
    assert last.rule == "accuracy over champion on evaluate.reserved"
    assert last.text.startswith("not confirmed on evaluate.reserved: accuracy +0.000 over champion")
    worse = with_reserved(world, world.run(4, 0.9025), 0.7)
    verdict = world.judge(worse)
    assert verdict.decision == "reject"
    assert verdict.reasons[-1].text.startswith("refuted on evaluate.reserved")

    better = with_reserved(world, world.run(5, 0.905), 0.89)
    verdict = world.judge(better)
    assert verdict.decision == "promote"
    assert verdict.reasons[-2].text.startswith("confirmed on evaluate.reserved: accuracy +0.090")
    assert "attempt 4 on the evaluation set of evaluate.predictions" in verdict.notes
    assert "evaluate.reserved was opened for the 3rd time" in verdict.notes
    assert world.runner.calls == []
    world.promote(better, verdict=verdict)
    world.approve()
    found = release_at(world)
    assert found is not None
    assert found.run == "r-5"


def _opened(verdict: Verdict) -> str:
    return next((note for note in verdict.notes if " opened " in note), "")


def test_an_opening_counts_though_its_verdict_never_came(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(world)
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    judge = gate.judge

    def dies(**asked: Any) -> Verdict:
        if "evaluate.reserved" in asked["predictions"]:
            raise KeyboardInterrupt
        return judge(**asked)

    with monkeypatch.context() as patch:
        patch.setattr(gate, "judge", dies)
        with pytest.raises(KeyboardInterrupt):
            world.judge(with_reserved(world, world.run(2, 0.9), 0.8))
    verdict = world.judge(with_reserved(world, world.run(3, 0.9025), 0.8))
    assert _opened(verdict) == "evaluate.reserved was opened for the 2nd time"


def test_openings_from_two_clones_add_up_in_git(world: World) -> None:
    reserve(world)
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    here, there = world.looks, FolderLooks(world.base / "other")
    # One is held in the first clone, then proposes; the second clone has seen neither.
    lucky = with_reserved(world, world.run(2, 0.9), 0.8)
    assert world.judge(lucky).decision == "hold"
    world.promote(with_reserved(world, world.run(3, 0.9025), 0.89))
    world.looks = there
    newer = with_reserved(world, world.run(4, 0.905), 0.895)
    verdict = world.judge(newer)
    assert _opened(verdict) == "evaluate.reserved was opened for the 3rd time"
    # Meanwhile the first clone opens it once more; that comes into git with its next proposal.
    world.looks = here
    assert world.judge(with_reserved(world, world.run(5, 0.9075), 0.8)).decision == "hold"
    world.looks = there
    world.promote(newer, verdict=verdict)
    world.looks = here
    last = with_reserved(world, world.run(6, 0.91), 0.898)
    verdict = world.judge(last)
    assert _opened(verdict) == "evaluate.reserved was opened for the 5th time"
    tip = world.promote(last, verdict=verdict).commit
    assert world.promote(last).commit == tip
    text = world.scm.read(tip or "", "deploy/staging/looks.json")
    assert text is not None
    assert sorted(len(models) for models in json.loads(text)["sets"].values()) == [5, 5]


def test_openings_beyond_those_planned_are_a_hold(world: World) -> None:
    over = CONFIG["gate"][1] | {"confirm": "evaluate.reserved", "looks": 1}
    gate = [CONFIG["gate"][0], over]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    world.commit("reserve", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"gate": gate})})
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    verdict = world.judge(with_reserved(world, world.run(2, 0.9), 0.8))
    assert _opened(verdict) == "evaluate.reserved was opened for the 1st time, of 1"
    verdict = world.judge(with_reserved(world, world.run(3, 0.9025), 0.9))
    assert verdict.decision == "hold"
    assert verdict.reasons[-1].text == (
        "not confirmed on evaluate.reserved: opened for the 2nd time, and `looks: 1` allows 1: "
        "reserve new examples"
    )


def test_a_reserved_set_with_examples_that_were_seen_is_refused(world: World) -> None:
    reserve(world)
    verdict = world.judge(with_reserved(world, world.run(1, 0.8), 0.8, examples=400))
    assert verdict.decision == "reject"
    text = "evaluate.reserved shares 400 examples with evaluate.predictions"
    assert verdict.reasons[-1].text.startswith(text)


def test_a_dry_run_leaves_the_reserved_set_closed(world: World) -> None:
    reserve(world)
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    verdict = world.judge(with_reserved(world, world.run(2, 0.9), 0.7), dry_run=True)
    assert verdict.decision == "promote"
    assert "evaluate.reserved was not read: this is a dry run" in verdict.notes


def test_a_run_without_the_reserved_output_is_said_before_it_counts(world: World) -> None:
    reserve(world)
    with pytest.raises(StateError, match="has no output 'reserved'"):
        world.judge(world.run(1, 0.8))


def test_a_second_reserved_set_stays_closed_for_what_the_first_refutes(world: World) -> None:
    reserve(world)
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    over = CONFIG["gate"][1]
    gate = [
        over | {"confirm": "evaluate.reserved"},
        over | {"metric": "error_rate", "confirm": "evaluate.noisy"},
    ]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    verdict = world.judge(with_reserved(world, world.run(2, 0.9), 0.7))
    assert verdict.decision == "reject"
    assert list(verdict.evaluated) == ["evaluate.predictions", "evaluate.reserved"]


# -- what serving costs ----------------------------------------------------------------------------


def ask_costs(world: World, *rules: dict[str, Any], confirm: bool = False) -> None:
    """Rules on costs beside the others."""
    accuracy, over = CONFIG["gate"]
    over = over | ({"confirm": "evaluate.reserved"} if confirm else {})
    gate = [accuracy, over, *rules]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    world.commit("costs", **{"ctflow.yaml": yaml.safe_dump(CONFIG | {"gate": gate})})


P99 = {"metric": "p99_ms", "max": 50}


def test_costs_are_measured_and_shown_with_the_other_reasons(world: World) -> None:
    world.serve(1, 0.8)
    world.pull()
    ask_costs(world, P99, {"metric": "p50_ms", "max": 5}, {"metric": "bytes", "max": 1000})
    run = world.run(2, 0.9)
    # What a run says of itself is not believed.
    run = replace(run, metrics=run.metrics | {"bytes": 2.0, "p50_ms": 1.0, "p99_ms": 0.1})
    world.takes = lambda number: 3.5 if number % 50 == 49 else 1.0
    verdict = world.judge(run)
    assert verdict.decision == "promote"
    assert [one.text for one in verdict.reasons[2:]] == [
        "bytes 3, at most 1,000",
        "golden requests 2/2",
        "p99_ms 3.50 (95% upper limit 3.50, 2,000 requests on this machine), at most 50",
        "p50_ms 1.00 (95% upper limit 1.00, 2,000 requests on this machine), at most 5",
    ]
    assert len(world.tried) == 2  # once for each model
    measured = {"bytes": 3.0, "p50_ms": 1.0, "p99_ms": 3.5}
    assert measured.items() <= verdict.metrics.items()
    assert [note for note in verdict.notes if "reports" in note] == [
        "the run reports bytes 2; the measured value is used",
        "the run reports p99_ms 0.1; the measured value is used",
    ]
    world.promote(run, verdict=verdict)
    report = world.scm.read(
        proposal(world.project, "staging", world.scm).commit, files.path("staging", files.REPORT)
    )
    assert report is not None
    text = report.decode()
    assert "p99_ms 3.50 (95% upper limit 3.50, 2,000 requests on this machine), at most 50" in text
    rows = [line.replace("\\", "") for line in text.splitlines()]
    assert "| p99_ms | 3.5 | - | - | - |" in rows
    assert "| bytes | 3 | 3 | +0 | - |" in rows
    world.approve()
    found = release_at(world)
    assert found is not None
    (kept,) = [one for one in found.verdict.reasons if one.rule == "p99_ms"]
    assert kept.estimate is not None
    assert (kept.estimate.high, kept.estimate.examples) == (3.5, 2000)


def test_a_slow_model_is_not_proposed(world: World) -> None:
    ask_costs(world, P99)
    world.takes = lambda number: 51.0
    run = world.run(1, 0.8)
    verdict = world.judge(run)
    assert verdict.decision == "reject"
    assert verdict.reasons[-1].text == (
        "p99_ms 51.0 (95% lower limit 51.0, 29 requests on this machine), above 50"
    )
    with pytest.raises(GateHeld, match="the gate says reject"):
        world.promote(run, verdict=verdict)
    override = Override("the demo is today", "Ada <ada@example.org>")
    forced = world.judge(run, override=override)
    assert (forced.decision, forced.override) == ("reject", override)
    assert world.promote(run, verdict=forced).state == "open"


def test_a_model_that_is_too_large_is_not_started(world: World) -> None:
    ask_costs(world, P99, {"metric": "bytes", "max": 2})
    verdict = world.judge(world.run(1, 0.8))
    assert verdict.decision == "reject"
    assert verdict.reasons[-1].text == "bytes 3, above 2"
    assert verdict.notes[-1] == "p99_ms was not measured: the model does not pass the other rules"
    assert world.tried == []


def test_nothing_is_timed_that_no_rule_asks_for(world: World) -> None:
    ask_costs(world, {"metric": "bytes", "max": 1000})
    assert world.judge(world.run(1, 0.8)).decision == "promote"
    assert [request.more for request in world.tried] == [None]


def test_a_rule_on_costs_only_lets_nothing_through(world: World) -> None:
    gate = [{"metric": "bytes", "max": 1000}]
    world.project = Project.model_validate(CONFIG | {"gate": gate})
    verdict = world.judge(world.run(1, 0.8))
    assert verdict.decision == "reject"
    assert verdict.reasons[0].text.startswith("no rule of the gate judges the model's answers")
    ask_costs(world, *gate)
    world.project = Project.model_validate(CONFIG | {"gate": [CONFIG["gate"][1], *gate]})
    verdict = world.judge(world.run(2, 0.8))
    assert verdict.decision == "reject"
    assert verdict.reasons[0].text.startswith("no champion yet and no absolute rule")


def test_what_serves_already_is_not_measured_again(world: World) -> None:
    ask_costs(world, P99, {"metric": "bytes", "max": 1000})
    run = world.serve(1, 0.8)
    tried = len(world.tried)
    verdict = world.judge(run)
    assert verdict.serves_already
    assert len(world.tried) == tried


def test_new_serving_code_is_timed_too(world: World) -> None:
    ask_costs(world, P99, {"metric": "bytes", "max": 1000})
    world.serve(1, 0.8)
    world.pull()
    (world.work / "serving" / "predictor.py").write_text("slower\n")
    world.commit("a slower predictor")
    world.takes = lambda number: 80.0
    again = replace(world.run(1, 0.8), id="r-1b", created=2e9, ended=2e9)
    verdict = world.judge(again)
    assert verdict.decision == "reject"
    assert [one.rule for one in verdict.reasons] == ["serving", "bytes", "golden", "p99_ms"]
    assert verdict.metrics["p99_ms"] == 80.0


def test_a_slow_model_does_not_open_the_reserved_set(world: World) -> None:
    ask_costs(world, P99, confirm=True)
    world.promote(with_reserved(world, world.run(1, 0.8), 0.8))
    world.approve()
    world.takes = lambda number: 80.0
    slow = world.judge(with_reserved(world, world.run(2, 0.9), 0.9))
    assert slow.decision == "reject"
    assert list(slow.evaluated) == ["evaluate.predictions"]
    world.takes = lambda number: 8.0
    tried = len(world.tried)
    fast = world.judge(with_reserved(world, world.run(3, 0.9), 0.9))
    assert fast.decision == "promote"
    assert list(fast.evaluated) == ["evaluate.predictions", "evaluate.reserved"]
    assert len(world.tried) == tried + 1


def test_a_model_on_hold_is_not_started(world: World) -> None:
    ask_costs(world, P99)
    world.serve(1, 0.8)
    better = world.run(2, 0.9)
    world.promote(better)
    reject(world.project, "staging", "wrong", scm=world.scm, forge=world.forge, now=2e9)
    tried = len(world.tried)
    verdict = world.judge(better)
    assert verdict.decision == "hold"
    assert verdict.notes[-1] == "p99_ms was not measured: the model does not pass the other rules"
    assert len(world.tried) == tried


def test_what_cannot_be_measured_is_held_and_a_dry_run_says_so(world: World) -> None:
    ask_costs(world, P99)
    run = world.run(1, 0.8)
    assert run.commit is not None
    dirty = replace(run, commit=replace(run.commit, dirty=("pipeline.py",)))
    verdict = world.judge(dirty)
    assert verdict.decision == "hold"
    assert verdict.reasons[-1].text == "p99_ms was not measured: the run's code is in no commit"
    assert world.judge(replace(run, commit=None)).decision == "hold"
    dry = world.judge(run, dry_run=True)
    assert dry.decision == "promote"
    assert "p99_ms was not measured: this is a dry run" in dry.notes
    assert world.tried == []


def test_a_model_that_stops_answering_is_rejected(world: World) -> None:
    ask_costs(world, P99)

    def breaks(request: GoldenRequest, watch: Watch) -> Trial:
        return Trial(world.answers, Timed((1.0,), 0.001, "one: status 500 after 1 timed requests"))

    world.golden = breaks  # type: ignore[method-assign]
    verdict = world.judge(world.run(1, 0.8))
    assert verdict.decision == "reject"
    text = "the model stopped answering: one: status 500 after 1 timed requests"
    assert verdict.reasons[-1].text == text
