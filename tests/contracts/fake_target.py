"""A serving target without a server: what serves is in memory, and so are the models.

A model is a file ``{"factor": number, "fault": ""}``: it answers each number of a V1 request with
that many times the number, and with a fault it does not start. Or it is a folder of the tests'
projects, whose file ``skill`` is the factor. The target passes the contract of the ``Server`` port
(``test_serving_target.py``), as every real one has to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, RunFailed, StateError
from ctflow.model import Check, Deployment
from ctflow.ports import GoldenRequest, ServeRequest, Timed, Trial, Watch
from ctflow.serving.golden import Golden, difference, golden_in


@dataclass(frozen=True)
class Served:
    """What an environment serves."""

    request: ServeRequest
    model: dict[str, Any]
    golden: tuple[Golden, ...]
    code: dict[str, bytes]


class FakeTarget:
    """The ``Server`` port in memory.

    Attributes:
        asked: all requests to deploy, in order.
    """

    def __init__(self) -> None:
        self.asked: list[ServeRequest] = []
        self._served: dict[str, Served] = {}
        self._stopped: set[str] = set()
        self._failure: dict[str, str] = {}

    def deploy(self, request: ServeRequest, watch: Watch) -> Deployment:
        self.asked.append(request)
        path = request.fetch()
        now = self._served.get(request.environment)
        checks: tuple[Check, ...] = ()
        try:
            new = Served(request, *_read(path, request), _code(request.code))
            if now and self._same(now, new):
                # The same by another commit.
                self._served[request.environment] = new
                return self.status(request.environment)
            checks = tuple(_check(new.model, one) for one in new.golden)
            if failed := next((check for check in checks if not check.passed), None):
                raise RunFailed(f"the new model failed the golden request {failed.name!r}")
        except (ConfigError, RunFailed) as error:
            serves = "the last good model still serves" if now else "nothing serves here"
            self._failure[request.environment] = error.fact
            found = self.status(request.environment)
            message = f"{error.fact}; {serves}"
            return replace(found, state="failed", message=message, checks=checks)
        self._served[request.environment] = new
        self._stopped.discard(request.environment)
        self._failure.pop(request.environment, None)
        return replace(self.status(request.environment), checks=checks, changed=True)

    def _same(self, now: Served, new: Served) -> bool:
        if new.request.environment in self._stopped:
            return False
        return (now.model, now.code) == (new.model, new.code) and (
            now.request.model.digest == new.request.model.digest
        )

    def status(self, environment: str) -> Deployment:
        found = self._served.get(environment)
        if environment in self._stopped and found:
            return Deployment(found.request.project, environment, "stopped")
        message = self._failure.get(environment, "")
        if found is None:
            return Deployment("", environment, "absent", message=message)
        digest = found.request.model.digest
        return Deployment(
            found.request.project, environment, "ready", digest,
            url=f"http://fake.test/{environment}", release_commit=found.request.commit, since=1.0,
            message=message, traffic={digest: 100},
        )  # fmt: skip

    def stop(self, environment: str) -> Deployment:
        changed = environment in self._served and environment not in self._stopped
        self._stopped.add(environment)
        return replace(self.status(environment), changed=changed)

    def try_model(self, request: GoldenRequest, watch: Watch) -> Trial:
        model, golden = _read(request.path, request)
        checks = tuple(_check(model, one) for one in golden)
        if request.more is None or not all(check.passed for check in checks):
            return Trial(checks)
        times: list[float] = []
        while request.more(times, sum(times) / 1000):
            times.append(1.0)
        return Trial(checks, Timed(tuple(times), sum(times) / 1000))

    def check(self, environment: str) -> tuple[Check, ...]:
        if self.status(environment).state != "ready":
            raise StateError(f"nothing serves in {environment}")
        found = self._served[environment]
        return tuple(_check(found.model, one) for one in found.golden)


def _read(
    path: Path, request: ServeRequest | GoldenRequest
) -> tuple[dict[str, Any], tuple[Golden, ...]]:
    """The model and its golden requests."""
    if not request.code.is_dir():
        raise ConfigError(f"there is no serving folder {request.code}")
    golden = golden_in(request.code, request.golden)
    text = (path / "skill").read_text() if path.is_dir() else path.read_text()
    model = {"factor": float(text), "fault": ""} if path.is_dir() else json.loads(text)
    if model["fault"]:
        raise RunFailed(f"the model server did not start: {model['fault']}")
    return model, golden


def _check(model: dict[str, Any], golden: Golden) -> Check:
    answer = {"predictions": [model["factor"] * x for x in golden.request["instances"]]}
    why = difference(golden.expect, answer, tolerance=golden.tolerance)
    return Check(golden.name, not why, why)


def _code(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*.*")}
