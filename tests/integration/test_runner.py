"""The embedded runner on real processes: what a run does, gives, keeps and says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow.errors import ConfigError, RunFailed, StateError
from ctflow.lib.digests import digest_bytes, digest_path
from tests.conformance.tools import Bench, Pipeline, give, out, read, text_of, value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def chain() -> Pipeline:
    pipeline = Pipeline(n=7)
    pipeline.task("first", f"echo data{value('n')} > {out('data')}; echo hello from first",
                  takes={"n": ("NUMBER_INTEGER", "=n")}, writes=["data"])  # fmt: skip
    pipeline.task(
        "second", f"sed s/data/more/ {read('data')} > {out('data')}",
        reads={"data": "first.data"}, writes=["data"],
    )  # fmt: skip
    return pipeline


def test_artifacts_go_from_task_to_task(bench: Bench) -> None:
    run = bench.run(chain(), n=3)
    assert run.state == "succeeded"
    assert text_of(run, "second.data") == "more3\n"
    artifact = run.artifact("second.data")
    assert artifact is not None
    assert artifact.digest == digest_bytes(b"more3\n")
    assert (artifact.type, artifact.size) == ("system.Dataset", 6)
    task = run.task("second")
    assert task is not None
    assert task.needs == ("first",)
    assert task.exit_code == 0
    assert task.input_artifacts["data"][0].digest == digest_bytes(b"data3\n")
    assert bench.runner.get(run.id) == run
    assert run.parameters == {"n": 3}


def test_log_lines_are_streamed_and_kept(bench: Bench) -> None:
    run = bench.run(chain())
    assert [(e.name, e.text) for e in bench.events if e.kind == "log"] == [
        ("first", "hello from first")
    ]
    assert list(bench.runner.logs(run.id)) == [("first", "hello from first")]
    with pytest.raises(StateError, match="did you mean 'first'"):
        list(bench.runner.logs(run.id, "frist"))


def test_a_step_gets_the_variables_that_it_needs_and_no_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = ("XDG_MINE", "CUDA_VISIBLE_DEVICES")
    for name in (
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        "GIT_DIR",
        "CTFLOW_X",
        "MY_TOKEN",
        *handed,
    ):
        monkeypatch.setenv(name, "from the caller")
    bench.run(Pipeline().task("t", "env | grep 'from the caller$'"))
    lines = [event.text for event in bench.events if event.kind == "log"]
    assert sorted(lines) == [f"{name}=from the caller" for name in sorted(handed)]


def test_second_run_comes_from_the_cache(bench: Bench) -> None:
    one = bench.run(chain())
    other = bench.run(chain())
    assert bench.states(other) == {"first": "cached", "second": "cached"}
    assert other.artifact("second.data") == one.artifact("second.data")
    assert bench.states(bench.run(chain(), caching=False)) == {
        "first": "succeeded", "second": "succeeded",
    }  # fmt: skip


def test_other_input_is_a_miss_that_names_it(bench: Bench) -> None:
    one = bench.run(chain())
    other = bench.run(chain(), n=8)
    first = other.task("first")
    assert first is not None
    assert first.cache_miss == f"since {one.id} there is another parameter n"
    second = other.task("second")
    assert second is not None
    assert second.cache_miss == f"since {one.id} there is another artifact data"


def test_other_step_content_is_a_miss(tmp_path: Path) -> None:
    Bench(tmp_path, key="one").run(chain())
    other = Bench(tmp_path, key="two")
    assert set(other.states(other.run(chain())).values()) == {"succeeded"}


@pytest.mark.parametrize("how", ["changed", "removed", "touched"])
def test_cached_outputs_are_verified(bench: Bench, how: str) -> None:
    one = bench.run(chain())
    artifact = one.artifact("first.data")
    assert artifact is not None
    place = Path(artifact.uri)
    if how == "changed":
        place.write_text("data9\n")
    elif how == "removed":
        place.unlink()
    else:
        place.touch()
    other = bench.run(chain())
    if how == "touched":  # the time alone changed: the content is looked at
        assert bench.states(other)["first"] == "cached"
    else:
        assert bench.states(other) == {"first": "succeeded", "second": "cached"}
        assert text_of(other, "first.data") == "data7\n"
        first = other.task("first")
        assert first is not None
        assert first.cache_miss.startswith("output data of the earlier task")


def test_folders_are_artifacts_too(bench: Bench) -> None:
    pipeline = Pipeline().task(
        "make", f"mkdir -p {out('d')}/sub; echo a > {out('d')}/x; echo b > {out('d')}/sub/y",
        writes=["d"],
    )  # fmt: skip
    pipeline.task(
        "list", f"cd {read('d')}; find . -type f | sort > {out('names')}",
        reads={"d": "make.d"}, writes=["names"],
    )  # fmt: skip
    run = bench.run(pipeline)
    assert text_of(run, "list.names") == "./sub/y\n./x\n"
    artifact = run.artifact("make.d")
    assert artifact is not None
    assert (artifact.digest, artifact.size) == digest_path(Path(artifact.uri))
    assert bench.states(bench.run(pipeline))["make"] == "cached"
    (Path(artifact.uri) / "sub" / "y").write_text("c\n")
    assert bench.states(bench.run(pipeline))["make"] == "succeeded"


def test_parameters_of_every_type_come_back(bench: Bench) -> None:
    values = {"i": 3, "f": 2.5, "b": True, "s": "it's \"x\"\n{{$}}", "l": [1, 2.5, "é"],
              "d": {"a": 1, "b": [True, None]}}  # fmt: skip
    script = "".join(
        f"printf %s '{json.dumps(v) if not isinstance(v, str) else 'word'}' > {give(n)}\n"
        for n, v in values.items()
    )
    pipeline = Pipeline().task("give", script, gives={n: type(v) for n, v in values.items()})
    show = "; ".join(f"printf '%s|' {value(n)}" for n in ("i", "f", "b", "s"))
    kinds = {"i": "NUMBER_INTEGER", "f": "NUMBER_DOUBLE", "b": "BOOLEAN", "s": "STRING"}
    pipeline.task("take", show, takes={n: (kinds[n], f"@give.{n}") for n in kinds})
    run = bench.run(pipeline)
    given = run.task("give")
    assert given is not None
    assert given.outputs == {**values, "s": "word"}
    assert [type(v) for v in given.outputs["l"]] == [int, float, str]
    assert list(bench.runner.logs(run.id, "take")) == [("take", "3|2.5|true|word|")]


def test_value_that_looks_like_a_placeholder_stays_as_it_is(bench: Bench) -> None:
    """A step's output is data: what it says is not replaced, nor run by a shell."""
    wanted = "{{$.pipeline_job_uuid}} $(touch pwned) ' \" ; é"
    script = f"sed 's/<</{{{{/' > {give('s')} <<'EOF'\n{wanted.replace('{{', '<<')}\nEOF\n"
    pipeline = Pipeline().task("give", script, gives={"s": str})
    pipeline.task(
        "take", 'printf "%s" "$0"', takes={"s": "@give.s"}, container={"args": [value("s")]}
    )
    run = bench.run(pipeline)
    assert [line for _, line in bench.runner.logs(run.id, "take")] == [wanted]
    assert not (bench.work / "pwned").exists()


def test_failure_stops_only_what_depends_on_it(bench: Bench) -> None:
    pipeline = Pipeline().task("bad", "echo about to fail; exit 3").task("good")
    pipeline.task("after-bad", after=["bad"]).task("after-both", after=["after-bad", "good"])
    pipeline.task("after-good", after=["good"])
    run = bench.run(pipeline)
    assert run.state == "failed"
    assert run.error == "bad: exit code 3"
    assert bench.states(run) == {
        "bad": "failed", "good": "succeeded", "after-bad": "skipped", "after-both": "skipped",
        "after-good": "succeeded",
    }  # fmt: skip
    after = run.task("after-both")
    assert after is not None
    assert after.error == "after-bad was skipped"
    bad = run.task("bad")
    assert bad is not None
    assert bad.exit_code == 3
    assert bench.runner.last_log_lines(bad) == ("about to fail",)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("kill -9 $$", "killed by SIGKILL"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("true", "it did not write output parameter p"),
        ("exit 300", "exit code 44"),
    ],
)
def test_how_a_task_failed_is_said(bench: Bench, script: str, error: str) -> None:
    run = bench.run(Pipeline().task("t", script, gives={"p": str}))
    task = run.task("t")
    assert task is not None
    assert (task.state, task.error) == ("failed", error)


def test_artifact_that_is_not_written_is_said_and_no_failure(bench: Bench) -> None:
    """As Kubeflow's launcher has it; a task that needs it finds no file there."""
    pipeline = Pipeline().task("t", f"echo a > {out('one')}", writes=["one", "other", "third"])
    pipeline.task("u", f"[ ! -e {read('d')} ]; cat {read('d')}", reads={"d": "t.other"})
    run = bench.run(pipeline)
    assert bench.states(run) == {"t": "succeeded", "u": "failed"}
    notes = [event.text for event in bench.events if event.kind == "note" and event.name == "t"]
    assert notes == ["t: it wrote nothing to output artifact other, third"]
    assert run.error == "u: exit code 1"
    assert bench.states(bench.run(pipeline)) == {"t": "cached", "u": "failed"}


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1,"])
def test_executor_output_that_is_no_json_is_an_error(bench: Bench, value: str) -> None:
    written = '{"parameterValues": {"p": ' + value + "}}"
    script = f"echo '{written}' > {{{{$.outputs.output_file}}}}"
    run = bench.run(Pipeline().task("t", script, gives={"p": float}))
    assert "cannot read executor_output.json: " in run.error


@pytest.mark.parametrize(
    ("content", "kind", "error"),
    [
        ("", int, 'output parameter p: "" is not an integer'),
        ("1.5", int, 'output parameter p: "1.5" is not an integer'),
        ("yes", bool, 'output parameter p: "yes" is not true or false'),
        ("{", dict, 'output parameter p: "{" is not a dict'),
        ("[]", dict, "output parameter p: [] is not a dict"),
    ],
)
def test_wrong_output_parameter_is_an_error(
    bench: Bench, content: str, kind: type, error: str
) -> None:
    run = bench.run(Pipeline().task("t", f"printf %s '{content}' > {give('p')}", gives={"p": kind}))
    assert run.error == f"t: {error}"


def test_component_that_contains_itself_is_refused(bench: Bench) -> None:
    inside: dict[str, Any] = {}
    pipeline = Pipeline().task("t", into=inside)
    inside["again"] = {"componentRef": {"name": "comp-g"}}
    pipeline.group("g", inside)
    with pytest.raises(ConfigError, match="component comp-g contains itself"):
        bench.run(pipeline)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4))
def test_random_retries(tmp_path_factory: pytest.TempPathFactory, tasks: list[Any]) -> None:
    """Each task fails so many times at first, and may be tried again so often."""
    bench = Bench(tmp_path_factory.mktemp("retries"))
    pipeline = Pipeline()
    for number, (failures, limit) in enumerate(tasks):
        script = f"echo x >> ../t{number}; [ $(wc -l < ../t{number}) -gt {failures} ]"
        policy = {"maxRetryCount": limit, "backoffDuration": "0s", "backoffFactor": 2.0}
        pipeline.task(f"t{number}", script, retryPolicy=policy)
        pipeline.task(f"after-{number}", after=[f"t{number}"])
    run = bench.run(pipeline, caching=False)
    for number, (failures, limit) in enumerate(tasks):
        task, follower = run.task(f"t{number}"), run.task(f"after-{number}")
        assert task is not None
        assert follower is not None
        good = failures <= limit
        assert task.attempts == min(failures, limit) + 1
        assert (task.state, follower.state) == (
            ("succeeded", "succeeded") if good else ("failed", "skipped")
        )


def test_missing_output_parameter_is_an_error(bench: Bench) -> None:
    run = bench.run(Pipeline().task("t", gives={"p": str}))
    assert run.error == "t: it did not write output parameter p"


def test_program_that_is_not_there(bench: Bench) -> None:
    run = bench.run(Pipeline().task("t", container={"command": ["no-such-program", "x"]}))
    task = run.task("t")
    assert task is not None
    assert task.exit_code == 127
    assert "cannot start no-such-program" in bench.runner.last_log_lines(task)[0]


def test_metrics_come_from_the_file_or_from_the_metadata(bench: Bench) -> None:
    pipeline = Pipeline().task(
        "one", f"echo '{{\"accuracy\": 0.5, \"loss\": NaN, \"note\": \"x\"}}' > {out('m')}",
        writes=["m"], kind="system.Metrics",
    )  # fmt: skip
    body = json.dumps({"artifacts": {"m": {"artifacts": [
        {"name": "m", "uri": "U", "metadata": {"accuracy": 0.75, "auc": 1}}]}}})  # fmt: skip
    script = f"echo '{body}' | sed 's,\"U\",\"{out('m')}\",' > {{{{$.outputs.output_file}}}}"
    pipeline.task("two", script, writes=["m"], kind="system.Metrics")
    run = bench.run(pipeline)
    assert run.state == "succeeded", run.error
    nan = run.metrics.pop("loss")
    assert math.isnan(nan)
    assert math.isnan(run.metrics.pop("one.loss"))
    assert run.metrics == {
        "one.accuracy": 0.5, "two.accuracy": 0.75, "two.auc": 1.0, "auc": 1.0,
    }  # fmt: skip
    assert math.isnan(bench.runner.get(run.id).metrics["loss"])


def test_unknown_parameter_names_the_nearest(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="no parameter 'm'; a parameter is one of n"):
        bench.run(chain(), m=1)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        bench.run(Pipeline(epochs=3).task("t"), epoch=1)
    assert bench.runner.list() == []


@pytest.mark.parametrize("wrong", ["x", 1.5, True, [1], None])
def test_parameter_of_another_type_is_refused(bench: Bench, wrong: object) -> None:
    if wrong is None:
        with pytest.raises(ConfigError, match="parameter n has no value and no default"):
            bench.run(Pipeline(n="NUMBER_INTEGER").task("t"))
        return
    with pytest.raises(ConfigError, match=r"parameter n: .* is not an integer"):
        bench.run(chain(), n=wrong)


def test_image_that_is_no_step_is_refused_before_the_first_task(bench: Bench) -> None:
    pipeline = chain().task("other", container={"image": "docker.io/library/busybox"})
    with pytest.raises(ConfigError, match=r"other uses image docker.io/library/busybox.*runner:"):
        bench.run(pipeline)
    assert bench.events == []


def test_condition_that_cannot_be_parsed_is_refused_before_the_first_task(bench: Bench) -> None:
    pipeline = chain()
    inner: dict[str, object] = {}
    pipeline.task("inside", into=inner)
    trigger = {"condition": "inputs.parameter_values['x'] == 'it's'"}
    pipeline.group("condition-1", inner, inputs={"x": ("STRING", "it's")}, triggerPolicy=trigger)
    with pytest.raises(ConfigError, match=r"condition of task condition-1 cannot be evaluated"):
        bench.run(pipeline)


def test_retry_until_it_works(bench: Bench) -> None:
    script = "echo x >> tries; [ $(wc -l < tries) -ge 3 ]"
    retry = {"maxRetryCount": 3, "backoffDuration": "0.01s", "backoffFactor": 2.0}
    run = bench.run(Pipeline().task("t", script, retryPolicy=retry))
    task = run.task("t")
    assert task is not None
    assert (task.state, task.attempts) == ("succeeded", 3)
    assert (bench.work / "tries").read_text() == "x\n" * 3


def test_retries_end(bench: Bench) -> None:
    run = bench.run(Pipeline().task("t", "exit 1", retryPolicy={"maxRetryCount": 2}))
    task = run.task("t")
    assert task is not None
    assert (task.state, task.attempts) == ("failed", 3)


def test_retries_end_with_the_time_for_all_of_them(bench: Bench) -> None:
    """The second pause would be an hour; Kubeflow does not wait for what would come too late."""
    retry = {"maxRetryCount": 9, "backoffDuration": "0.01s", "backoffFactor": 360_000.0,
             "backoffMaxDuration": "600s"}  # fmt: skip
    task = bench.run(Pipeline().task("t", "exit 1", retryPolicy=retry)).task("t")
    assert task is not None
    assert (task.state, task.attempts) == ("failed", 2)
    assert task.error == "exit code 1; not tried again: all attempts may take 600 s"


def test_wide_task_takes_all_slots(tmp_path: Path) -> None:
    """A task that asks for 2 CPUs runs alone on two slots; others run side by side."""
    bench = Bench(tmp_path, slots=2)
    busy = (
        "echo s >> marks; while [ $(grep -c s marks) -lt 2 ]; do sleep 0.01; done; echo e >> marks"
    )
    two: Any = {"container": {"resources": {"resourceCpuLimit": "2"}}}
    alone = "echo begin >> wide; sleep 0.05; echo end >> wide"
    pipeline = Pipeline().task("a", busy).task("b", busy)
    pipeline.task("wide-1", alone, **two).task("wide-2", alone, **two)
    assert bench.run(pipeline, caching=False).state == "succeeded"
    assert (tmp_path / "work" / "wide").read_text() == "begin\nend\n" * 2


def test_huge_output_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctflow.runners.local.logs.KEPT", 1 << 20)
    script = "head -c 50000000 /dev/zero; echo; yes line | head -n 100000; echo last"
    run = bench.run(Pipeline().task("t", script))
    assert run.state == "succeeded"
    task = run.task("t")
    assert task is not None
    assert Path(task.log).stat().st_size < (1 << 20) + (64 << 10) + 200
    assert bench.runner.last_log_lines(task)[-1] == "last"
    assert "bytes of output are left out here" in Path(task.log).read_text()
    lines = [event.text for event in bench.events if event.kind == "log"]
    assert len(lines) < 21_000
    assert max(map(len, lines)) < 20_000


def test_memory_limit_is_enforced(bench: Bench) -> None:
    script = "python -c 'b = bytearray(500_000_000); print(len(b))'"
    limit: Any = {"container": {"resources": {"resourceMemoryLimit": "100M"}}}
    run = bench.run(Pipeline().task("small", script, **limit).task("large", script))
    assert bench.states(run) == {"small": "failed", "large": "succeeded"}
    assert any("MemoryError" in line for _, line in bench.runner.logs(run.id, "small"))


def test_score_again_with_another_input(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(chain())
    champion = tmp_path / "champion"
    champion.write_text("data-of-champion\n")
    task = bench.runner.score_again(run, "second", "first.data", champion, bench.events.append)
    assert task.state == "succeeded"
    assert Path(task.artifacts["data"][0].uri).read_text() == "more-of-champion\n"
    again = bench.runner.score_again(run, "second", "first.data", champion, bench.events.append)
    assert again.state == "cached"
    assert bench.runner.get(run.id) == run
    with pytest.raises(StateError, match=r"reads no artifact second\.data"):
        bench.runner.score_again(run, "second", "second.data", champion, bench.events.append)
    with pytest.raises(StateError, match="no finished task 'third'"):
        bench.runner.score_again(run, "third", "first.data", champion, bench.events.append)


def test_score_again_after_a_run_that_was_cached_as_a_whole(bench: Bench, tmp_path: Path) -> None:
    """Such a run has no folder of its own; its files are those of the run that made them."""
    champion = tmp_path / "champion"
    champion.write_text("data-of-champion\n")
    made = bench.run(chain())
    run = bench.run(chain())
    assert {task.state for task in run.tasks} == {"cached"}
    first = made.artifact("first.data")
    assert first is not None
    runs = next(one for one in Path(first.uri).parents if one.name == made.id).parent
    assert not (runs / run.id).exists()
    task = bench.runner.score_again(run, "second", "first.data", champion, bench.events.append)
    assert Path(task.artifacts["data"][0].uri).read_text() == "more-of-champion\n"


def test_score_again_that_fails(bench: Bench, tmp_path: Path) -> None:
    pipeline = chain().task("check", f"echo looking; grep -q data {read('d')}",
                            reads={"d": "first.data"})  # fmt: skip
    run = bench.run(pipeline)
    other = tmp_path / "other"
    other.write_text("nothing\n")
    with pytest.raises(RunFailed, match=r"check failed on first\.data") as caught:
        bench.runner.score_again(run, "check", "first.data", other, bench.events.append)
    assert caught.value.details == ("looking",)


def test_runs_are_found_by_prefix_and_latest(bench: Bench) -> None:
    with pytest.raises(StateError, match="no runs yet"):
        bench.runner.get("latest")
    one, other = bench.run(chain()), bench.run(chain())
    assert bench.runner.get("latest").id == other.id
    assert bench.runner.get(one.id).id == one.id
    assert [run.id for run in bench.runner.list()] == [other.id, one.id]
    assert bench.runner.list(state="failed") == []
    with pytest.raises(StateError, match="may be any of"):
        bench.runner.get("r-")
    with pytest.raises(StateError, match="no run 'zzz'"):
        bench.runner.get("zzz")


def test_resume_goes_on_from_what_finished(bench: Bench) -> None:
    pipeline = chain().task("flaky", "echo x >> flaky; [ -f fixed ]", after=["second"])
    pipeline.task("last", after=["flaky"])
    run = bench.run(pipeline, caching=False)
    assert bench.states(run)["last"] == "skipped"
    (bench.work / "fixed").touch()
    bench.events.clear()
    done = bench.runner.resume(run.id, bench.events.append)
    assert done.state == "succeeded"
    assert done.id == run.id
    started = [e.name for e in bench.events if e.task and e.task.state == "running"]
    assert started == ["flaky", "last"]
    assert done.task("first") == run.task("first")
    with pytest.raises(StateError, match="has succeeded"):
        bench.runner.resume(run.id, bench.events.append)


def test_resume_runs_again_what_was_damaged(bench: Bench) -> None:
    run = bench.run(chain().task("bad", "[ -f fixed ]"), caching=False)
    artifact = run.artifact("first.data")
    assert artifact is not None
    Path(artifact.uri).write_text("dat")
    (bench.work / "fixed").touch()
    done = bench.runner.resume(run.id, bench.events.append)
    assert done.state == "succeeded"
    assert text_of(done, "first.data") == "data7\n"


def test_pruning_keeps_what_kept_runs_refer_to(bench: Bench) -> None:
    one = bench.run(chain())
    other = bench.run(chain(), n=2)
    cached = bench.run(chain())
    failed = bench.run(Pipeline().task("t", "exit 1"))
    dry = bench.runner.prune(2, dry_run=True)
    assert dry.runs == (other.id, one.id)
    pruned = bench.runner.prune(2)
    assert pruned == dry
    assert pruned.bytes > 0
    assert [run.id for run in bench.runner.list()] == [failed.id, cached.id]
    assert text_of(bench.runner.get(cached.id), "second.data") == "more7\n"
    assert not (bench.state / "runs" / other.id).exists()
    assert bench.states(bench.run(chain())) == {"first": "cached", "second": "cached"}
    assert bench.states(bench.run(chain(), n=2)) == {"first": "succeeded", "second": "succeeded"}


def test_pruning_by_size_removes_the_oldest(bench: Bench) -> None:
    runs = [
        bench.run(Pipeline().task("t", f"head -c 100000 /dev/urandom > {out('d')}", writes=["d"]),
                  caching=False)
        for _ in range(3)
    ]  # fmt: skip
    (bench.state / "runs" / "r-unknown").mkdir()
    assert bench.runner.prune(50, 250_000).runs == (runs[0].id,)
    assert sorted(path.name for path in (bench.state / "runs").iterdir()) == sorted(
        run.id for run in runs[1:]
    )
