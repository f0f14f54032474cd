"""One deployment, step by step, under the environment's lock.

Start the new model server beside the old one, send it the golden requests, move the traffic in the
canary's steps, switch, send a real prediction through the port, commit, drain the old one. The
front undoes whatever was not committed as soon as the control connection closes.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError
from ctflow.model import Check
from ctflow.ports import Environments, Event, ServeRequest, Watch
from ctflow.serving import golden as g
from ctflow.serving.local.control import (
    CommandRefused,
    Front,
    PortTaken,
    can_listen,
    last_lines,
    open_log,
    start_front,
    variables,
)
from ctflow.serving.local.layout import Place, Served, State, spec

#: Golden requests during a canary step: at most this many seconds apart.
_WATCH = 5.0
#: A canary whose errors would be as unlikely as this, were it as good as the old, is worse.
_SIGNIFICANT = 0.01
#: Seconds that draining and ending an old model server may take.
_REMOVE = 90.0
#: How many of a model server's last log lines are shown when it does not start.
LOG_LINES = 15


class Failure(Exception):
    """The deployment failed; the message is one line.

    ``checks`` are the golden requests' last, ``details`` the last lines of the server's log.
    """

    def __init__(
        self, message: str, checks: tuple[Check, ...] = (), details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.checks, self.details = checks, details


def worse(canary: tuple[int, int], stable: tuple[int, int]) -> bool:
    """Whether the canary fails significantly more often: one-sided Fisher's exact test.

    Args:
        canary: its (errors, requests) since the step began.
        stable: the old model's.
    """
    errors, requests = canary[0] + stable[0], canary[1] + stable[1]
    if not canary[0] or not canary[1]:
        return False
    if not stable[1]:
        return canary[0] == canary[1]

    def choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    most = min(errors, canary[1])
    least = max(canary[0], errors - stable[1])
    total = choose(requests, canary[1])
    chance = sum(
        math.exp(choose(errors, k) + choose(requests - errors, canary[1] - k) - total)
        for k in range(least, most + 1)
    )
    return chance < _SIGNIFICANT


@dataclass
class Rollout:
    """The collaborators of one deployment."""

    place: Place
    environments: Environments
    request: ServeRequest
    watch: Watch
    now: Callable[[], float]
    ready_timeout: float
    pass_env: tuple[str, ...] = ()
    checks: tuple[Check, ...] = field(default=())

    def run(self, new: Served, state: State, front: Front | None) -> State:
        """Bring ``new`` to serve; returns the state that says so.

        Raises:
            Failure: it does not; the last good release serves.
        """
        golden = g.read_golden(new.golden_file)
        if front is not None and self.request.port not in (None, state.port):
            self._leave_port(front, state)
            front = None
        front, state = self._front(new, state, front)
        with contextlib.closing(front):
            try:
                self._last_good(front, new, state)
                return self._replace(front, new, golden, state)
            except (Failure, CommandRefused):
                front.ask("undo", timeout=_REMOVE)
                raise

    def _replace(
        self, front: Front, new: Served, golden: tuple[g.Golden, ...], state: State
    ) -> State:
        self.note(f"starting the model server of {self.request.environment}")
        base = f"http://127.0.0.1:{self._add(front, new)}"
        self._golden(base, golden, "the new model")
        old = front.ask("status")["committed"]
        if old and new.key not in old:
            self._canary(front, new, base, golden, next(iter(old)))
        return self._switch(front, new, golden, state)

    def _leave_port(self, front: Front, state: State) -> None:
        """End the front, so that one on the newly wanted port can take over."""
        if not can_listen(self.request.port or 0):
            raise Failure(self._taken())
        self.note(f"moving from port {state.port} to {self.request.port}")
        front.ask("stop")
        front.wait_end(_REMOVE)
        front.close()

    def _taken(self) -> str:
        return (
            f"port {self.request.port} is taken by another program; stop that, or set another in "
            f"environments.{self.request.environment}.port"
        )

    def note(self, text: str) -> None:
        """Tell whoever watches."""
        self.watch(Event("note", self.request.environment, text))

    def _front(self, new: Served, state: State, front: Front | None) -> tuple[Front, State]:
        """The running front, or a new one on the environment's port."""
        if front is None:
            environment = self.environments.ensure(new.requirements(), self.watch)
            wanted = self.request.port or state.port
            try:
                port = start_front(self.place.folder, environment, wanted, self.pass_env)
            except PortTaken:
                if self.request.port:
                    raise Failure(self._taken()) from None
                port = start_front(self.place.folder, environment, 0, self.pass_env)
                self.note(f"port {wanted} is taken by another program; serving on {port} instead")
            state = replace(state, port=port, project=self.request.project)
            self.place.write(state)
            front = Front.connect(self.place.folder)
            if front is None:
                raise OutsideError("the local server ended at once", next="deploy again")
        return front, state

    def _last_good(self, front: Front, new: Served, state: State) -> None:
        """After a reboot or a kill the last good release serves again before the new one is tried.

        Were the last good one broken by now, the new one may still be good: only a note then.
        """
        good = state.current
        if good is None or good.key == new.key or state.stopped or front.ask("status")["committed"]:
            return
        try:
            self._add(front, good)
            front.ask("weights", weights={good.key: 100}, commit=True)
        except Failure as failure:
            self.note(f"the last good release does not start any more: {failure}")

    def _add(self, front: Front, served: Served) -> int:
        """Start a release's model server; its port once it answers."""
        environment = self.environments.ensure(served.requirements(), self.watch)
        log = self.place.log(served.key)
        open_log(log)
        program = Path(__file__).with_name("backend.py")
        asked = spec(
            served,
            python=str(environment.python),
            program=str(program),
            environ=variables(environment, self.pass_env),
            log=str(log),
            timeout=self.ready_timeout,
        )
        try:
            answer = front.ask("add", spec=asked, timeout=self.ready_timeout + 60)
        except CommandRefused as refused:
            said = last_lines(log, LOG_LINES)
            raise Failure(
                f"the model server did not start: {refused}" + (f": {said[-1]}" if said else ""),
                details=tuple(said),
            ) from None
        return int(_backend(answer, served.key)["port"])

    def _golden(self, base: str, golden: tuple[g.Golden, ...], who: str) -> None:
        self.checks = g.send_all(base, self.request.project, golden)
        for check in self.checks:
            if not check.passed:
                raise Failure(
                    f"{who} failed the golden request {check.name!r}: {check.detail}", self.checks
                )

    def _canary(
        self, front: Front, new: Served, base: str, golden: tuple[g.Golden, ...], old: str
    ) -> None:
        for percent in self.request.canary:
            if percent >= 100:
                continue  # the switch itself, which follows the last step
            self.note(f"{percent}% of the traffic goes to the new model")
            before = front.ask("weights", weights={new.key: percent, old: 100 - percent})
            end = time.monotonic() + self.request.pause
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _WATCH, max(self.request.pause / 4, 0.05)))  # the step's hold
                self._compare(front.ask("status"), before, new.key, old)
                self._golden(base, golden, f"at {percent}% the new model")
            self._compare(front.ask("status"), before, new.key, old)

    def _compare(self, after: dict[str, Any], before: dict[str, Any], new: str, old: str) -> None:
        if _backend(after, new)["state"] != "ready":
            raise Failure("the new model's server ended during the canary", self.checks)
        errors = {}
        for key in (new, old):
            now, then = _backend(after, key), _backend(before, key)
            errors[key] = (now["errors"] - then["errors"], now["requests"] - then["requests"])
        if worse(errors[new], errors[old]):
            failed, asked = errors[new]
            raise Failure(
                f"the new model failed {failed} of {asked} requests during the canary, the old one "
                f"{errors[old][0]} of {errors[old][1]}",
                self.checks,
            )

    def _switch(
        self, front: Front, new: Served, golden: tuple[g.Golden, ...], state: State
    ) -> State:
        """All traffic to the new model; commit once a real prediction came through the port."""
        before = front.ask("status")
        try:
            front.ask("weights", weights={new.key: 100})
        except CommandRefused as refused:
            raise Failure(f"cannot switch: {refused}", self.checks) from None
        answer = g.send(f"http://127.0.0.1:{before['port']}", self.request.project, golden[0])
        if not answer.check.passed:
            raise Failure(
                f"a prediction through port {before['port']} failed: {answer.check.detail}",
                (*self.checks, answer.check),
            )
        if answer.model != new.model:
            raise Failure("the port still answers with another model", self.checks)
        new = replace(new, since=self.now())
        front.ask("weights", weights={new.key: 100}, commit=True)
        done = State(new.project, int(before["port"]), new)
        self.place.write(done)
        for backend in before["backends"]:
            if backend["key"] != new.key:
                front.ask("remove", key=backend["key"], timeout=_REMOVE)
        self.place.prune({new.key, state.current.key if state.current else new.key})
        return done


def _backend(answer: dict[str, Any], key: str) -> dict[str, Any]:
    for backend in answer["backends"]:
        if backend["key"] == key:
            return dict(backend)
    raise Failure("the model server is gone")
