"""The bound on the files of runs: what goes, what stays, and that looking costs nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ctflow.config.project import Project
from ctflow.config.values import size_in_bytes
from ctflow.errors import StateError
from ctflow.model import Run
from ctflow.ports import Event
from ctflow.runners.local.disk_limit import keep_bound, opened
from ctflow.runners.local.record import Record
from ctflow.runners.local.runner import LocalRunner
from tests.conformance.tools import Bench, Pipeline, ShellWorkspaces, out, read, value
from tests.work import counted, watch


def bench_of(folder: Path, bound: int) -> Bench:
    bench = Bench(folder)
    bench.runner = LocalRunner(
        bench.state, ShellWorkspaces(bench.work), bench.environments, slots=2, bound=bound
    )
    return bench


def large() -> Pipeline:
    """100 kB that depend on the parameter only."""
    script = f"for i in $(seq 1000); do printf '%099d\\n' {value('n')}; done > {out('d')}"
    return Pipeline(n=1).task(
        "t", script, takes={"n": ("NUMBER_INTEGER", "=n")}, writes=["d"]
    )  # fmt: skip


def there(bench: Bench, run: Run) -> bool:
    return (bench.state / "runs" / run.id).is_dir()


@pytest.fixture(autouse=True)
def _nothing_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctflow.runners.local.disk_limit.FRESH", 0.0)


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 350_000)
    one, two, three = (bench.run(large(), n=n) for n in (1, 2, 3))
    assert bench.states(bench.run(large(), n=1)) == {"t": "cached"}  # used again: it stays
    assert [there(bench, run) for run in (one, two, three)] == [True] * 3
    four = bench.run(large(), n=4)
    assert [there(bench, run) for run in (one, two, three, four)] == [True, False, True, True]
    assert bench.runner.get(two.id).state == "succeeded"
    assert bench.states(bench.run(large(), n=1)) == {"t": "cached"}
    again = bench.run(large(), n=2)
    assert bench.states(again) == {"t": "succeeded"}
    task = again.task("t")
    assert task is not None
    assert task.cache_miss.startswith("since r-")  # its entry went with the files
    assert not list((bench.state / "runs").glob(".trash*"))


def test_what_the_run_itself_refers_to_stays_whatever_the_bound(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 0)
    one = bench.run(large())
    cached = bench.run(large())
    assert there(bench, one)
    assert bench.states(cached) == {"t": "cached"}
    bench.run(large(), n=2)
    assert not there(bench, one)


def test_what_a_running_run_refers_to_stays(tmp_path: Path) -> None:
    """A run whose last task takes its time has a cached input, and another one ends meanwhile."""
    bench, other = bench_of(tmp_path, 0), bench_of(tmp_path, 0)
    one = bench.run(large())
    slow = large().task(
        "slow", f"echo go; wc -c < {read('d')} > {out('d')}", reads={"d": "t.d"}, writes=["d"]
    )
    ended: list[Run] = []

    def watch(event: Event) -> None:
        if event.kind == "log" and not ended:
            ended.append(other.run(large(), n=2))

    done = bench.runner.run(bench.request(slow.write(tmp_path / "slow.json")), watch)
    assert ended
    assert done.state == "succeeded", done.error
    assert bench.states(done) == {"t": "cached", "slow": "succeeded"}
    assert there(bench, one)
    bench.run(large(), n=3)
    assert not there(bench, one)


def test_fresh_results_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctflow.runners.local.disk_limit.FRESH", 600.0)
    bench = bench_of(tmp_path, 0)
    one = bench.run(large())
    bench.run(large(), n=2)
    assert there(bench, one)


def test_resumed_run_makes_again_what_is_gone(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 0)
    pipeline = large().task("bad", "[ -e fixed ]", after=["t"])
    failed = bench.run(pipeline)
    package = pipeline.write(tmp_path / "kept.json")
    failed = bench.run(package)
    bench.run(large(), n=2)
    assert not there(bench, failed)
    (bench.work / "fixed").touch()
    done = bench.runner.resume(failed.id, bench.events.append)
    assert done.state == "succeeded"
    with pytest.raises(StateError, match="has succeeded"):
        bench.runner.resume(failed.id, bench.events.append)


def test_folder_of_a_killed_run_is_measured_by_the_next(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 150_000)
    record = Record(bench.state / "record.db")
    opened(record, "r-dead")
    record.commit()
    record.close()
    (bench.state / "runs" / "r-dead").mkdir(parents=True)
    (bench.state / "runs" / "r-dead" / "half").write_bytes(b"x" * 100_000)
    bench.run(large())
    assert not (bench.state / "runs" / "r-dead").exists()


def test_record_of_the_first_layout_is_brought_up_to_date(tmp_path: Path) -> None:
    from ctflow.runners.local.record import MIGRATIONS

    bench = bench_of(tmp_path, 10**9)
    bench.state.mkdir()
    with sqlite3.connect(bench.state / "record.db") as old:
        old.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version=1")
        old.execute(
            "INSERT INTO runs (id, project, pipeline, package, state, created, parameters, metrics,"
            " revision, images, request)"
            " VALUES ('r-old', 'p', 'p', 'd', 'failed', 1, '{}', '{}', '', '[]', '{}')"
        )
    old.close()
    (bench.state / "runs" / "r-old").mkdir(parents=True)
    (bench.state / "runs" / "r-old" / "file").write_bytes(b"x" * 1000)
    new = bench.run(large())
    with sqlite3.connect(bench.state / "record.db") as now:
        sizes = dict(now.execute("SELECT run, bytes FROM folders"))
    now.close()
    assert sizes["r-old"] == 1000
    assert sizes[new.id] >= 100_000


def test_costs_next_to_nothing_when_nothing_is_to_do(tmp_path: Path) -> None:
    """3,000 runs in the record, and one of 20 tasks that has just ended."""
    record = Record(tmp_path / "record.db")
    runs = tmp_path / "runs"
    for number in range(3000):
        name = f"r-{number:04d}"
        record.add_run(Run(name, "p", "p", "d", "succeeded", float(number)), {})
        opened(record, name)
    record.connection.execute("UPDATE folders SET bytes = 1000")
    record.commit()
    for task in range(20):
        (runs / "r-2999" / f"t{task}" / "1").mkdir(parents=True)
        (runs / "r-2999" / f"t{task}" / "1" / "data").write_bytes(b"x")
    opened(record, "r-2999")
    record.commit()
    with counted() as work:
        watch(record.connection, work)
        assert keep_bound(record, runs, "r-2999", 10**9) == 0
    record.close()
    assert work.sql < 100_000  # one sum over all folders; none is looked into but the new run's
    assert work.opened <= 45


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5 TB", 1.5e12), ("500mb", 5e8), ("0kB", 0)]
)
def test_sizes(text: str, size: float) -> None:
    assert size_in_bytes(text) == size
    assert Project.model_validate({"project": "p", "store": {"cache": text}}).store.cache == text


@pytest.mark.parametrize("text", ["20", "GB", "-1GB", "20 G", "1e3MB", "", "20GB/day"])
def test_wrong_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as 500MB, 20GB or"):
        Project.model_validate({"project": "p", "store": {"cache": text}})
