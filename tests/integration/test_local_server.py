"""The local serving target, with real KServe processes on 127.0.0.1."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import requests

from ctflow.errors import ConfigError, RunFailed, StateError
from ctflow.model import Check, Deployment, ModelRef
from ctflow.ports import Environment, Event, GoldenRequest, ServeRequest, Timed, Watch, ignore
from ctflow.serving.local import LocalServer
from ctflow.serving.local.control import Front

PREDICTOR = """
import json, os, time
from pathlib import Path
from kserve import InferOutput, InferResponse, Model


class Predictor(Model):
    def __init__(self, name, model_dir):
        super().__init__(name)
        (file,) = Path(model_dir).iterdir()
        self.said = json.loads(file.read_text())

    def load(self):
        fault = self.said.get("fault")
        if fault == "raise":
            raise ValueError("the weights are broken\\x1b[31m")
        if fault == "exit":
            os._exit(7)
        if fault == "hang":
            time.sleep(3600)
        self.ready = fault != "unready"

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            if self.said.get("fault") == "slow":
                time.sleep(0.03)
            if self.said.get("fault") == "tires":
                self.count = getattr(self, "count", 0) + 1
                if self.count > 40:
                    raise RuntimeError("tired")
            if self.said.get("fault") == "rare" and payload["instances"] == [13]:
                raise RuntimeError("unlucky")
            return {"predictions": [self.said["factor"] * x for x in payload["instances"]]}
        data = [self.said["factor"] * x for x in payload.inputs[0].data]
        out = InferOutput(name="y", shape=[len(data)], datatype="FP64", data=data)
        return InferResponse(response_id="1", model_name=self.name, infer_outputs=[out])
"""
GOLDEN = [
    {
        "name": "one",
        "protocol": "v1",
        "request": {"instances": [0]},
        "expect": {"predictions": [0]},
    },
    {
        "name": "two",
        "protocol": "v2",
        "request": {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [0]}]},
        "expect": {"outputs": [{"name": "y", "data": [0]}]},
    },
]


class ThisInterpreter:
    """Environments that are all the tests' own: it has kserve."""

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        return Environment("this", Path(sys.prefix), Path(sys.executable), {})

    def find(self, requirements: str, python: str = "") -> Environment:
        return self.ensure(requirements, ignore)


class Desk:
    """A serving folder, and models to serve from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / ("state" * 20)  # too long for a socket's path
        self.code = folder / "serving"
        self.code.mkdir()
        (self.code / "predictor.py").write_text(PREDICTOR)
        (self.code / "golden.json").write_text(json.dumps(GOLDEN))
        (self.code / "requirements.txt").write_text("kserve\n")
        self.server = self.another()

    def another(self, **given: Any) -> LocalServer:
        return LocalServer(self.state, ThisInterpreter(), **given)

    def request(self, factor: float, fault: str = "", **given: Any) -> ServeRequest:
        name = f"{factor}{fault}"
        model = self.folder / name
        model.write_text(json.dumps({"factor": factor, "fault": fault}))
        reference = ModelRef(f"file://{model}", digest(name), "test")
        return ServeRequest(
            "digits", "staging", reference, lambda: model, self.code, "predictor.py", "golden.json",
            "c" * 40, **given,
        )  # fmt: skip

    def deploy(self, factor: float, fault: str = "", **given: Any) -> Deployment:
        return self.server.deploy(self.request(factor, fault, **given), ignore)

    def front(self) -> dict[str, Any]:
        front = Front.connect(self.state / "staging")
        assert front is not None
        try:
            return front.ask("status")
        finally:
            front.close()

    def processes(self) -> dict[int, psutil.Process]:
        """Every process whose working folder is in this desk's state."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.state)) and process.status() != "zombie":
                    found[process.pid] = process
            except (psutil.Error, OSError):
                continue
        return found


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")


def predict(url: str | None, values: list[float], session: Any = requests) -> requests.Response:
    response: requests.Response = session.post(
        f"{url}/v1/models/digits:predict", json={"instances": values}, timeout=30
    )
    return response


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.server.stop("staging")
    assert not desk.processes()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One desk for the tests that leave something good serving."""
    desk = Desk(tmp_path_factory.mktemp("served"))
    yield desk
    desk.server.stop("staging")
    assert not desk.processes()


@pytest.fixture
def desk(shared: Desk) -> Desk:
    """It serves factor 2 when a test begins; that is free where the test before left it so."""
    assert shared.deploy(2).state == "ready"
    return shared


def test_serves_both_protocols_on_the_loopback_only(desk: Desk) -> None:
    now = desk.server.status("staging")
    assert (now.project, now.state, now.model) == ("digits", "ready", digest("2"))
    assert (now.release_commit, now.traffic) == ("c" * 40, {digest("2"): 100})
    assert now.since is not None
    answer = predict(now.url, [3])
    assert (answer.json(), answer.headers["x-ctflow-model"]) == ({"predictions": [6]}, digest("2"))
    inputs = [{"name": "x", "shape": [2], "datatype": "FP64", "data": [3, 4]}]
    answer = requests.post(f"{now.url}/v2/models/digits/infer", json={"inputs": inputs}, timeout=9)
    assert answer.json()["outputs"][0]["data"] == [6, 8]
    assert [check.passed for check in desk.server.check("staging")] == [True, True]
    listening = {
        socket.laddr.ip
        for process in desk.processes().values()
        for socket in process.connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert oct((desk.state / "staging" / "control.sock").stat().st_mode & 0o777) == "0o600"


def test_what_serves_already_is_left_alone(desk: Desk) -> None:
    before, since = set(desk.processes()), desk.server.status("staging").since
    (desk.code / "__pycache__").mkdir(exist_ok=True)
    (desk.code / "__pycache__" / "predictor.pyc").write_bytes(b"x")
    again = desk.deploy(2)
    assert (again.state, again.changed, again.since) == ("ready", False, since)
    assert set(desk.processes()) == before


def test_later_edits_of_the_serving_folder_change_nothing_that_serves(desk: Desk) -> None:
    predictor = desk.code / "predictor.py"
    predictor.write_text("broken(")
    try:
        backend = desk.front()["backends"][0]
        os.kill(backend["pid"], signal.SIGKILL)
        wait_for(lambda: desk.front()["backends"][0]["restarts"] == 1)
        wait_for(lambda: desk.server.status("staging").state == "ready")
    finally:
        predictor.write_text(PREDICTOR)
    assert predict(desk.server.status("staging").url, [3]).json() == {"predictions": [6]}


def test_switches_under_load_without_a_failed_request(desk: Desk) -> None:
    url, stop = desk.server.status("staging").url, threading.Event()
    seen: list[list[tuple[int, float]]] = [[] for _ in range(4)]

    def ask(answers: list[tuple[int, float]], keep_alive: bool) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                got = predict(url, [1], session if keep_alive else requests)
                answers.append((got.status_code, got.json().get("predictions", [0])[0]))

    threads = [
        threading.Thread(target=ask, args=(answers, number % 2 == 0))
        for number, answers in enumerate(seen)
    ]
    for thread in threads:
        thread.start()
    try:
        assert desk.deploy(3).state == "ready"
        counts = [len(answers) for answers in seen]
        wait_for(lambda: all(len(s) > count + 5 for s, count in zip(seen, counts, strict=True)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for answers in seen:
        assert {status for status, _ in answers} == {200}
        values = [value for _, value in answers]
        assert values == sorted(values), "an old answer after a new one"
        assert set(values) == {2, 3}
    assert len(desk.processes()) == 2


@pytest.mark.parametrize(
    ("factor", "fault", "says"),
    [
        (4, "raise", "ValueError: the weights are broken [31m"),
        (4, "exit", "exit code 7 before it was ready"),
        (4, "unready", "did not set self.ready"),
        (4, "hang", "it was not ready after 3 s, see serving.timeout"),
    ],
)
def test_a_model_that_does_not_start_changes_nothing(
    desk: Desk, factor: float, fault: str, says: str
) -> None:
    pids = set(desk.processes())
    server = desk.another(ready_timeout=3) if fault == "hang" else desk.server
    failed = server.deploy(desk.request(factor, fault), ignore)
    assert (failed.state, failed.model, failed.changed) == ("failed", digest("2"), False)
    assert says in failed.message
    assert failed.message.endswith("the last good model still serves")
    assert failed.message.isprintable()
    assert set(desk.processes()) == pids
    assert predict(failed.url, [3]).json() == {"predictions": [6]}
    now = desk.server.status("staging")
    assert (now.state, now.traffic) == ("ready", {digest("2"): 100})
    assert says in now.message


def test_a_wrong_golden_answer_changes_nothing(desk: Desk) -> None:
    golden = desk.code / "golden.json"
    wrong = [GOLDEN[0], GOLDEN[1] | {"expect": {"outputs": [{"data": [5]}]}}]
    golden.write_text(json.dumps(wrong))
    pids = set(desk.processes())
    try:
        failed = desk.deploy(4)
    finally:
        golden.write_text(json.dumps(GOLDEN))
    assert failed.state == "failed"
    assert "failed the golden request 'two': outputs[0].data[0] is 0.0, not 5" in failed.message
    assert [check.passed for check in failed.checks] == [True, False]
    assert set(desk.processes()) == pids


@pytest.mark.parametrize("file", ["golden.json", "requirements.txt", "predictor.py"])
def test_a_missing_file_is_a_failed_deployment(desk: Desk, file: str) -> None:
    kept = (desk.code / file).read_bytes()
    (desk.code / file).unlink()
    try:
        failed = desk.deploy(4)
    finally:
        (desk.code / file).write_bytes(kept)
    assert (failed.state, failed.traffic) == ("failed", {digest("2"): 100})
    assert file in failed.message


def test_a_canary_gets_its_share_evenly_and_then_everything(desk: Desk) -> None:
    url, notes = desk.server.status("staging").url, list[str]()
    values: list[float] = []

    def watch(event: Event) -> None:
        notes.append(event.text)
        if "10%" in event.text:
            asking.start()

    def ask() -> None:
        with requests.Session() as session:
            while not values or values[-5:] != [3.0] * 5:
                values.append(predict(url, [1], session).json()["predictions"][0])

    asking = threading.Thread(target=ask)
    now = desk.server.deploy(desk.request(3, canary=(10, 100), pause=0.7), watch)
    asking.join()
    assert now.state == "ready"
    assert now.traffic == {digest("3"): 100}
    places = [place for place, value in enumerate(values) if value == 3]
    canary = [place for place in places if place < places[-5] - 10]
    assert len(canary) >= 3, "".join(str(int(v)) for v in values)
    assert {b - a for a, b in itertools.pairwise(canary)} == {10}


def test_a_canary_that_fails_on_real_traffic_goes_back(desk: Desk) -> None:
    url, stop, threads = desk.server.status("staging").url, threading.Event(), []

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                predict(url, [13], session)

    def watch(event: Event) -> None:
        if "%" in event.text:
            threads.append(threading.Thread(target=ask))
            threads[-1].start()

    try:
        failed = desk.server.deploy(desk.request(4, "rare", canary=(50,), pause=3), watch)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed.state == "failed"
    assert "requests during the canary, the old one 0 of" in failed.message
    assert failed.traffic == {digest("2"): 100}
    assert len(desk.processes()) == 2


def test_a_request_that_no_server_answers_is_a_request_and_an_error(desk: Desk) -> None:
    before = desk.front()["backends"][0]
    (backend,) = [p for p in desk.processes().values() if "backend.py" in " ".join(p.cmdline())]
    backend.suspend()
    url = desk.server.status("staging").url
    with contextlib.suppress(requests.RequestException):
        requests.get(f"{url}/v1/models/digits", timeout=0.5)
    os.kill(backend.pid, signal.SIGKILL)
    wait_for(lambda: desk.front()["backends"][0]["errors"] > before["errors"])
    after = desk.front()["backends"][0]
    assert after["requests"] - before["requests"] >= after["errors"] - before["errors"] > 0


def test_kill_9_of_the_front_leaves_no_orphan_and_deploy_recovers(desk: Desk) -> None:
    before = desk.server.status("staging")
    victims = desk.processes()
    os.kill(desk.front()["pid"], signal.SIGKILL)
    wait_for(lambda: not any(pid in desk.processes() for pid in victims))
    down = desk.server.status("staging")
    assert (down.state, down.traffic) == ("failed", {})
    assert "run `ctflow deploy` again" in down.message
    with pytest.raises(StateError):
        desk.server.check("staging")
    # The last good one serves again even though what is asked for now is bad.
    failed = desk.deploy(4, "raise")
    assert (failed.state, failed.url, failed.model) == ("failed", before.url, digest("2"))
    assert predict(before.url, [3]).json() == {"predictions": [6]}


def test_two_deployments_at_once(empty: Desk) -> None:
    results: list[Deployment] = []

    def go() -> None:
        results.append(empty.another().deploy(empty.request(2), ignore))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.state for one in results] == ["ready", "ready"]
    assert sorted(one.changed for one in results) == [False, True]
    assert len(empty.processes()) == 2
    stopped = empty.server.stop("staging")
    assert (stopped.state, stopped.changed) == ("stopped", True)
    assert not empty.processes()
    assert empty.server.status("staging").state == "stopped"
    again = empty.deploy(2)
    assert (again.state, again.url) == ("ready", results[0].url)


def test_a_first_deployment_that_fails_leaves_nothing(empty: Desk) -> None:
    assert empty.server.status("staging").state == "absent"
    failed = empty.deploy(4, "raise")
    assert (failed.state, failed.model, failed.traffic) == ("failed", None, {})
    assert "nothing serves here" in failed.message
    assert not empty.processes()
    assert empty.server.status("staging").state == "absent"


# -- tried once, before anybody is served ----------------------------------------------------------


def asked(desk: Desk, factor: float, fault: str = "") -> GoldenRequest:
    request = desk.request(factor, fault)
    return GoldenRequest("digits", request.fetch(), desk.code, "predictor.py", "golden.json")


def test_a_model_is_tried_apart_from_what_serves(empty: Desk) -> None:
    served = empty.deploy(2)
    before = sorted(path.name for path in empty.state.rglob("*"))
    checks = empty.server.try_model(asked(empty, 3), ignore).checks
    assert [(check.name, check.passed) for check in checks] == [("one", True), ("two", True)]
    (empty.code / "golden.json").write_text(
        json.dumps([GOLDEN[0] | {"expect": {"predictions": [7]}}])
    )
    (check,) = empty.server.try_model(asked(empty, 3), ignore).checks
    assert (check.passed, check.detail) == (False, "predictions[0] is 0, not 7")
    assert empty.server.status("staging") == replace(served, checks=(), changed=False)
    assert sorted(path.name for path in empty.state.rglob("*")) == before
    assert len(empty.processes()) == 2


def times_of(desk: Desk, count: int, fault: str = "") -> tuple[tuple[Check, ...], Timed | None]:
    request = replace(asked(desk, 3, fault), more=lambda times, seconds: len(times) < count)
    trial = desk.server.try_model(request, ignore)
    return trial.checks, trial.timed


def test_its_answers_are_timed_one_by_one(empty: Desk) -> None:
    began = time.monotonic()
    checks, timed = times_of(empty, 50)
    assert all(check.passed for check in checks)
    assert timed is not None
    assert (len(timed.times), timed.fault) == (50, "")
    assert all(0 < one < 1000 * (time.monotonic() - began) for one in timed.times)
    assert sum(timed.times) <= 1000 * timed.seconds
    # A v1 request of the slow model takes 30 ms, a v2 one nothing: they take turns.
    _, timed = times_of(empty, 20, "slow")
    assert timed is not None
    slow = [one >= 30 for one in timed.times]
    assert slow.count(True) >= 10
    assert slow[0::2] == [True] * 10 or slow[1::2] == [True] * 10
    assert not empty.processes()


def test_an_answer_that_fails_ends_the_timing(empty: Desk) -> None:
    checks, timed = times_of(empty, 200, "tires")
    assert all(check.passed for check in checks)
    assert timed is not None
    # Of every other request 40 are answered: one of the check, ten of the warm-up.
    assert timed.fault == "one: status 500 after 58 timed requests"
    assert len(timed.times) == 58
    assert not empty.processes()


def test_wrong_answers_are_not_timed_and_refusals_count_for_nothing(empty: Desk) -> None:
    refused = GOLDEN[0] | {"name": "refused", "request": {"nothing": []}, "expect": 400}
    (empty.code / "golden.json").write_text(json.dumps([refused]))
    with pytest.raises(ConfigError, match="no request that the model answers"):
        times_of(empty, 5)
    (empty.code / "golden.json").write_text(
        json.dumps([GOLDEN[0] | {"expect": {"predictions": [7]}}])
    )
    checks, timed = times_of(empty, 5)
    assert (checks[0].passed, timed) == (False, None)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", "before it was ready: ValueError: the weights are broken"),
        ("exit", "it ended with exit code 7 before it was ready"),
        ("hang", "it was not ready after 2 s, see serving.timeout"),
    ],
)
def test_a_model_that_cannot_be_tried_says_why(empty: Desk, fault: str, says: str) -> None:
    server = empty.another(ready_timeout=2 if fault == "hang" else 60)
    with pytest.raises(RunFailed) as caught:
        server.try_model(asked(empty, 3, fault), ignore)
    assert says in str(caught.value)
    assert "\x1b" not in str(caught.value) + "".join(caught.value.details)
    assert not empty.processes()
