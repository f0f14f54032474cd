"""The git adapter on real repositories, with and without a remote."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctflow.errors import OutsideError, StateError
from ctflow.scm.git import GitScm
from ctflow.scm.git_head import read_head


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "master")
    (folder / "a.txt").write_text("a\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("b\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def bare(work: Path, tmp_path: Path) -> Path:
    place = tmp_path / "bare.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "master", str(place))
    git(work, "remote", "add", "origin", str(place))
    git(work, "push", "-q", "origin", "master")
    return place


def scm_of(folder: Path) -> GitScm:
    return GitScm(folder, folder / ".git" / "scratch")


def test_head_names_commit_branch_and_every_kind_of_change(work: Path) -> None:
    sha = git(work, "rev-parse", "HEAD")
    assert read_head(work).sha == sha
    assert read_head(work).branch == "master"
    assert read_head(work).dirty == ()
    (work / "a.txt").write_text("changed\n")
    (work / "new file ü.txt").write_text("new\n")
    git(work, "mv", "sub/b.txt", "sub/c.txt")
    assert sorted(read_head(work).dirty) == ["a.txt", "new file ü.txt", "sub/c.txt"]


def test_head_detached_and_without_commits(work: Path, tmp_path: Path) -> None:
    git(work, "checkout", "-q", "--detach")
    assert read_head(work).branch is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    with pytest.raises(StateError, match="no commit yet"):
        read_head(empty)
    outside = tmp_path / "outside"
    outside.mkdir()
    for ask in (lambda: read_head(outside), scm_of(outside).has_remote):
        with pytest.raises(StateError) as raised:
            ask()
        assert raised.value.message() == (
            f"{outside} is not in a git repository; run `git init` and commit the project"
        )


def test_commit_files_leaves_the_users_work_untouched(work: Path) -> None:
    scm = scm_of(work)
    (work / "a.txt").write_text("staged\n")
    git(work, "add", "a.txt")
    (work / "sub" / "b.txt").write_text("unstaged\n")
    before = git(work, "status", "--porcelain")
    base = scm.tip("master")
    assert base is not None
    made = scm.commit_files(base, {"new/x.txt": b"x\xff", "sub/b.txt": None}, "message\n")
    assert git(work, "status", "--porcelain") == before
    assert scm.tip("master") == base
    assert scm.read(made, "new/x.txt") == b"x\xff"
    assert scm.read(made, "sub/b.txt") is None
    assert scm.read(made, "a.txt") == b"a\n"


def test_commit_files_is_reproducible_and_knows_when_nothing_changes(work: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    one = scm.commit_files(base, {"x": b"1"}, "m", at=1e9)
    assert one == scm.commit_files(base, {"x": b"1"}, "m", at=1e9)
    assert scm.commit_files(base, {"a.txt": b"a\n"}, "m") == base


def test_no_identity_is_said_before_anything_is_written(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME",
                 "GIT_COMMITTER_EMAIL", "EMAIL"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    scm = scm_of(work)
    with pytest.raises(StateError, match=r"git config --global user\.name"):
        scm.commit_files(str(scm.tip("master")), {"x": b"1"}, "m")


def test_move_is_compare_and_swap_without_a_remote(work: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    one = scm.commit_files(base, {"x": b"1"}, "one")
    two = scm.commit_files(base, {"x": b"2"}, "two")
    assert scm.move("topic", one, None)
    assert not scm.move("topic", two, None)
    assert not scm.move("topic", two, base)
    assert scm.branches("top") == {}
    assert scm.branches("topic") == {"topic": one}
    with pytest.raises(StateError, match="does not build on"):
        scm.move("topic", two, one)
    assert scm.move("topic", two, one, force=True)
    assert scm.move("topic", None, two)
    assert scm.tip("topic") is None


def test_moving_the_checked_out_branch_brings_the_work_tree_along(work: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    made = scm.commit_files(base, {"sub/b.txt": b"new\n"}, "m")
    (work / "a.txt").write_text("mine\n")
    assert scm.move("master", made, base)
    assert (work / "sub" / "b.txt").read_text() == "new\n"
    assert (work / "a.txt").read_text() == "mine\n"
    # What would be overwritten is refused, and nothing moves.
    (work / "sub" / "b.txt").write_text("precious\n")
    again = scm.commit_files(made, {"sub/b.txt": b"newer\n"}, "m")
    with pytest.raises(StateError, match="commit or stash"):
        scm.move("master", again, made)
    assert scm.tip("master") == made
    assert (work / "sub" / "b.txt").read_text() == "precious\n"


def test_merge_commit_and_conflict(work: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    ours = scm.commit_files(base, {"ours": b"1", "a.txt": b"ours\n"}, "ours")
    theirs = scm.commit_files(base, {"theirs": b"2"}, "theirs")
    merged = scm.merge_commit(ours, theirs, "Merge\n\nApproved-by: x\n")
    assert scm.read(merged, "theirs") == b"2"
    assert scm.read(merged, "ours") == b"1"
    assert scm.is_ancestor(theirs, merged)
    assert scm.log(merged, ".", 1)[0].parents == (ours, theirs)
    clash = scm.commit_files(base, {"a.txt": b"clash\n"}, "clash")
    with pytest.raises(StateError, match=r"conflict in a\.txt"):
        scm.merge_commit(ours, clash, "no")
    assert len(git(work, "worktree", "list").splitlines()) == 1


def test_with_a_remote_the_remotes_branch_moves_and_the_local_one_follows(
    work: Path, bare: Path
) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    made = scm.commit_files(base, {"x": b"1"}, "m")
    assert scm.move("master", made, base)
    assert git(bare, "rev-parse", "master") == made
    assert git(work, "rev-parse", "HEAD") == made
    assert (work / "x").read_text() == "1"
    # Somebody else pushes: our view is old, so we lose, and see theirs after a fetch.
    theirs = scm.commit_files(made, {"y": b"1"}, "theirs")
    git(work, "push", "-q", str(bare), f"{theirs}:refs/heads/master")
    ours = scm.commit_files(made, {"z": b"1"}, "ours")
    assert not scm.move("master", ours, made)
    scm.fetch()
    assert scm.tip("master") == theirs


def test_a_promotions_branch_lives_on_the_remote_only(work: Path, bare: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    one = scm.commit_files(base, {"x": b"1"}, "one")
    assert scm.move("ctflow/staging/p", one, None)
    assert git(bare, "rev-parse", "ctflow/staging/p") == one
    assert git(work, "branch", "--list", "ctflow/*") == ""
    assert scm.branches("ctflow/") == {"ctflow/staging/p": one}
    assert not scm.move("ctflow/staging/p", base, None, force=True)
    assert scm.move("ctflow/staging/p", None, one)
    assert scm.tip("ctflow/staging/p") is None


def test_an_unreachable_remote_is_an_outside_error(work: Path, tmp_path: Path) -> None:
    git(work, "remote", "add", "origin", str(tmp_path / "gone.git"))
    scm = scm_of(work)
    with pytest.raises(OutsideError, match="git fetch failed"):
        scm.fetch()
    base = str(scm.tip("master"))
    made = scm.commit_files(base, {"x": b"1"}, "m")
    with pytest.raises(OutsideError, match="git push failed"):
        scm.move("master", made, base)


def test_a_remote_that_refuses_is_an_error_and_not_a_lost_race(work: Path, bare: Path) -> None:
    hook = bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'protected here' >&2\nexit 1\n")
    hook.chmod(0o755)
    scm = scm_of(work)
    base = str(scm.tip("master"))
    made = scm.commit_files(base, {"x": b"1"}, "m")
    with pytest.raises(OutsideError, match="git push failed"):
        scm.move("master", made, base)


def test_many_writers_at_once_lose_nothing(work: Path, bare: Path) -> None:
    def write(number: int) -> None:
        clone = work.parent / f"clone{number}"
        git(work.parent, "clone", "-q", str(bare), str(clone))
        scm = scm_of(clone)
        for _ in range(50):
            scm.fetch()
            base = str(scm.tip("master"))
            made = scm.commit_files(base, {f"w{number}": b"x"}, f"writer {number}")
            if scm.move("master", made, base):
                return
        raise AssertionError("never got through")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert {f"w{n}" for n in range(4)} <= set(git(bare, "ls-tree", "--name-only", "master").split())
    assert len(git(bare, "rev-list", "master").splitlines()) == 5


def test_a_project_in_a_folder_of_a_repository(work: Path, tmp_path: Path) -> None:
    scm = GitScm(work / "sub", work / ".git" / "scratch")
    base = str(scm.tip("master"))
    made = scm.commit_files(base, {"deploy/x": b"1", "b.txt": None}, "m")
    assert scm.read(made, "deploy/x") == b"1"
    assert scm.files(made, "deploy").keys() == {"deploy/x"}
    assert git(work, "ls-tree", "-r", "--name-only", made).split() == ["a.txt", "sub/deploy/x"]
    scm.export(made, "deploy", tmp_path / "out")
    assert (tmp_path / "out" / "x").read_text() == "1"


def test_export_and_diff(work: Path, tmp_path: Path) -> None:
    scm = scm_of(work)
    base = str(scm.tip("master"))
    scm.export(base, "sub", tmp_path / "out")
    assert (tmp_path / "out" / "b.txt").read_text() == "b\n"
    with pytest.raises(StateError, match="no folder nothing/"):
        scm.export(base, "nothing", tmp_path / "out2")
    made = scm.commit_files(base, {"sub/b.txt": b"c\n"}, "m")
    assert "-b\n+c" in scm.diff(base, made, "sub")
    assert scm.merge_base(base, made) == base


@pytest.mark.parametrize("remote", [True, False])
def test_a_branch_that_another_work_tree_has_moves_with_its_files(
    work: Path, tmp_path: Path, request: pytest.FixtureRequest, remote: bool
) -> None:
    if remote:
        request.getfixturevalue("bare")
    git(work, "checkout", "-qb", "elsewhere")
    other = tmp_path / "other"
    git(work, "worktree", "add", "-q", str(other), "master")
    scm = scm_of(work)
    old = scm.tip("master")
    assert old is not None
    made = scm.commit_files(old, {"new.txt": b"new\n"}, "new")
    assert scm.move("master", made, old)
    # The next commit there holds what came in.
    (other / "a.txt").write_text("mine\n")
    git(other, "commit", "-qam", "mine")
    assert (other / "new.txt").read_text() == "new\n"
    assert git(other, "show", "HEAD:new.txt") == "new"


def test_a_checked_out_branch_with_changes_in_the_way_does_not_move(
    work: Path, tmp_path: Path
) -> None:
    git(work, "checkout", "-qb", "elsewhere")
    other = tmp_path / "other"
    git(work, "worktree", "add", "-q", str(other), "master")
    (other / "a.txt").write_text("mine\n")
    scm = scm_of(work)
    old = scm.tip("master")
    assert old is not None
    made = scm.commit_files(old, {"a.txt": b"theirs\n"}, "theirs")
    with pytest.raises(StateError, match=f"master is checked out in {other}"):
        scm.move("master", made, old)
    assert (scm.tip("master"), (other / "a.txt").read_text()) == (old, "mine\n")
    # Another history than a checked-out branch's own, and its end, are not forced on it either.
    unrelated = git(work, "commit-tree", "-m", "x", f"{old}^{{tree}}")
    with pytest.raises(StateError, match="switch to another branch there"):
        scm.move("master", unrelated, old, force=True)
    assert scm.move("master", None, old)
    assert scm.tip("master") == old


def test_files_keep_their_modes_and_links(work: Path) -> None:
    (work / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (work / "sub" / "run.sh").chmod(0o755)
    (work / "sub" / "link").symlink_to("b.txt")
    git(work, "add", ".")
    git(work, "commit", "-qm", "kinds")
    scm = scm_of(work)
    tip = scm.tip("master")
    assert tip is not None
    there = scm.files(tip, "sub")
    assert {path: file.mode for path, file in there.items()} == {
        "sub/b.txt": "100644", "sub/link": "120000", "sub/run.sh": "100755"
    }  # fmt: skip
    made = scm.commit_files(tip, {f"copy/{path}": file for path, file in there.items()}, "copy")
    assert scm.files(made, "copy") == {f"copy/{path}": file for path, file in there.items()}
    assert scm.changes(tip, made) == scm.files(made, "copy")
    assert scm.changes(made, tip) == dict.fromkeys(scm.files(made, "copy"))


def test_who_wrote_a_content_is_found_however_it_came(work: Path) -> None:
    scm = scm_of(work)
    first = scm.tip("master")
    assert first is not None
    side = scm.commit_files(first, {"deploy/x": b"one\n"}, "side")
    file = scm.files(side, "deploy")["deploy/x"]
    assert scm.written_by(first, "deploy/x", file) is None
    merged = scm.merge_commit(first, side, "merge")
    squashed = scm.commit_files(first, {"deploy/x": b"one\n", "y": b"y\n"}, "squashed")
    for tip in (merged, squashed):
        later = scm.commit_files(tip, {"deploy/x": b"two\n"}, "later")
        assert scm.written_by(tip, "deploy/x", file) == tip
        assert scm.written_by(later, "deploy/x", file) == tip
        again = scm.commit_files(later, {"deploy/x": b"one\n"}, "again")
        assert scm.written_by(again, "deploy/x", file) == again


def test_a_commit_is_published_when_a_branch_of_the_remote_holds_it(work: Path, bare: Path) -> None:
    scm = scm_of(work)
    scm.fetch()
    assert scm.is_published(git(work, "rev-parse", "HEAD"))
    git(work, "checkout", "-qb", "mine")
    git(work, "commit", "-q", "--allow-empty", "-m", "mine")
    mine = git(work, "rev-parse", "HEAD")
    assert not scm.is_published(mine)
    git(work, "push", "-q", "origin", "mine:ctflow/staging/digits")
    scm.fetch()
    assert not scm.is_published(mine)
    git(work, "push", "-q", "origin", "mine")
    scm.fetch()
    assert scm.is_published(mine)
    git(bare, "branch", "-D", "mine")  # as a squash merge that removes the branch leaves it
    scm.fetch()
    assert not scm.is_published(mine)
    assert not scm.is_published("0" * 40)


def test_any_message_is_read_whole(work: Path) -> None:
    scm = scm_of(work)
    for message in ("one\x1etwo", "three\n\nbody \x1e\x1f\x01 end\n\nmore", "four\x1e"):
        git(work, "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message)
        (work / "a.txt").write_text(message)
        git(work, "add", ".")
        git(work, "commit", "-q", "--cleanup=verbatim", "-m", message)
    entries = scm.log("HEAD", "a.txt")
    assert [entry.subject for entry in entries] == ["four\x1e", "three", "one\x1etwo", "first"]
    assert entries[1].body == "body \x1e\x1f\x01 end\n\nmore"


@pytest.mark.parametrize("target", ["../a.txt", "/etc/hostname", "deeper/../../a.txt"])
def test_a_link_that_leads_out_of_an_exported_folder_is_refused(
    work: Path, tmp_path: Path, target: str
) -> None:
    (work / "sub" / "link").symlink_to(target)
    (work / "sub" / "good").symlink_to("b.txt")
    git(work, "add", ".")
    git(work, "commit", "-qm", "links")
    with pytest.raises(StateError, match="the link sub/link leads out of sub/"):
        scm_of(work).export(git(work, "rev-parse", "HEAD"), "sub", tmp_path / "out")
