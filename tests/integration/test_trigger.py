"""The trigger: what a push to a bare repository on this machine starts, and what it does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from ctflow.agent.local_trigger import LocalTrigger, _kinds
from tests.projects import TinyProject, git

#: Seconds in which a job that needs none of them starts or ends.
PATIENCE = 60.0
HOOK = "hooks/post-receive"


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[TinyProject]:
    project = TinyProject(tmp_path)
    yield project
    end(project)


def end(project: TinyProject) -> None:
    """End what the hook started for this project."""
    for process in ours(project):
        try:
            process.kill()
            process.wait(PATIENCE)
        except psutil.NoSuchProcess:
            continue


def ours(project: TinyProject) -> list[psutil.Process]:
    """The living ctflow processes and steps of this project."""
    mark = str(project.base)
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and mark in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none where it has ended since it was found."""
    try:
        words: list[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
    return words


def until(what: Callable[[], Any]) -> Any:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
    return found


def jobs(project: TinyProject) -> list[dict[str, Any]]:
    """The jobs, read as files: asking the verb would start a worker."""
    places = sorted((project.state / "trigger" / "jobs").glob("[0-9]*.json"))
    return [json.loads(place.read_text()) for place in places]


def change(project: TinyProject, text: str, path: str = "notes.txt") -> str:
    """Commit something; the commit."""
    project.write(path, text)
    return project.commit(text)


def waits_for(project: TinyProject, file: Path) -> None:
    """Have the training wait for that file."""
    project.edit("ctflow.yaml", "fault: ''", f"fault: 'wait:{file}'")


# -- installing -----------------------------------------------------------------------------------


def test_a_hook_of_somebody_else_is_not_touched(project: TinyProject) -> None:
    hook = project.bare / HOOK
    hook.write_text("#!/bin/sh\necho mine\n")
    line = project.fails(2, "trigger", "install")
    assert f"{hook} exists, and ctflow did not write it; add this line to it: CTFLOW_STATE=" in line
    line = project.fails(2, "trigger", "uninstall")
    assert "does not start this project; nothing was removed" in line
    assert hook.read_text() == "#!/bin/sh\necho mine\n"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://git.example.org/acme/tiny.git", "is not a bare repository on this machine"),
        ("git@git.example.org:acme/tiny.git", "is not a bare repository on this machine"),
        ("../nowhere.git", "is not a bare repository on this machine"),
        (".", "is not a bare repository on this machine"),
        (None, "the project has no remote 'origin'; make one: `git init --bare"),
    ],
)
def test_only_a_bare_repository_here_can_have_it(
    project: TinyProject, url: str | None, says: str
) -> None:
    if url is None:
        git(project.folder, "remote", "remove", "origin")
    else:
        git(project.folder, "remote", "set-url", "origin", url)
    assert says in project.fails(2, "trigger", "install")
    assert not (project.folder / "hooks").exists()
    assert not (project.folder / ".git" / HOOK).exists()


def test_installed_twice_it_is_there_once_and_can_be_removed(project: TinyProject) -> None:
    hook = project.bare / HOOK
    assert str(hook) in project.ok("trigger", "install")
    first = hook.read_text()
    project.ok("trigger", "install")
    assert hook.read_text() == first
    project.ok("trigger", "uninstall")
    assert not hook.exists()
    assert project.push() == ""
    change(project, "after")
    project.push()
    assert jobs(project) == []


def test_another_clone_does_not_take_the_hook_over_without_a_word(
    project: TinyProject, tmp_path: Path
) -> None:
    project.ok("trigger", "install")
    before = (project.bare / HOOK).read_text()
    other = project.clone("other")
    line = other.fails(2, "trigger", "install")
    assert f"already start ctflow in {project.folder}" in line
    assert "replace the hook with --replace" in line
    assert (project.bare / HOOK).read_text() == before
    assert "does not start this project" in other.fails(2, "trigger", "uninstall")
    other.ok("trigger", "install", "--replace")
    text = (project.bare / HOOK).read_text()
    assert str(other.folder) in text
    assert str(project.folder) not in text.replace(str(other.folder), "")


def test_projects_of_one_repository_share_the_hook(project: TinyProject) -> None:
    for name in ("a", "b"):
        shutil.copytree(
            project.folder, project.folder / name,
            ignore=shutil.ignore_patterns(".git", ".ctflow", "a", "b"),
        )  # fmt: skip
        text = (project.folder / name / "ctflow.yaml").read_text()
        project.write(f"{name}/ctflow.yaml", text.replace("project: tiny", f"project: {name}"))
    project.commit("two projects")
    project.push()
    whole = project.folder
    projects = []
    for name in ("a", "b"):
        one = TinyProject.__new__(TinyProject)
        one.base, one.folder, one.bare, one.env = project.base, whole / name, project.bare, {}
        one.ok("trigger", "install")
        projects.append(one)
    change(project, "for both")
    said = project.push()
    assert said.count("is in the queue") == 2
    for one in projects:
        assert f"in {one.folder}" in said
        assert "on branch ctflow/staging/" in one.ok("trigger", "logs")
    projects[0].ok("trigger", "uninstall")
    assert str(projects[0].folder) not in (project.bare / HOOK).read_text()
    assert str(projects[1].folder) in (project.bare / HOOK).read_text()


def test_the_remote_that_was_named_is_the_one_that_is_cloned(project: TinyProject) -> None:
    git(project.base, "clone", "-q", "--bare", str(project.bare), "hub.git")
    git(project.folder, "remote", "add", "hub", str(project.base / "hub.git"))
    project.ok("trigger", "install", "--remote", "hub")
    commit = change(project, "only there")
    git(project.folder, "push", "-q", "hub", "master")
    assert "on branch ctflow/staging/tiny" in project.ok("trigger", "logs")
    assert git(project.state / "trigger" / "clone", "rev-parse", "HEAD") == commit
    hub = project.base / "hub.git"
    assert git(hub, "rev-parse", "--verify", "refs/heads/ctflow/staging/tiny")
    assert project.tip("ctflow/staging/tiny") is None


# -- pushing --------------------------------------------------------------------------------------


def test_a_push_trains_that_commit_in_a_clone_of_its_own(project: TinyProject) -> None:
    project.ok("trigger", "install")
    commit = change(project, "one")
    project.write("steps/train/main.py", "syntax error")  # uncommitted: none of the job's business
    said = project.push()
    assert f"job 1 (ct of {commit[:10]}) is in the queue" in said
    log = project.ok("trigger", "logs")
    assert "on branch ctflow/staging/tiny" in log
    (job,) = project.json("trigger", "status")
    assert (job["kind"], job["commit"], job["state"], job["code"]) == ("ct", commit, "done", 0)
    (run,) = project.json("runs", "list")
    assert run["commit"]["sha"] == commit
    assert project.tip("ctflow/staging/tiny")
    assert git(project.state / "trigger" / "clone", "rev-parse", "HEAD") == commit


def test_logs_give_the_jobs_exit_code(project: TinyProject) -> None:
    project.ok("trigger", "install")
    for text, code, says in (
        ("skill: 0.3", 3, "reject"),
        ("skill: 0.8, fault: exit", 4, "the data is upside down"),
        ("skil: 0.8", 2, "did you mean 'skill'"),
    ):
        project.write(
            "ctflow.yaml",
            "project: tiny\npipeline: pipeline.py:tiny\n"
            f"parameters: {{{text}}}\ngate: [{{metric: accuracy, min: 0.5}}]\n",
        )
        project.commit(text)
        project.push()
        done = project.call("trigger", "logs")
        assert done.returncode == code, done.stdout
        assert says in done.stdout
    assert project.call("trigger", "logs", "1").returncode == 3
    assert [job["code"] for job in jobs(project)] == [3, 4, 2]


def test_of_two_pushes_during_a_job_only_the_newer_counts(
    project: TinyProject, tmp_path: Path
) -> None:
    project.ok("trigger", "install")
    go = tmp_path / "go"
    waits_for(project, go)
    first = project.commit("first")
    project.push()
    until(lambda: [job["state"] for job in jobs(project)] == ["running"])
    change(project, "second")
    project.push()
    third = change(project, "third")
    project.push()
    assert [job["state"] for job in jobs(project)] == ["running", "superseded", "waiting"]
    done = project.call("trigger", "logs", "2")
    assert (done.returncode, done.stdout) == (0, "job 2 was replaced by a job of a newer push\n")
    go.touch()
    project.ok("trigger", "logs", "3")
    assert [job["state"] for job in jobs(project)] == ["done", "superseded", "done"]
    assert [run["commit"]["sha"] for run in project.json("runs", "list")] == [third, first]


def test_a_push_below_deploy_deploys_and_trains_not(project: TinyProject) -> None:
    project.ok("trigger", "install")
    change(project, "by hand", "deploy/staging/extra.yaml")
    project.push()
    done = project.call("trigger", "logs")
    # Nothing was promoted, so there is nothing to deploy.
    assert done.returncode == 0, done.stdout
    assert [job["kind"] for job in jobs(project)] == ["deploy"]
    project.write("deploy/staging/extra.yaml", "again")
    change(project, "both")
    project.push()
    project.ok("trigger", "logs")
    assert sorted(job["kind"] for job in jobs(project)) == ["ct", "deploy", "deploy"]
    assert {job["state"] for job in jobs(project)} == {"done"}


def test_other_branches_and_deletions_start_nothing(project: TinyProject) -> None:
    project.ok("trigger", "install")
    git(project.folder, "push", "-q", "origin", "master:topic")
    git(project.folder, "push", "-q", "origin", ":topic")
    assert jobs(project) == []


def test_a_step_called_deploy_is_no_deployment(project: TinyProject) -> None:
    project.ok("trigger", "install")
    change(project, "helper", "steps/train/deploy/helper.txt")
    project.push()
    project.ok("trigger", "logs")
    assert [job["kind"] for job in jobs(project)] == ["ct"]


def test_a_hook_that_fails_does_not_fail_the_push(project: TinyProject) -> None:
    project.ok("trigger", "install")
    (project.state / "trigger").write_text("in the way")
    commit = change(project, "one")
    said = project.push()
    assert "the push did not start a job" in said
    assert "Traceback" not in said
    assert project.tip() == commit
    (project.state / "trigger").unlink()
    project.folder.rename(project.base / "moved")
    moved = TinyProject.__new__(TinyProject)
    moved.base, moved.folder, moved.bare, moved.env = (
        project.base, project.base / "moved", project.bare, {},
    )  # fmt: skip
    commit = change(moved, "two")
    assert "the push did not start a job" in moved.push()
    assert project.tip() == commit


def test_a_worker_that_was_killed_leaves_its_job_to_the_next(
    project: TinyProject, tmp_path: Path
) -> None:
    project.ok("trigger", "install")
    go = tmp_path / "go"
    waits_for(project, go)
    commit = project.commit("first")
    project.push()
    step = until(lambda: [one for one in ours(project) if "main.py" in " ".join(words_of(one))])
    for process in ours(project):
        if "trigger" in words_of(process):
            process.send_signal(signal.SIGKILL)
    # ct goes on in the clone by itself: the next worker leaves it in peace until it ends.
    assert [job["state"] for job in project.json("trigger", "status")] == ["running"]
    assert len([one for one in ours(project) if "main.py" in " ".join(words_of(one))]) == 1
    go.touch()
    project.ok("trigger", "logs")
    (job,) = jobs(project)
    assert (job["state"], job["code"], job["commit"]) == ("done", 0, commit)
    psutil.wait_procs(step, PATIENCE)
    assert project.tip("ctflow/staging/tiny")
    until(lambda: not ours(project))


def test_a_worker_that_is_asked_to_end_ends_its_job(project: TinyProject, tmp_path: Path) -> None:
    waits_for(project, tmp_path / "go")
    project.commit("first")
    project.ok("trigger", "install")
    change(project, "second")
    project.push()
    until(lambda: [one for one in ours(project) if "main.py" in " ".join(words_of(one))])
    (worker,) = (
        one for one in ours(project) if "trigger" in words_of(one) and "work" in words_of(one)
    )
    worker.terminate()
    until(lambda: not ours(project))
    (tmp_path / "go").touch()
    project.ok("trigger", "logs")
    assert [job["state"] for job in jobs(project)] == ["done"]
    assert [run["state"] for run in project.json("runs", "list")] == ["succeeded", "canceled"]


def test_folders_with_spaces_and_quotes(tmp_path: Path) -> None:
    base = tmp_path / 'it\'s "mine" $HOME; é'
    base.mkdir()
    project = TinyProject(base, "ti ny")
    try:
        project.ok("trigger", "install")
        commit = change(project, "one")
        project.push()
        assert "on branch ctflow/staging/" in project.ok("trigger", "logs")
        assert project.json("runs", "list")[0]["commit"]["sha"] == commit
        # A relative URL, and one with a scheme, name the same place.
        for url in (f"../{project.bare.name}", f"file://{project.bare}"):
            git(project.folder, "remote", "set-url", "origin", url)
            assert str(project.bare / HOOK) in project.ok("trigger", "install")
        change(project, "two", "deploy/note.txt")
        project.push()
        project.ok("trigger", "logs")
    finally:
        end(project)


def test_a_project_in_a_folder_of_its_repository(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    whole, inner = project.folder, project.folder / "models" / "tiny"
    inner.mkdir(parents=True)
    for name in ("ctflow.yaml", "pipeline.py", "steps", "serving", ".gitignore", ".ctflow"):
        (whole / name).rename(inner / name)
    project.commit("move")
    project.folder = inner
    try:
        project.ok("trigger", "install")
        (whole / "deploy").mkdir()
        (whole / "deploy" / "other.txt").write_text("another project's")
        git(whole, "add", "-A")
        git(whole, "commit", "-qm", "elsewhere")
        project.push()
        project.ok("trigger", "logs")
        assert [job["kind"] for job in jobs(project)] == ["ct"]
        change(project, "ours", "deploy/staging/extra.yaml")
        project.push()
        project.ok("trigger", "logs")
        assert [job["kind"] for job in jobs(project)] == ["ct", "deploy"]
    finally:
        end(project)


def test_a_forced_push_trains_what_is_there_now(project: TinyProject) -> None:
    project.ok("trigger", "install")
    change(project, "one")
    project.push()
    project.ok("trigger", "logs")
    git(project.folder, "commit", "-q", "--amend", "-m", "another one")
    done = subprocess.run(
        ["git", "push", "-q", "--force", "origin", "master"], cwd=project.folder, check=False
    )
    assert done.returncode == 0
    project.ok("trigger", "logs")
    assert jobs(project)[-1]["commit"] == git(project.folder, "rev-parse", "HEAD")


# -- what a plain checkout leaves out -------------------------------------------------------------


def test_a_deleted_branch_of_either_hash_starts_nothing(tmp_path: Path) -> None:
    for kind in ("sha1", "sha256"):
        bare = tmp_path / f"{kind}.git"
        git(tmp_path, "init", "-q", "--bare", "-b", "master", f"--object-format={kind}", str(bare))
        work = tmp_path / kind
        git(tmp_path, "init", "-q", "-b", "master", f"--object-format={kind}", str(work))
        (work / "ctflow.yaml").write_text("project: tiny\n")
        git(work, "add", ".")
        git(work, "commit", "-qm", "first")
        git(work, "remote", "add", "origin", str(bare))
        trigger = LocalTrigger(work, work / ".ctflow", "master")
        head = git(work, "rev-parse", "HEAD")
        zero = "0" * len(head)
        assert trigger.receive(bare, [f"{head} {zero} refs/heads/master"]) == []
        assert _kinds(bare, zero, head, "deploy/") == ["ct"]


def test_submodules_come_along_or_it_is_said(
    project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    git(tmp_path, "init", "-q", "-b", "master", str(library))
    (library / "x.py").write_text("X = 1\n")
    git(library, "add", ".")
    git(library, "commit", "-qm", "library")
    allow = ("-c", "protocol.file.allow=always")
    git(project.folder, *allow, "submodule", "--quiet", "add", str(library), "steps/train/library")
    project.commit("with a submodule")
    project.ok("trigger", "install")
    # git itself does not take submodules from folders unless the user says so.
    project.push()
    log = project.call("trigger", "logs").stdout
    assert "submodules are not fetched, their folders are empty (git submodule failed: " in log
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[user]\n  name = Ada Lovelace\n  email = ada@example.org\n"
        '[protocol "file"]\n  allow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    change(project, "again")
    project.push()
    assert "submodules" not in project.ok("trigger", "logs")
    clone = project.state / "trigger" / "clone"
    assert (clone / "steps/train/library/x.py").read_text() == "X = 1\n"


def test_files_in_git_lfs_that_are_not_fetched_are_said(project: TinyProject) -> None:
    project.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    project.commit("large files")
    project.ok("trigger", "install")
    change(project, "one")
    project.push()
    log = project.call("trigger", "logs").stdout
    fetched = shutil.which("git-lfs") is not None
    assert ("files in Git LFS are not fetched, only their pointers are" in log) is not fetched
