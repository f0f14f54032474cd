"""One deployment, step by step, under the environment's lock.

Start the new model server beside the old one, send it the golden requests, move the traffic in the
canary's steps, switch, send a real prediction through the port, commit, drain the old one. The
front undoes whatever was not committed as soon as the control connection closes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.model import Check
from ctflow.ports import Environments, Event, ServeRequest, Watch
from ctflow.rollouts import Done, GoBack, Wait, Wanted, decide
from ctflow.serving import golden as g
from ctflow.serving.local.attempt import REMOVE, Attempt, Failure, backend_of
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

#: How many of a model server's last log lines are shown when it does not start.
LOG_LINES = 15


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
    #: The only place that waits.
    sleep: Callable[[float], None] = time.sleep

    def run(self, new: Served, state: State, front: Front | None) -> State:
        """Bring ``new`` to serve; returns the state that says so.

        Raises:
            Failure: it does not; the last good release serves.
        """
        golden = new.golden_requests()
        if front is not None and self.request.port not in (None, state.port):
            self._leave_port(front, state)
            front = None
        front, state = self._front(new, state, front)
        with contextlib.closing(front):
            try:
                self._last_good(front, new, state)
                return self._replace(front, new, golden, state)
            except (Failure, CommandRefused):
                front.ask("undo", timeout=REMOVE)
                raise

    def _replace(
        self, front: Front, new: Served, golden: tuple[g.Golden, ...], state: State
    ) -> State:
        """Step by step, as ``ctflow.rollouts`` decides."""
        wanted = Wanted(new.key, self.request.canary, self.request.pause)
        attempt = Attempt(self, front, new, golden, state)
        while not isinstance(step := decide(wanted, attempt.seen()), Done):
            if isinstance(step, GoBack):
                raise attempt.failure or Failure(step.reason, self.checks)
            if isinstance(step, Wait):
                self.sleep(step.seconds)
            else:
                attempt.do(step)
        return attempt.state

    def _leave_port(self, front: Front, state: State) -> None:
        """End the front, so that one on the newly wanted port can take over."""
        if not can_listen(self.request.port or 0):
            raise Failure(self._taken())
        self.note(f"moving from port {state.port} to {self.request.port}")
        front.ask("stop")
        front.wait_end(REMOVE)
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
            self.add(front, good)
            front.ask("weights", weights={good.key: 100}, commit=True)
        except Failure as failure:
            self.note(f"the last good release does not start any more: {failure}")

    def add(self, front: Front, served: Served) -> int:
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
        return int(backend_of(answer, served.key)["port"])
