"""Large outputs are hashed beside the event loop: logs and other tasks do not wait for them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ctflow.digests import digest_path
from ctflow.local import outputs
from ctflow.ports import Event
from tests.conformance.tools import Bench, Pipeline, out, read


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
