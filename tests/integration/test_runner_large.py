"""Large outputs are hashed beside the event loop: logs and other tasks do not wait for them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctflow.lib.digests import digest_path
from ctflow.ports import Event
from ctflow.runners.local import outputs
from tests.conformance.tools import Bench, Pipeline, out, read, text_of


def test_others_run_and_print_while_a_large_file_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of the sparse file is held back until the other tasks have printed and ended."""
    go = threading.Event()
    waited: list[bool] = []

    def slow(path: Path) -> tuple[str, int]:
        if path.name == "big":
            waited.append(go.wait(20))
        return digest_path(path)

    monkeypatch.setattr(outputs, "digest_path", slow)
    bench = Bench(tmp_path)
    pipeline = Pipeline().task("large", f"truncate -s 200M {out('big')}", writes=["big"])
    pipeline.task("after", f"wc -c < {read('d')} > {out('n')}", reads={"d": "large.big"},
                  writes=["n"])  # fmt: skip
    script = "while [ ! -e ../state/runs/*/large/1/big ]; do sleep 0.01; done; echo printed"
    pipeline.task("one", script).task("two", "echo later", after=["one"])
    seen: list[str] = []

    def watch(event: Event) -> None:
        if event.kind == "task" and event.task is not None:
            seen.append(f"{event.name} {event.task.state}")
            if seen[-1] == "two succeeded":
                go.set()

    run = bench.runner.run(bench.request(pipeline.write(tmp_path / "p.json")), watch)
    assert run.state == "succeeded", run.error
    assert waited == [True]
    order = ["two succeeded", "large succeeded", "after running", "after succeeded"]
    assert [one for one in seen if one in order] == order
    artifact = run.artifact("large.big")
    assert artifact is not None
    assert (artifact.digest, artifact.size) == digest_path(Path(artifact.uri))
    assert artifact.size == 200 << 20
    assert set(bench.states(bench.run(pipeline)).values()) == {"cached"}


def test_large_output_that_cannot_be_read_fails_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> tuple[str, int]:
        raise OSError(5, "it is broken")

    monkeypatch.setattr(outputs, "digest_path", broken)
    bench = Bench(tmp_path)
    run = bench.run(Pipeline().task("t", f"truncate -s 20M {out('d')}", writes=["d"]))
    assert run.state == "failed"
    assert "it is broken" in run.error


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_interrupted_while_a_large_file_is_hashed(
    tmp_path: Path, how: signal.Signals, elsewhere: bool
) -> None:
    """Hashing it all would take minutes; the run is canceled at once, and can be gone on with."""
    script = f"echo data > {out('big')}; [ -e fixed ] || truncate -s 300G {out('big')}"
    if elsewhere:  # the output is where the task says in executor_output.json
        said = '{"artifacts": {"big": {"artifacts": [{"uri": "%s"}]}}}'
        script = (
            f"echo data > big; [ -e fixed ] || truncate -s 300G big; "
            f"printf '{said}' \"$PWD/big\" > {{{{$.outputs.output_file}}}}"
        )
    pipeline = Pipeline().task("quick", f"echo a > {out('d')}", writes=["d"])
    pipeline.task("large", script, writes=["big"], after=["quick"])
    pipeline.task("after", "true", after=["large"])
    package = pipeline.write(tmp_path / "package.json")
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.tools", str(tmp_path), str(package)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: any(name.endswith("/big") for name in open_files(driver.pid)))
        driver.send_signal(how)
        # Hashing it all takes many minutes, on any machine.
        text, _ = driver.communicate(timeout=120)
    finally:
        driver.kill()
    assert "interrupted" in text.lower() or "KeyboardInterrupt" in text, text
    bench = Bench(tmp_path)
    run = bench.runner.get("latest")
    assert run.state == "canceled"
    assert bench.states(run) == {"quick": "succeeded", "large": "canceled", "after": "canceled"}
    (bench.work / "fixed").touch()
    (bench.work / "big").unlink(missing_ok=True)
    done = bench.runner.resume(run.id, bench.events.append)
    assert done.state == "succeeded", done.error
    assert text_of(done, "large.big") == "data\n"
    started_again = {e.name for e in bench.events if e.task and e.task.state == "running"}
    assert started_again == {"large", "after"}


def open_files(pid: int) -> list[str]:
    """The paths that a process has open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def test_large_output_elsewhere_is_hashed_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in executor_output.json by its uri, by its custom_path, or in a list."""
    threads: dict[str, str] = {}

    def noted(path: Path) -> tuple[str, int]:
        threads[path.name] = threading.current_thread().name
        return digest_path(path)

    monkeypatch.setattr(outputs, "digest_path", noted)
    bench = Bench(tmp_path)
    pipeline = Pipeline()
    for name, word in (("one", "uri"), ("two", "custom_path")):
        said = f'{{"artifacts": {{"d": {{"artifacts": [{{"{word}": "%s"}}]}}}}}}'
        script = f"truncate -s 20M {name}; printf '{said}' \"$PWD/{name}\""
        pipeline.task(name, f"{script} > {{{{$.outputs.output_file}}}}", writes=["d"])
    pipeline.task("folder", f"mkdir {out('many')}; truncate -s 20M {out('many')}/f",
                  writes=["many"])  # fmt: skip
    pipeline.task("small", f"echo a > {out('little')}", writes=["little"])
    run = bench.run(pipeline)
    assert run.state == "succeeded", run.error
    assert threads.pop("little") == threading.current_thread().name
    assert threads.keys() == {"one", "two", "many"}
    assert threading.current_thread().name not in threads.values()
