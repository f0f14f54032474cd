"""The contract of the ``Scm`` port, as the stages use it.

Each case runs in a repository without a remote, in a clone, in a linked work tree of a clone, and
in a project that is a folder of a clone. A second machine sees what others see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctflow.errors import OutsideError, StateError
from ctflow.ports import Scm
from ctflow.scm.git import GitScm
from tests.projects import git

SIDE = "ctflow/staging/tiny"
RELEASE = "deploy/staging/release.yaml"


@dataclass
class World:
    """``place``: the project's folder here. ``other``: where somebody else works."""

    place: Path
    other: Path
    remote: bool

    @property
    def scm(self) -> Scm:
        """The project's, as a new process sees it."""
        return GitScm(self.place, self.place.parent / "scratch")

    @property
    def elsewhere(self) -> Scm:
        """The same project, as somebody else sees it: in another clone or work tree."""
        made = GitScm(self.other, self.other.parent / "scratch")
        made.fetch()
        return made

    def base(self) -> str:
        tip = self.scm.tip("master")
        assert tip is not None
        return tip

    def commit(self, changes: dict[str, bytes | None], parent: str = "", text: str = "x") -> str:
        return self.scm.commit_files(parent or self.base(), changes, text)


def _seed(folder: Path, project: str) -> Path:
    git(folder.parent, "init", "-q", "-b", "master", folder.name)
    place = folder / project
    (place / "deploy").mkdir(parents=True)
    (place / "ctflow.yaml").write_text("project: tiny\n")
    (place / "deploy/keep").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return place


def no_remote(base: Path) -> World:
    place = _seed(base / "own", "")
    git(place, "worktree", "add", "-q", "--detach", str(base / "second"))
    return World(place, base / "second", remote=False)


def clone(base: Path, project: str = "") -> World:
    _seed(base / "seed", project)
    git(base, "clone", "-q", "--bare", "seed", "bare.git")
    for name in ("own", "second"):
        git(base, "clone", "-q", "bare.git", name)
    return World(base / "own" / project, base / "second" / project, remote=True)


def worktree(base: Path) -> World:
    made = clone(base)
    git(made.place, "worktree", "add", "-q", "-b", "topic", str(base / "tree"))
    return World(base / "tree", made.other, remote=True)


def subfolder(base: Path) -> World:
    return clone(base, "projects/tiny")


@pytest.fixture(params=[no_remote, clone, worktree, subfolder], ids=lambda make: make.__name__)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    make: Callable[[Path], World] = request.param
    return make(tmp_path)


def state(world: World) -> tuple[str, str, str]:
    """What belongs to the user: the commit, the index and the files."""
    return (
        git(world.place, "rev-parse", "HEAD"),
        git(world.place, "ls-files", "--stage"),
        git(world.place, "status", "--porcelain"),
    )


def test_head_and_identity(world: World) -> None:
    head = world.scm.head()
    assert head.sha == world.base() == git(world.place, "rev-parse", "HEAD")
    assert head.dirty == ()
    (world.place / "new.txt").write_text("x")
    assert [Path(name).name for name in world.scm.head().dirty] == ["new.txt"]
    assert world.scm.identity() == "Ada Lovelace <ada@example.org>"


def test_a_commit_is_made_beside_the_users_work(world: World) -> None:
    (world.place / "ctflow.yaml").write_text("project: edited\n")
    before = state(world)
    made = world.commit({RELEASE: b"one\n"})
    assert state(world) == before
    scm = world.scm
    assert scm.read(made, RELEASE) == b"one\n"
    assert scm.read(made, "ctflow.yaml") == b"project: tiny\n"
    assert scm.read(made, "nothing") is None
    assert world.base() != made  # no branch moved
    assert scm.has(made)
    assert not scm.has("0" * 40)


def test_files_are_written_removed_and_taken_over(world: World) -> None:
    one = world.commit({RELEASE: b"one\n", "deploy/staging/image.bin": b"\x00\xff\n"})
    scm = world.scm
    found = scm.files(one, "deploy/staging")
    assert set(found) == {RELEASE, "deploy/staging/image.bin"}
    two = scm.commit_files(one, {RELEASE: None, "deploy/production/a": found[RELEASE]}, "x")
    assert scm.read(two, RELEASE) is None
    assert scm.read(two, "deploy/production/a") == b"one\n"
    assert scm.read(two, "deploy/staging/image.bin") == b"\x00\xff\n"
    assert scm.files(two, "deploy/none") == {}
    changed = scm.changes(one, two)
    assert {path.rpartition("deploy/")[2]: file is None for path, file in changed.items()} == {
        "staging/release.yaml": True, "production/a": False,
    }  # fmt: skip


def test_the_same_change_is_the_same_commit_and_none_is_no_commit(world: World) -> None:
    base = world.base()
    made = {world.scm.commit_files(base, {RELEASE: b"1"}, "x", at=1e9) for _ in range(2)}
    assert len(made) == 1
    (one,) = made
    assert world.scm.commit_files(one, {RELEASE: b"1"}, "again") == one


def test_a_proposal_moves_by_compare_and_swap(world: World) -> None:
    one, two = world.commit({RELEASE: b"1"}), world.commit({RELEASE: b"2"})
    scm = world.scm
    assert scm.tip(SIDE) is None
    assert scm.branches("ctflow/") == {}
    assert scm.move(SIDE, one, None)
    assert world.elsewhere.tip(SIDE) == one
    assert world.elsewhere.branches("ctflow/") == {SIDE: one}
    assert not world.scm.move(SIDE, two, None)  # somebody made it already
    assert not world.scm.move(SIDE, two, two, force=True)  # it is not there
    assert world.elsewhere.tip(SIDE) == one
    assert world.scm.move(SIDE, two, one, force=True)
    assert world.elsewhere.tip(SIDE) == two
    assert not world.scm.move(SIDE, None, one)
    assert world.scm.move(SIDE, None, two)
    assert world.elsewhere.tip(SIDE) is None


def test_a_branch_only_moves_forward_unless_it_is_forced(world: World) -> None:
    one, two = world.commit({RELEASE: b"1"}), world.commit({RELEASE: b"2"})
    assert world.scm.move(SIDE, one, None)
    with pytest.raises(StateError, match="does not build on"):
        world.scm.move(SIDE, two, one)
    assert world.elsewhere.tip(SIDE) == one


def test_who_is_second_sees_the_first_and_tries_again(world: World) -> None:
    """Two machines land a release on the default branch at once; neither is lost."""
    base = world.base()
    mine = world.commit({RELEASE: b"mine"}, base)
    elsewhere = world.elsewhere
    theirs = elsewhere.commit_files(base, {"deploy/production/release.yaml": b"theirs"}, "x")
    assert elsewhere.move("master", theirs, base)
    scm = world.scm
    assert not scm.move("master", mine, base)
    scm.fetch()
    tip = scm.tip("master")
    assert tip == theirs
    again = scm.commit_files(tip, {RELEASE: b"mine"}, "x")
    assert scm.move("master", again, tip)
    seen = world.elsewhere
    assert seen.tip("master") == again
    assert seen.read(again, "deploy/production/release.yaml") == b"theirs"
    assert seen.read(again, RELEASE) == b"mine"


def test_landing_brings_the_checked_out_branch_along(world: World) -> None:
    """No clean checkout of the default branch is left behind, where its next commit would undo."""
    base, made = world.base(), world.commit({RELEASE: b"1"})
    assert world.scm.move("master", made, base)
    head = world.scm.head()
    assert head.dirty == ()
    if head.branch == "master":
        assert head.sha == made
        assert (world.place / RELEASE).read_bytes() == b"1"


def test_merging_and_a_conflict(world: World) -> None:
    base = world.base()
    one = world.commit({RELEASE: b"1"}, base)
    two = world.commit({"steps/main.py": b"2"}, base)
    before = state(world)
    scm = world.scm
    merged = scm.merge_commit(two, one, "Merge\n\nwith a body")
    assert state(world) == before
    assert scm.read(merged, RELEASE) == b"1"
    assert scm.read(merged, "steps/main.py") == b"2"
    assert scm.is_ancestor(one, merged)
    assert scm.is_ancestor(two, merged)
    assert not scm.is_ancestor(one, two)
    assert scm.merge_base(one, two) == base
    with pytest.raises(StateError, match=r"conflict in .*release\.yaml"):
        scm.merge_commit(one, world.commit({RELEASE: b"other"}, base), "x")
    assert state(world) == before


def test_the_history_of_an_environment(world: World) -> None:
    base = world.base()
    one = world.commit({RELEASE: b"1\n"}, base, "Release 1\n\nbecause\nof that")
    side = world.commit({"steps/main.py": b"2"}, one, "not a release")
    two = world.commit({RELEASE: b"2\n"}, side, "Release 2")
    scm = world.scm
    log = scm.log(two, "deploy/staging")
    assert [(one.sha, one.subject, one.body) for one in log] == [
        (two, "Release 2", ""), (one, "Release 1", "because\nof that"),
    ]  # fmt: skip
    assert log[1].parents == (base,)
    assert log[0].author == "Ada Lovelace <ada@example.org>"
    assert [entry.sha for entry in scm.log(two, "deploy/staging", 1)] == [two]
    file = scm.files(two, "deploy/staging")[RELEASE]
    assert scm.written_by(two, RELEASE, file) == two
    assert scm.written_by(two, RELEASE, file, since=two) is None
    assert scm.written_by(two, RELEASE, scm.files(one, "deploy/staging")[RELEASE]) == one
    diff = scm.diff(one, two, "deploy/staging")
    assert "-1\n+2" in diff
    assert b"+1" in b"\n".join(_texts_after(world, two))


def _texts_after(world: World, commit: str) -> list[bytes]:
    assert world.scm.move(SIDE, commit, None)
    world.scm.fetch()
    return world.scm.written_texts(Path("deploy"))


def test_a_folder_is_written_out_as_it_is_at_a_commit(world: World, tmp_path: Path) -> None:
    made = world.commit({"serving/predictor.py": b"1", "serving/sub/golden.json": b"2"})
    target = tmp_path / "out" / "serving"
    world.scm.export(made, "serving", target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == {"predictor.py", "sub/golden.json"}
    with pytest.raises(StateError, match="has no folder"):
        world.scm.export(world.base(), "serving", tmp_path / "other")


def test_a_commit_is_published_once_a_branch_of_others_holds_it(world: World) -> None:
    """A proposal's own branch does not count: it goes when the proposal is answered."""
    made = world.commit({RELEASE: b"1"})
    assert world.scm.is_published(world.base())
    assert world.scm.is_published(made) is not world.remote
    assert world.scm.move(SIDE, made, None)
    assert world.scm.is_published(made) is not world.remote
    assert world.scm.move("master", made, world.base())
    assert world.scm.is_published(made)


def test_what_differs_from_a_commit_in_the_work_tree(world: World) -> None:
    base = world.base()
    (world.place / "ctflow.yaml").write_text("project: edited\n")
    (world.place / "new.py").write_text("")
    found = {path.resolve() for path in world.scm.changed_since(base)}
    assert found == {(world.place / name).resolve() for name in ("ctflow.yaml", "new.py")}
    with pytest.raises(StateError, match="git knows no commit"):
        world.scm.changed_since("no-such-commit")


def test_a_remote_that_is_gone_is_an_outside_error(world: World) -> None:
    world.scm.check_push("master")
    world.scm.fetch()
    if not world.remote:
        return
    made = world.commit({RELEASE: b"1"})
    base = world.base()
    git(world.place, "remote", "set-url", "origin", str(world.place / "nowhere.git"))
    for ask in (
        world.scm.fetch,
        lambda: world.scm.check_push("master"),
        lambda: world.scm.move("master", made, base),
    ):
        with pytest.raises(OutsideError, match=r"git (fetch|push) failed"):
            ask()
    assert world.scm.tip("master") == base
