"""Removing runs by a process that is killed: a run is there with all its files, or gone whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow.errors import StateError
from ctflow.lib import locks
from ctflow.model import Artifact, Run, Task
from ctflow.runners.local import abandoned_runs, folders
from ctflow.runners.local.disk_limit import keep_bound, opened
from ctflow.runners.local.prune import prune
from ctflow.runners.local.record import Record
from tests.conformance.tools import Bench, Pipeline, out

RUNS, FILES, KEEP = 12, 150, 4
KILLS = int(os.environ.get("CTFLOW_TESTS_KILLS", "12"))
#: Prunes as its own process: the first argument is the state folder, the second code to run before.
PRUNER = """
import sys
from pathlib import Path
from ctflow.runners.local import folders
from ctflow.runners.local import prune
from ctflow.runners.local.record import Record
state = Path(sys.argv[1])
record = Record(state / "record.db")
exec(sys.argv[2])
print("ready", flush=True)
prune.prune(record, state / "runs", int(sys.argv[3]))
"""
DIE = "import os, signal\ndie = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
#: Counts the acts that change something, and dies at one of them (0: at none).
COUNT = """
import atexit, os, signal
acts, limit = 0, {limit}
def hook(event, args):
    global acts
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "fcntl.flock"):
        acts += 1
        if acts == limit:
            os.kill(os.getpid(), signal.SIGKILL)
atexit.register(lambda: print(acts))
sys.addaudithook(hook)
"""
MOMENTS = {
    "between the folders": DIE
    + "real, count = prune.set_aside, iter(range(9))\n"
    + "prune.set_aside = lambda *words: die() if next(count) == 3 else real(*words)",
    "before they are forgotten": DIE + "prune.forget_results = die",
    "before they are deleted": DIE + "prune.sweep = die",
    "while they are deleted": DIE
    + "folders.remove_tree = lambda place: (next(place.iterdir()).unlink(), die())",
}


def name_of(number: int) -> str:
    return f"r-{number:03d}"


def filled(state: Path) -> Record:
    """Runs with files; the newest one's output is the oldest one's, by the cache."""
    record = Record(state / "record.db")
    for number in range(RUNS):
        folder = (state / "runs" / name_of(number)).resolve()
        folder.mkdir(parents=True)
        for file in range(FILES):
            (folder / str(file)).write_text(name_of(number))
        uri = folder / "0" if number < RUNS - 1 else folder.with_name(name_of(0)) / "0"
        run = Run(name_of(number), "p", "p", "d", "succeeded", float(number))
        seq = record.add_run(run, {})
        artifact = Artifact("d", "system.Dataset", str(uri), "sha256:00", 5)
        record.put_task(seq, 0, Task("t", "succeeded", artifacts={"d": (artifact,)}))
        opened(record, run.id)
    record.connection.execute("UPDATE folders SET bytes = 1000")
    record.commit()
    return record


def pruner(state: Path, before: str = "", keep: int = KEEP) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PRUNER, str(state), before, str(keep)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def whole(state: Path, run: str) -> bool:
    folder = state / "runs" / run
    return len(list(folder.iterdir())) == FILES if folder.is_dir() else False


def check_recovery(state: Path) -> None:
    """What a reader finds after a kill, and after the next call."""
    bench = Bench(state.parent)
    listed = [run.id for run in bench.runner.list(100)]
    assert listed[:KEEP] == [name_of(number) for number in range(RUNS - 1, RUNS - 1 - KEEP, -1)]
    assert all(whole(state, run) for run in listed), "a run in the record has lost its files"
    assert whole(state, name_of(0)), "the file that the newest run refers to is gone"
    bench.runner.prune(KEEP)
    kept = listed[:KEEP]
    assert [run.id for run in bench.runner.list(100)] == kept
    assert folders.names_in(state / "runs") == sorted([*kept, name_of(0)])
    assert all(whole(state, run) for run in (*kept, name_of(0)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment(tmp_path: Path, moment: str) -> None:
    state = tmp_path / "state"
    filled(state).close()
    with pruner(state, MOMENTS[moment]) as process:
        assert process.wait(30) == -signal.SIGKILL
    assert folders.names_in(state / "runs" / folders.TRASH), "it was killed too early or too late"
    check_recovery(state)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    generator = random.Random(7)
    filled(tmp_path / "whole" / "state").close()
    with pruner(tmp_path / "whole" / "state", COUNT.format(limit=0)) as process:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    acts = int(told)
    assert acts > FILES
    for number in range(KILLS):
        # Half of them among the first acts: nearly all others delete a file in the trash.
        limit = generator.randint(1, 30 if number % 2 else acts)
        state = tmp_path / str(number) / "state"
        filled(state).close()
        with pruner(state, COUNT.format(limit=limit)) as process:
            assert process.wait(30) == -signal.SIGKILL
        check_recovery(state)


def test_two_at_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    filled(state).close()
    both = [pruner(state, keep=keep) for keep in (KEEP, KEEP + 2)]
    for process in both:
        with process:
            assert process.wait(30) == 0
    check_recovery(state)


def test_folder_that_may_not_be_written_to_goes_too(tmp_path: Path) -> None:
    """A step may leave such; root may delete from it all the same."""
    locked = tmp_path / "one" / "locked"
    (locked / "inside").mkdir(parents=True)
    (locked / "inside" / "file").touch()
    (locked / "inside").chmod(0o500)
    locked.chmod(0o500)
    folders.remove_tree(tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_files_beside_the_folders_go_too(tmp_path: Path) -> None:
    """Such as those that a file manager leaves; what a link leads to stays."""
    record = filled(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("12345")
    (tmp_path / "runs" / ".listing").write_text("x")
    (tmp_path / "runs" / "link").symlink_to(other)
    done = prune(record, tmp_path / "runs", RUNS)
    record.close()
    assert (done.unknown, done.bytes) == ((".listing", "link"), 0)
    assert (other / "file").exists()


def test_what_belongs_to_somebody_else_stays_without_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a container's own user can neither be removed nor be given other modes."""
    record = filled(tmp_path)

    def refused(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(shutil, "rmtree", lambda *words, **options: None)
    monkeypatch.setattr(Path, "chmod", refused)
    assert len(prune(record, tmp_path / "runs", KEEP).runs) == RUNS - KEEP
    record.close()


def test_run_removed_by_another_process_does_not_stop_a_look_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = filled(tmp_path)
    with record.writing() as connection:
        connection.execute("UPDATE runs SET state = 'running' WHERE id = ?", (name_of(3),))

    def removed(*words: object) -> None:
        with record.writing() as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (name_of(3),))

    monkeypatch.setattr("ctflow.runners.local.jobs.forget_all_secrets", removed)
    abandoned_runs.close_abandoned(record, tmp_path / "runs")
    assert name_of(3) not in [run.id for _, run in record.runs(100)]
    record.close()


def test_run_that_is_gone_on_with_stays(tmp_path: Path) -> None:
    """It was chosen by another process before; that one finds it held."""
    record = filled(tmp_path / "state")
    runs = tmp_path / "state" / "runs"
    with folders.held(runs / name_of(1)) as free:
        assert free
        pruned = prune(record, runs, 1)
    assert name_of(1) not in pruned.runs
    assert whole(tmp_path / "state", name_of(1))
    assert record.find(name_of(1))
    record.close()


def test_resuming_what_was_removed_says_so(tmp_path: Path) -> None:
    """It is removed between the look-up and the moment that its folder is held."""
    bench = Bench(tmp_path)
    old = bench.run(Pipeline().task("t", "exit 1"))
    bench.run(Pipeline().task("t"))
    real = bench.runner._find

    def find(record: Record, run_id: str) -> tuple[int, str]:
        found = real(record, run_id)
        assert Bench(tmp_path).runner.prune(1).runs == (old.id,)
        return found

    bench.runner._find = find  # type: ignore[method-assign]
    with pytest.raises(StateError, match="was removed just now; see `ctflow runs list`"):
        bench.runner.resume(old.id, bench.events.append)
    assert not (bench.state / "runs" / old.id).exists()


def test_new_folder_that_is_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process prunes between the folder's making and its locking."""
    record = filled(tmp_path / "state")
    runs = tmp_path / "state" / "runs"
    real, seen = locks.lock, []

    def lock(path: Path, **options: bool) -> int | None:
        monkeypatch.setattr("ctflow.runners.local.folders.lock", real)
        seen.append(path.name)
        assert prune(record, runs, RUNS).runs == ()
        assert not path.exists()
        return real(path, **options)

    monkeypatch.setattr("ctflow.runners.local.folders.lock", lock)
    with folders.new_folder(runs) as (run, folder):
        assert [run] != seen
        assert folders.lives(folder)
        assert prune(record, runs, RUNS).runs == ()
        assert folder.is_dir()
    assert not folder.exists()  # nothing came of it
    record.close()


def test_what_is_scored_again_stays_whatever_the_bound(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    pipeline = Pipeline().task("t", f"echo {{}} > {out('d')}", writes=["d"])
    run = bench.run(pipeline)
    record = Record(bench.state / "record.db")
    runs = bench.state / "runs"
    record.connection.execute("UPDATE runs SET ended = 1")
    record.connection.execute("UPDATE cache SET used = 1")
    with folders.used(runs / run.id):
        assert keep_bound(record, runs, "r-other", 0) == 0
        assert prune(record, runs, 0).runs == ()
    assert keep_bound(record, runs, "r-other", 0) > 0
    record.close()
    with pytest.raises(StateError, match=f"the files of run {run.id} are gone"):
        bench.runner.score_again(run, "t", "t.d", tmp_path, bench.events.append)


def test_a_cached_run_that_nobody_knows_gets_no_folder(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    pipeline = Pipeline().task("t", f"echo {{}} > {out('d')}", writes=["d"])
    bench.run(pipeline)
    run = replace(bench.run(pipeline), id="r-none")
    assert {task.state for task in run.tasks} == {"cached"}
    with pytest.raises(StateError, match="r-none"):
        bench.runner.score_again(run, "t", "t.d", tmp_path, bench.events.append)
    assert not (bench.state / "runs" / run.id).exists()


def test_files_used_under_a_wrong_clock_are_not_kept_for_ever(tmp_path: Path) -> None:
    record = filled(tmp_path / "state")
    runs = tmp_path / "state" / "runs"
    number, run = record.runs(1)[0]
    year = time.time() + 365 * 86400
    record.set_run(number, "succeeded", year, "", {})
    record.commit()
    assert replace(run, ended=year) == record.runs(1)[0][1]
    keep_bound(record, runs, name_of(0), 0)
    assert folders.names_in(runs) == [name_of(0)]
    record.close()
