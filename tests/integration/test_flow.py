"""The verbs together: stages handed over by file, reviews, overrides, and two calls at once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.projects import TinyProject, git

BRANCH = "ctflow/staging/tiny"


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path)


def merges(project: TinyProject) -> list[str]:
    """The merge commits of master."""
    place = project.bare if project.bare.is_dir() else project.folder
    return git(place, "rev-list", "--merges", "master").split()


def one_commit_ahead(project: TinyProject) -> bool:
    """Whether the proposal is one commit on master's tip."""
    return git(project.bare, "rev-list", f"master..{BRANCH}").count("\n") == 0 and (
        git(project.bare, "merge-base", "master", BRANCH) == project.tip()
    )


# -- from machine to machine ----------------------------------------------------------------------


def test_each_stage_goes_on_from_the_file_of_the_one_before(project: TinyProject) -> None:
    files = project.base / "files"
    files.mkdir()

    def handed(at: TinyProject, verb: str, *given: str) -> dict[str, Any]:
        words = [word for name in given for word in ("--from", str(files / f"{name}.json"))]
        done = at.json(verb, *words)
        (files / f"{verb}.json").write_text(json.dumps(done))
        return dict(done)

    handed(project, "build")
    package = handed(project, "compile", "build")
    run = handed(project, "run", "compile")
    assert run["package"] == package["digest"]
    assert run["commit"]["sha"] == project.tip()
    # Another machine: another clone, the state at another place, the first one gone.
    state = project.base / "elsewhere" / "state"
    shutil.copytree(project.state, state)
    shutil.rmtree(project.folder)
    other = project.clone("other", state=state)
    verdict = handed(other, "gate", "run")
    assert verdict["decision"] == "promote"
    promotion = handed(other, "promote", "run", "gate")
    assert (promotion["state"], promotion["changed"]) == ("open", True)
    assert promotion["commit"] == project.tip(BRANCH)
    again = handed(other, "promote", "run", "gate")
    assert (again["commit"], again["changed"]) == (promotion["commit"], False)
    # ct takes each of them too.
    done = other.json("ct", "--from", str(files / "run.json"), "--from", str(files / "gate.json"))
    assert done["promotion"]["commit"] == promotion["commit"]
    (release,) = other.json("promotions", "list")
    assert release["run"] == run["id"]


def test_a_run_whose_tasks_came_from_the_cache_can_be_handed_over(project: TinyProject) -> None:
    first = project.json("run")
    run = project.json("run")
    assert {task["state"] for task in run["tasks"]} == {"cached"}
    (project.base / "run.json").write_text(json.dumps(run))
    state = project.base / "elsewhere" / "state"
    shutil.copytree(project.state, state)
    shutil.rmtree(project.folder)
    other = project.clone("other", state=state)
    assert first["id"] != run["id"]
    verdict = other.json("gate", "--from", str(project.base / "run.json"))
    assert verdict["decision"] == "promote"


def test_ct_tells_of_every_first_environment(project: TinyProject) -> None:
    project.edit("ctflow.yaml", "  staging: {}\n", "  staging: {}\n  canary: {}\n")
    project.commit("two first environments")
    project.push()
    done = project.json("ct")
    assert list(done["verdicts"]) == list(done["promotions"]) == ["staging", "canary"]
    for name in ("staging", "canary"):
        assert done["verdicts"][name]["environment"] == name
        assert done["promotions"][name]["branch"] == f"ctflow/{name}/tiny"


def test_one_environment_that_cannot_be_deployed_stops_no_other(project: TinyProject) -> None:
    project.edit("ctflow.yaml", "  staging: {}\n", "  staging: {}\n  canary: {}\n")
    project.commit("two first environments")
    project.push()
    project.ok("ct")
    project.approve("staging")
    project.approve("canary")
    git(project.folder, "pull", "-q", "--rebase", "origin", "master")
    # As somebody may break it by hand.
    project.write("deploy/staging/release.yaml", "kind: release\nversion: 99\n")
    project.commit("broken")
    project.push()
    done = project.call("deploy")
    try:
        assert done.returncode == 2
        assert "canary   " in done.stdout
        assert "golden 1/1" in done.stdout
        assert "staging   not deployed: deploy/staging/release.yaml has layout 99" in done.stdout
    finally:
        project.ok("deploy", "canary", "--stop")


def test_a_renamed_project_keeps_its_public_name(project: TinyProject) -> None:
    project.ok("ct")
    project.approve()
    git(project.folder, "pull", "-q", "--rebase", "origin", "master")
    project.edit("ctflow.yaml", "project: tiny", "project: small")
    project.commit("rename")
    project.push()
    try:
        done = project.call("deploy", "staging")
        assert done.returncode == 0, done.stderr
        assert "staging serves under the name tiny, as its manifest says" in done.stdout
        (status, _) = project.json("status")
        assert status["deployment"]["project"] == "tiny"
    finally:
        project.ok("deploy", "staging", "--stop")


def test_a_verdict_on_another_run_is_refused(project: TinyProject, tmp_path: Path) -> None:
    project.ok("run")
    verdict = project.json("gate")
    other = project.json("run", "-p", "skill=0.9")
    for name, document in (("verdict", verdict), ("run", other)):
        (tmp_path / name).write_text(json.dumps(document))
    given = ["--from", str(tmp_path / "verdict"), "--from", str(tmp_path / "run")]
    line = project.fails(2, "promote", *given)
    assert line == f"the verdict is about run {verdict['run']}, not {other['id']}"
    verdict["environment"] = "nowhere"
    (tmp_path / "verdict").write_text(json.dumps(verdict))
    line = project.fails(2, "promote", "--from", str(tmp_path / "verdict"))
    assert line == "there is no environment 'nowhere'; environments: staging, production"


def test_a_failed_verdict_by_file_is_still_no(project: TinyProject, tmp_path: Path) -> None:
    project.ok("run", "-p", "skill=0.3")
    (tmp_path / "verdict").write_text(json.dumps(project.json("gate", code=3)))
    assert "the gate says reject" in project.fails(
        3, "promote", "--from", str(tmp_path / "verdict")
    )
    assert project.tip(BRANCH) is None


# -- review ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("remote", [True, False])
def test_merge_auto_merges_what_the_gate_lets_through(tmp_path: Path, remote: bool) -> None:
    project = TinyProject(tmp_path, remote=remote)
    project.edit("ctflow.yaml", "staging: {}", "staging: {merge: auto}")
    project.commit("merge: auto")
    if remote:
        project.push()
    done = project.json("ct")
    assert done["promotion"]["state"] == "merged"
    assert merges(project) == [project.tip()] == [done["promotion"]["commit"]]
    assert project.tip(BRANCH) is None
    assert project.json("why", "staging")["approved_by"] == "ctflow (merge: auto)"
    # The same model again: nothing to do, and no failure; unless a script wants to know.
    assert "this model already serves" in project.ok("ct")
    assert project.call("ct", "--exit-code").returncode == 6
    assert project.call("ct", "-p", "skill=0.6").returncode == 3
    assert len(merges(project)) == 1


def test_an_override_waits_for_a_person_and_shows_who_and_why(project: TinyProject) -> None:
    project.edit("ctflow.yaml", "staging: {}", "staging: {merge: auto}")
    project.commit("merge: auto")
    project.push()
    project.ok("ct", "-p", "skill=0.9")
    reason = "the demo is today | <script>"
    words = ["ct", "-p", "skill=0.7", "--override", "--reason", reason]
    done = project.call(*words)
    assert done.returncode == 0, done.stderr
    assert f"OVERRIDDEN by Ada Lovelace <ada@example.org>: {reason}" in done.stdout
    assert len(merges(project)) == 1  # it passed no gate, so it is not merged by itself
    shown = project.json("promotions", "show", "staging")
    assert shown["release"]["verdict"]["override"] == {
        "reason": reason, "by": "Ada Lovelace <ada@example.org>"
    }  # fmt: skip
    assert reason in project.ok("promotions", "show", "staging")
    report = project.ok("promotions", "show", "staging", "--markdown")
    assert "[!CAUTION]" in report
    assert "<script>" not in report
    project.approve()
    assert "the demo is today" in project.ok("why", "staging")


def test_reject_why_and_status(project: TinyProject) -> None:
    first = project.json("ct")
    project.ok("promotions", "reject", "staging", "--reason", "biased \x1b[31m against 7")
    assert project.tip(BRANCH) is None
    again = project.call("promote")
    assert again.returncode == 3
    assert "on hold" in again.stdout
    assert "biased" in again.stdout
    assert "\x1b" not in again.stdout + again.stderr
    assert project.json("promotions", "list") == []
    better = project.json("ct", "-p", "skill=0.9")
    (staging, production) = project.json("status")
    assert staging["deployment"]["state"] == "absent"
    assert better["run"]["id"] in staging["proposed"]
    assert [hold["digest"] for hold in staging["holds"]] == [first["promotion"]["model"]]
    assert "\x1b" not in project.ok("status")
    assert production["run"] == ""
    project.approve()
    answer = project.json("why", "staging")
    assert answer["release"]["run"] == better["run"]["id"]
    assert answer["approved_by"] == "Ada Lovelace <ada@example.org>"
    assert answer["release"]["commit"] == better["run"]["commit"]["sha"]
    # Held for staging only; production takes what staging has.
    assert "promote it to staging first" in project.fails(
        2, "promote", first["run"]["id"], "--to", "production"
    )
    project.ok("promote", better["run"]["id"], "--to", "production")
    assert project.tip("ctflow/production/tiny")


def test_ct_in_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    project = TinyProject(tmp_path, remote=False)
    inner = project.folder / "models" / "tiny"
    inner.mkdir(parents=True)
    for name in ("ctflow.yaml", "pipeline.py", "steps", "serving", ".gitignore"):
        (project.folder / name).rename(inner / name)
    shutil.rmtree(project.state)
    project.commit("move")
    whole, project.folder = project.folder, inner
    project.ok("ct")
    project.approve()
    assert (inner / "deploy" / "staging" / "release.yaml").is_file()
    assert not (whole / "deploy").exists()
    assert git(whole, "status", "--porcelain") == ""


# -- at the same time -----------------------------------------------------------------------------


def together(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Each process's exit code and what it said."""
    found = []
    for process in processes:
        with process:
            out, err = process.communicate(timeout=120)
        found.append((process.returncode, out + err))
    return found


@pytest.mark.parametrize("remote", [True, False])
def test_two_promotes_of_one_run_at_once(tmp_path: Path, remote: bool) -> None:
    project = TinyProject(tmp_path, remote=remote)
    run = project.json("run")
    words = ["promote", run["id"], "--json"]
    results = together(*(project.start(*words) for _ in range(3)))
    assert [code for code, _ in results] == [0, 0, 0], results
    first = json.JSONDecoder().raw_decode  # notes follow it, on standard error
    commits = {first(text)[0]["commit"] for _, text in results}
    assert commits == {project.tip(BRANCH)}
    words = ["promotions", "approve", "staging", project.proposed(), "--json"]
    results = together(*(project.start(*words) for _ in range(2)))
    assert len(merges(project)) == 1
    assert [code for code, _ in results] == [0, 0], results
    assert "Traceback" not in str(results)


def test_two_ct_at_once_end_in_one_proposal(project: TinyProject) -> None:
    results = together(*(project.start("ct", "--json") for _ in range(2)))
    assert "Traceback" not in str(results)
    codes = [code for code, _ in results]
    # The older run gives way to the newer one, and says so.
    assert 0 in codes, results
    assert all("a newer run" in text for code, text in results if code), results
    assert len(project.json("runs", "list")) == 2
    assert [one["state"] for one in project.json("runs", "list")] == ["succeeded"] * 2
    assert one_commit_ahead(project)


def test_promoting_while_somebody_pushes(project: TinyProject) -> None:
    run = project.json("run")
    other = project.clone("other")
    process = project.start("promote", run["id"], "--json")
    for number in range(6):
        other.write("notes.txt", f"{number}\n")
        other.commit(f"note {number}")
        other.push()
    ((code, text),) = together(process)
    assert code == 0, text
    assert git(project.bare, "show", "master:notes.txt") == "5"  # nobody's push was undone
    project.ok("promote", run["id"])
    assert one_commit_ahead(project)
    process = project.start("promotions", "approve", "staging", project.proposed(), "--json")
    for number in range(6, 9):
        other.write("notes.txt", f"{number}\n")
        other.commit(f"note {number}")
        pushed = subprocess.run(
            ["git", "push", "-q", "origin", "master"], cwd=other.folder, capture_output=True
        )
        if pushed.returncode:  # the approval was first: as a person would
            git(other.folder, "pull", "-q", "--rebase", "origin", "master")
            git(other.folder, "push", "-q", "origin", "master")
    ((code, text),) = together(process)
    assert code == 0, text
    assert git(project.bare, "show", "master:notes.txt") == "8"
    assert len(merges(project)) == 1
    assert git(project.bare, "show", "master:deploy/staging/release.yaml")


# -- before any training --------------------------------------------------------------------------


def test_a_plan_says_what_the_evaluation_set_can_show(project: TinyProject) -> None:
    line = project.fails(2, "gate", "--plan")
    assert line.startswith("staging has no champion on master yet; promote a first model")
    assert project.fails(2, "gate", "r-1234", "--plan").startswith("--plan takes no run")
    asked = project.fails(2, "gate", "--plan", "--override", "--reason", "late")
    assert asked.startswith("--plan takes no run")
    assert "leave out --to" in project.fails(2, "gate", "--plan", "staging", "--to", "staging")
    project.ok("ct")
    project.approve()
    plan = project.json("gate", "--plan", "staging")
    assert plan == project.json("gate", "--plan")
    (rule,) = plan["rules"]
    assert (rule["value"], rule["examples"], rule["gains"]) == (0.8, 400, [0.005, 0.01, 0.02])
    assert [one["text"] for one in rule["assumed"]] == [
        "differ on 5% (a guess)", "differ on 10% (a guess)",
    ]  # fmt: skip
    # The next champion's own verdict saw how often two models differ: on 40 of 400.
    project.ok("ct", "-p", "skill=0.9")
    project.approve()
    (rule,) = project.json("gate", "--plan")["rules"]
    (assumed,) = rule["assumed"]
    assert assumed["text"] == "differ on 10% (as last time)"
    shown = project.ok("gate", "--plan")
    assert "accuracy over champion, evaluate.predictions" in shown
    assert "champion 0.900 on 400 examples, so 0.100 is left to gain; 95% confidence" in shown
    row = next(line for line in shown.splitlines() if "as last time" in line)
    assert row.split()[6:] == ["0.045", "32,000", "8,000", "2,100"]
    # By the rules as they are said here; and nothing was put on record.
    by = "gate=[{metric: accuracy, over: champion, by: ink, predictions: evaluate.predictions}]"
    assert "nothing can be said: gate: the predictions have no column 'ink'" in project.ok(
        "gate", "--plan", "--set", by
    )
    assert "attempt" not in project.call("gate").stdout
    bare = "gate=[{metric: accuracy, min: 0.5}]"
    assert "nothing to plan" in project.fails(2, "gate", "--plan", "--set", bare)
    (project.state / "models").rename(project.base / "gone")
    assert "they are not in the store here" in project.ok("gate", "--plan")


# -- what serving costs ----------------------------------------------------------------------------


def test_a_slow_model_is_rejected_and_a_fast_one_proposed(project: TinyProject) -> None:
    ruled = "  - {metric: p99_ms, max: 300}\n  - {metric: bytes, max: 1_000}\nenvironments:"
    project.edit("ctflow.yaml", "environments:", ruled)
    project.edit("serving/predictor.py", "return {", "self.wait()\n        return {")
    wait = """
    def wait(self):
        if self.skill > 0.85:
            time.sleep(0.4)
"""
    project.write(
        "serving/predictor.py",
        "import time\n" + (project.folder / "serving/predictor.py").read_text() + wait,
    )
    project.commit("rules on costs")
    project.push()
    done = project.ok("ct")
    fast = next(line for line in done.splitlines() if "p99_ms" in line)
    # On a busy machine slow answers come together, and it says so.
    assert re.search(r"requests on this machine(, counted as [\d,]+ as .*)?\), at most 300", fast)
    assert "bytes 3, at most 1,000" in done
    project.approve()
    shown = project.ok("why", "staging")
    assert fast.partition("p99_ms")[2] in shown
    plan = project.ok("gate", "--plan")
    assert "measured when a model is judged, not planned: p99_ms, bytes" in plan
    slow = project.call("ct", "-p", "skill=0.9")
    assert slow.returncode == 3, slow.stderr
    (line,) = [line for line in slow.stdout.splitlines() if "p99_ms" in line]
    assert "29 requests on this machine), above 300" in line
    assert project.proposed() == "none"
    large = project.call("ct", "-p", "skill=0.9", "-p", "size=2000")
    assert large.returncode == 3
    assert "bytes 2,003, above 1,000" in large.stdout
    assert "p99_ms was not measured: the model does not pass the other rules" in large.stdout


# -- a team's models ------------------------------------------------------------------------------


def test_a_clone_without_the_champion_says_so_first_and_can_get_it(project: TinyProject) -> None:
    project.ok("ct")
    project.approve()
    other = project.clone("other")
    for verb in ("ct", "promote"):
        line = other.fails(2, verb)
        assert "the model store here lacks staging's model" in line
        assert "`ctflow store pull STORE`" in line
    assert other.json("runs", "list") == []  # before the training
    shared = project.base / "shared"
    line = other.fails(5, "store", "pull", str(shared))
    assert "1 of 1 models are in neither store" in line
    assert "copied" in project.ok("store", "push", str(shared))
    assert "there" in project.ok("store", "push", str(shared))
    (got,) = other.json("store", "pull", str(shared))
    assert (got["environment"], got["state"]) == ("staging", "copied")
    # With the champion's predictions: it is not scored again.
    done = other.call("ct", "-p", "skill=0.9")
    assert done.returncode == 0, done.stderr
    assert "scoring the champion" not in done.stdout
    # Another place for the store orphans nothing: a release names its model by digest.
    (other.state / "models").rename(project.base / "moved")
    moved = f"store.models={project.base / 'moved'}"
    assert "+0.100 over champion" in other.ok("gate", "--set", moved)
