"""The local serving target: real KServe model servers on 127.0.0.1, a process for each release.

An environment has a front process (``front.py``), which owns its stable port and its model servers
(``backend.py``), and outlives the command that started it. Raises ``ctflow.errors`` only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError, OutsideError, StateError
from ctflow.lib.quick import dataclass
from ctflow.model import Check, Deployment
from ctflow.ports import Environments, GoldenRequest, Server, ServeRequest, Trial, Watch
from ctflow.serving.local.control import Front, kill_front, locked
from ctflow.serving.local.layout import Place, Served, State

if TYPE_CHECKING:
    from ctflow.serving.local.attempt import Failure

#: Seconds for a front to end: draining, then its model servers' own grace.
_STOP = 120.0


@dataclass(frozen=True)
class _Real:
    """What the front says: shares of the traffic by release key, and what is not well."""

    port: int
    weights: dict[str, int]
    models: dict[str, str]
    unwell: str


class LocalServer(Server):
    """Serves models on this machine.

    Args:
        places: the folder of all environments' serving files.
        environments: makes the serving environments from ``requirements.txt``.
        now: seconds since the epoch.
        ready_timeout: seconds that a model server has until it must answer.
        pass_env: names of variables that model servers get besides the usual ones.
    """

    def __init__(
        self,
        places: Path,
        environments: Environments,
        *,
        now: Callable[[], float] = time.time,
        ready_timeout: float = 60.0,
        pass_env: tuple[str, ...] = (),
    ) -> None:
        self._places, self._environments = places, environments
        self._now, self._ready_timeout, self._pass_env = now, ready_timeout, pass_env

    def deploy(self, request: ServeRequest, watch: Watch) -> Deployment:
        """Serve it; see ``Server``. Deployments of one environment wait for each other.

        Raises:
            StateError: the environment's state file cannot be read.
            OSError: the disk is full or forbidden.
        """
        path = request.fetch()
        place = self._place(request.environment)
        place.folder.mkdir(parents=True, exist_ok=True)
        with locked(place.folder / "deploy.lock"):
            return self._deploy(request, path, place, watch)

    def _deploy(self, request: ServeRequest, path: Path, place: Place, watch: Watch) -> Deployment:
        from ctflow.serving.local.attempt import Failure
        from ctflow.serving.local.rollout import Rollout

        state = place.read()
        rollout = Rollout(place, self._environments, request, watch, self._now, self._ready_timeout,
                          self._pass_env)  # fmt: skip
        front = Front.connect(place.folder)
        try:
            new = place.snapshot(request, path, self._now())
            real = _real(front) if front is not None else None
            if front is not None and real is None:
                front.close()  # it hangs: a new one takes its place
                front = None
            if real is not None and self._serves(real, new, request):
                return self._unchanged(request, place, new, state)
            state = rollout.run(new, state, front)
        except (Failure, ConfigError, StateError, OutsideError) as error:
            failure = error if isinstance(error, Failure) else Failure(str(error), rollout.checks)
            return self._failed(request, place, failure)
        finally:
            if front is not None:
                front.close()
        return replace(self.status(request.environment), checks=rollout.checks, changed=True)

    def _serves(self, real: _Real, new: Served, request: ServeRequest) -> bool:
        at_port = request.port in (None, real.port)
        return at_port and not real.unwell and real.weights == {new.key: 100}

    def _unchanged(
        self, request: ServeRequest, place: Place, new: Served, state: State
    ) -> Deployment:
        since = state.current.since if state.current else new.since
        told = State(request.project, state.port, replace(new, since=since))
        if told != state:
            place.write(told)  # the same model and code, by another commit
        return self.status(request.environment)

    def _failed(
        self,
        request: ServeRequest,
        place: Place,
        failure: Failure,
    ) -> Deployment:
        """Record the failure; without a last good release nothing is left running."""
        reason = str(failure)
        state = replace(place.read(), failure=reason, project=request.project)
        place.write(state)
        if state.current is None or state.stopped:
            self._end(place)
        now = self.status(request.environment)
        serves = "the last good model still serves" if now.traffic else "nothing serves here"
        return replace(
            now,
            state="failed",
            message=f"{reason}; {serves}",
            checks=failure.checks,
            log=failure.details,
        )

    def status(self, environment: str) -> Deployment:
        """What really runs there now; see ``Server``. Raises StateError."""
        place = self._place(environment)
        state = place.read()
        current = state.current
        base = Deployment(state.project, environment, "absent", message=state.failure)
        if state.stopped:
            return replace(base, state="stopped", message="")
        if current is None:
            return base
        url = f"http://127.0.0.1:{state.port}"
        base = replace(base, url=url, model=current.model, release_commit=current.commit)
        front = Front.connect(place.folder)
        real = None
        if front is not None:
            with contextlib.closing(front):
                real = _real(front)
        if real is None or not real.weights:
            reason = "the local server is not running (it was killed, or the machine restarted)"
            return replace(
                base, state="failed", model=None, message=f"{reason}; run `ctflow deploy` again"
            )
        traffic: dict[str, int] = {}
        for key, weight in real.weights.items():
            traffic[real.models[key]] = traffic.get(real.models[key], 0) + weight
        model = max(traffic, key=lambda digest: traffic[digest])
        if model != current.model:  # a deployment was killed between switching and noting it
            base = replace(base, model=model, release_commit=None)
        failure = f"the last deployment failed: {state.failure}" if state.failure else ""
        return replace(
            base,
            state="failed" if real.unwell else "ready",
            since=current.since,
            traffic=traffic,
            message=real.unwell or failure,
        )

    def stop(self, environment: str) -> Deployment:
        """Serve nothing there; requests in flight end first. See ``Server``."""
        place = self._place(environment)
        if not place.folder.is_dir():
            return self.status(environment)
        with locked(place.folder / "deploy.lock"):
            state = place.read()
            self._end(place)
            if state.current is not None:
                place.write(replace(state, stopped=True, failure=""))
            now = self.status(environment)
            return replace(now, changed=state.current is not None and not state.stopped)

    def check(self, environment: str) -> tuple[Check, ...]:
        """Send the golden requests through the environment's port; see ``Server``.

        Raises:
            StateError: nothing serves there.
            ConfigError: the served release's golden requests cannot be read.
        """
        from ctflow.serving import golden as g

        state, now = self._place(environment).read(), self.status(environment)
        if state.current is None or not now.traffic or now.url is None:
            raise StateError(
                f"nothing serves in {environment}", next=f"run `ctflow deploy {environment}`"
            )
        golden = state.current.golden_requests()
        return g.send_all(now.url, state.current.project, golden)

    def try_model(self, request: GoldenRequest, watch: Watch) -> Trial:
        """Start the model once, on its own, and send the golden requests; see ``Server``."""
        from ctflow.serving.local.trial import try_model

        return try_model(request, self._environments, watch, self._ready_timeout, self._pass_env)

    def _place(self, environment: str) -> Place:
        return Place(self._places / environment)

    def _end(self, place: Place) -> None:
        """End the front and with it the model servers, by word, else by signal."""
        front = Front.connect(place.folder)
        if front is not None:
            with contextlib.closing(front), contextlib.suppress(OutsideError):
                front.ask("stop")
                front.wait_end(_STOP)
        kill_front(place.folder)


def _real(front: Front) -> _Real | None:
    """What the front says that it serves, or None where it does not answer."""
    try:
        said: dict[str, Any] = front.ask("status")
    except OutsideError:
        return None
    backends = {one["key"]: one for one in said["backends"]}
    weights = {key: one["weight"] for key, one in backends.items() if one["weight"]}
    dead = [key for key in weights if backends[key]["state"] != "ready"]
    unwell = "the model server ended and is being started again" if dead else ""
    models = {key: one["model"] for key, one in backends.items()}
    return _Real(int(said["port"]), weights, models, unwell)
