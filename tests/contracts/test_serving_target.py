"""The contract of the ``Server`` port. Every serving target passes it, and so does the fake.

A model answers each number with a multiple of it; 0 times anything is right for the golden request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError, OutsideError, RunFailed, StateError
from ctflow.model import Deployment, ModelRef
from ctflow.ports import GoldenRequest, Server, ServeRequest, ignore
from ctflow.serving.local import LocalServer
from tests.contracts.fake_target import FakeTarget
from tests.integration.test_local_server import PREDICTOR, ThisInterpreter, digest

RIGHT = {"name": "one", "request": {"instances": [0]}, "expect": {"predictions": [0]}}
WRONG = {"name": "wrong", "request": {"instances": [0]}, "expect": {"predictions": [7]}}


@dataclass
class Place:
    """A target, and models and serving code to give it."""

    server: Server
    folder: Path
    opened: set[str] = field(default_factory=set)

    def request(
        self, factor: float, fault: str = "", environment: str = "staging", **given: Any
    ) -> ServeRequest:
        self.opened.add(environment)
        model = self.model(factor, fault)
        reference = ModelRef(f"file://{model}", digest(model.name), "test")
        made = ServeRequest(
            "digits", environment, reference, lambda: model, self.code("first"), "predictor.py",
            "golden.json", "c" * 40,
        )  # fmt: skip
        return replace(made, **given)

    def model(self, factor: float, fault: str = "") -> Path:
        path = self.folder / f"{factor}{fault}"
        path.write_text(json.dumps({"factor": factor, "fault": fault}))
        return path

    def code(self, name: str, *golden: dict[str, Any]) -> Path:
        """A serving folder; made once, with these golden requests."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            (folder / "predictor.py").write_text(PREDICTOR)
            (folder / "requirements.txt").write_text("kserve\n")
            (folder / "golden.json").write_text(json.dumps(golden or [RIGHT]))
        return folder

    def deploy(self, factor: float, fault: str = "", **given: Any) -> Deployment:
        return self.server.deploy(self.request(factor, fault, **given), ignore)


MAKERS: dict[str, Callable[[Path], Server]] = {
    "fake": lambda base: FakeTarget(),
    "local": lambda base: LocalServer(base / "state", ThisInterpreter()),
}


@pytest.fixture(params=list(MAKERS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(MAKERS[request.param](tmp_path), tmp_path)
    yield made
    for environment in made.opened:
        made.server.stop(environment)


def test_where_nothing_was_deployed(place: Place) -> None:
    now = place.server.status("staging")
    assert (now.state, now.model, now.traffic, now.environment) == ("absent", None, {}, "staging")
    with pytest.raises(StateError, match="nothing serves in staging"):
        place.server.check("staging")
    stopped = place.server.stop("staging")
    assert (stopped.state, stopped.changed) == ("absent", False)


def test_it_serves_and_says_so(place: Place) -> None:
    done = place.deploy(2)
    assert (done.state, done.changed, done.message) == ("ready", True, "")
    assert (done.project, done.model, done.traffic) == ("digits", digest("2"), {digest("2"): 100})
    assert done.release_commit == "c" * 40
    assert done.url
    assert done.since
    assert [(one.name, one.passed) for one in done.checks] == [("one", True)]
    assert place.server.status("staging") == replace(done, checks=(), changed=False)
    assert [(one.name, one.passed) for one in place.server.check("staging")] == [("one", True)]
    assert place.server.status("production").state == "absent"


def test_what_serves_already_is_left_alone(place: Place) -> None:
    first = place.deploy(2)
    again = place.deploy(2, commit="d" * 40)
    assert (again.state, again.changed, again.model) == ("ready", False, digest("2"))
    assert (again.since, again.release_commit) == (first.since, "d" * 40)


def test_another_model_takes_its_place(place: Place) -> None:
    place.deploy(2)
    done = place.deploy(3)
    assert (done.state, done.changed, done.traffic) == ("ready", True, {digest("3"): 100})


def test_so_does_the_same_model_with_other_code(place: Place) -> None:
    place.deploy(2)
    code = place.code("second")
    (code / "predictor.py").write_text(PREDICTOR + "\n# faster\n")
    assert place.deploy(2, code=code).changed
    assert not place.deploy(2, code=code).changed


@pytest.mark.parametrize("fault", ["raise", "golden", "file"])
def test_what_fails_changes_nothing(place: Place, fault: str) -> None:
    """A model that does not start or answers wrongly, or code that lacks a file."""
    place.deploy(2)
    given: dict[str, Any] = {}
    if fault == "golden":
        given = {"code": place.code("wrong", RIGHT, WRONG)}
    if fault == "file":
        given = {"code": place.code("less")}
        (given["code"] / "golden.json").unlink()
    failed = place.deploy(3, fault if fault == "raise" else "", **given)
    assert (failed.state, failed.changed) == ("failed", False)
    assert failed.message.endswith("the last good model still serves")
    assert failed.traffic == {digest("2"): 100}
    if fault == "golden":
        assert [one.passed for one in failed.checks] == [True, False]
        assert "'wrong'" in failed.message
    now = place.server.status("staging")
    assert (now.state, now.model) == ("ready", digest("2"))
    assert now.message
    assert [one.passed for one in place.server.check("staging")] == [True]
    # What was good before it is so again.
    assert not place.deploy(2).changed


def test_a_first_one_that_fails_leaves_nothing(place: Place) -> None:
    failed = place.deploy(3, "raise")
    assert (failed.state, failed.model, failed.traffic) == ("failed", None, {})
    assert failed.message.endswith("nothing serves here")
    assert place.server.status("staging").state == "absent"


def test_a_model_that_cannot_be_had(place: Place) -> None:
    place.deploy(2)

    def gone() -> Path:
        raise OutsideError("the model is gone")

    with pytest.raises(OutsideError, match="the model is gone"):
        place.deploy(3, fetch=gone)
    assert place.server.status("staging").model == digest("2")


def test_it_has_what_it_serves_for_itself(place: Place) -> None:
    """The code that it was given is a folder for the time of the call."""
    code = place.code("second")
    place.deploy(2, code=code)
    (code / "golden.json").write_text(json.dumps([WRONG]))
    (code / "predictor.py").unlink()
    assert [one.passed for one in place.server.check("staging")] == [True]


def test_it_stops_and_starts_again(place: Place) -> None:
    place.deploy(2)
    stopped = place.server.stop("staging")
    assert (stopped.state, stopped.changed, stopped.traffic) == ("stopped", True, {})
    assert not place.server.stop("staging").changed
    assert place.server.status("staging").state == "stopped"
    with pytest.raises(StateError, match="nothing serves"):
        place.server.check("staging")
    again = place.deploy(2)
    assert (again.state, again.changed) == ("ready", True)


def test_environments_are_apart(place: Place) -> None:
    place.deploy(2)
    place.deploy(3, environment="production")
    assert place.server.status("staging").model == digest("2")
    place.server.stop("staging")
    assert place.server.status("production").model == digest("3")
    assert [one.passed for one in place.server.check("production")] == [True]


def test_a_model_is_tried_apart_from_what_serves(place: Place) -> None:
    served = place.deploy(2)
    request = GoldenRequest(
        "digits", place.model(3), place.code("first"), "predictor.py", "golden.json"
    )
    trial = place.server.try_model(request, ignore)
    assert ([one.passed for one in trial.checks], trial.timed) == ([True], None)
    timed = place.server.try_model(
        replace(request, more=lambda times, seconds: len(times) < 3), ignore
    ).timed
    assert timed is not None
    assert (len(timed.times), timed.fault) == (3, "")
    wrong = replace(request, code=place.code("wrong", RIGHT, WRONG))
    more = replace(wrong, more=lambda times, seconds: len(times) < 3)
    for one in (wrong, more):
        trial = place.server.try_model(one, ignore)
        assert ([check.passed for check in trial.checks], trial.timed) == ([True, False], None)
    with pytest.raises(RunFailed, match="the model server did not start"):
        place.server.try_model(replace(request, path=place.model(3, "raise")), ignore)
    bad = place.code("bad")
    (bad / "golden.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not a list of golden requests"):
        place.server.try_model(replace(request, code=bad), ignore)
    assert place.server.status("staging") == replace(served, checks=(), changed=False)
