"""One try to bring a release to serve: what is seen of it, and how each step is done."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctflow.model import Check as Answered
from ctflow.rollouts import Check, Commit, Confirm, Seen, Shift, Start, Step
from ctflow.serving import golden as g
from ctflow.serving.local.control import CommandRefused, Front
from ctflow.serving.local.layout import Served, State

if TYPE_CHECKING:
    from ctflow.serving.local.rollout import Rollout

#: A canary whose errors would be as unlikely as this, were it as good as the old, is worse.
_SIGNIFICANT = 0.01
#: Seconds that draining and ending an old model server may take.
REMOVE = 90.0


class Failure(Exception):
    """The deployment failed; the message is one line.

    ``checks`` are the golden requests' last, ``details`` the last lines of the server's log.
    """

    def __init__(
        self, message: str, checks: tuple[Answered, ...] = (), details: tuple[str, ...] = ()
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


class Attempt:
    """A release on its way: started, checked, given traffic, committed.

    Attributes:
        state: the environment's, which says what serves once the release is committed.
        failure: why it must not serve, once that is known.
    """

    def __init__(
        self,
        rollout: Rollout,
        front: Front,
        new: Served,
        golden: tuple[g.Golden, ...],
        state: State,
    ) -> None:
        self._rollout, self._front, self._new, self._golden = rollout, front, new, golden
        self.state = state
        self.failure: Failure | None = None
        self._seen = Seen(time.monotonic())
        self._base = ""
        #: What the front said when the present share was set.
        self._before: dict[str, Any] = {}

    def seen(self) -> Seen:
        """How far it is."""
        fault = str(self.failure) if self.failure else ""
        return replace(self._seen, now=time.monotonic(), fault=fault)

    def do(self, step: Step) -> None:
        """Do a step of a rollout; what goes wrong in it is the failure."""
        try:
            if isinstance(step, Start):
                self._start()
            elif isinstance(step, Check):
                self._check()
            elif isinstance(step, Shift):
                self._shift(step.percent)
            elif isinstance(step, Confirm):
                self._confirm()
            elif isinstance(step, Commit):
                self._commit()
        except Failure as failure:
            self.failure = failure

    def _start(self) -> None:
        rollout = self._rollout
        rollout.note(f"starting the model server of {rollout.request.environment}")
        self._base = f"http://127.0.0.1:{rollout.add(self._front, self._new)}"
        old = self._front.ask("status")["committed"]
        serves = next(iter(old)) if old and self._new.key not in old else None
        self._seen = replace(self._seen, ready=True, serves=serves)

    def _check(self) -> None:
        seen = self._seen
        if seen.share and seen.serves:
            self._compare(self._front.ask("status"), seen.serves)
        who = f"at {seen.share}% the new model" if seen.share else "the new model"
        checks = g.send_all(self._base, self._rollout.request.project, self._golden)
        asked = self._golden != (g.READY,)
        self._rollout.checks = checks if asked else ()  # which are told of as golden requests
        for check in checks:
            if not check.passed:
                what = f"failed the golden request {check.name!r}" if asked else "is not ready"
                raise Failure(f"{who} {what}: {check.detail}", checks)
        self._seen = replace(seen, checked=time.monotonic())

    def _compare(self, after: dict[str, Any], old: str) -> None:
        new, checks = self._new.key, self._rollout.checks
        if backend_of(after, new)["state"] != "ready":
            raise Failure("the new model's server ended during the canary", checks)
        errors = {}
        for key in (new, old):
            now, then = backend_of(after, key), backend_of(self._before, key)
            errors[key] = (now["errors"] - then["errors"], now["requests"] - then["requests"])
        if worse(errors[new], errors[old]):
            failed, asked = errors[new]
            raise Failure(
                f"the new model failed {failed} of {asked} requests during the canary, the old one "
                f"{errors[old][0]} of {errors[old][1]}",
                checks,
            )

    def _shift(self, percent: int) -> None:
        seen = self._seen
        weights = {self._new.key: percent}
        if percent < 100 and seen.serves:
            self._rollout.note(f"{percent}% of the traffic goes to the new model")
            weights[seen.serves] = 100 - percent
        elif seen.share and seen.serves:
            self._compare(self._front.ask("status"), seen.serves)
        try:
            self._before = self._front.ask("weights", weights=weights)
        except CommandRefused as refused:
            raise Failure(f"cannot switch: {refused}", self._rollout.checks) from None
        self._seen = replace(seen, share=percent, since=time.monotonic(), checked=None)

    def _confirm(self) -> None:
        """A real prediction has to come through the port."""
        port, checks = self._before["port"], self._rollout.checks
        answer = g.send(f"http://127.0.0.1:{port}", self._rollout.request.project, self._golden[0])
        if not answer.check.passed:
            raise Failure(
                f"a prediction through port {port} failed: {answer.check.detail}",
                (*checks, answer.check),
            )
        if answer.model != self._new.model:
            raise Failure("the port still answers with another model", checks)
        self._seen = replace(self._seen, confirmed=True)

    def _commit(self) -> None:
        place, before, new = self._rollout.place, self._before, self._new
        new = replace(new, since=self._rollout.now())
        self._front.ask("weights", weights={new.key: 100}, commit=True)
        done = State(new.project, int(before["port"]), new)
        place.write(done)
        for backend in before["backends"]:
            if backend["key"] != new.key:
                self._front.ask("remove", key=backend["key"], timeout=REMOVE)
        current = self.state.current
        place.prune({new.key, current.key if current else new.key})
        self.state = done
        self._seen = replace(self._seen, committed=True)


def backend_of(answer: dict[str, Any], key: str) -> dict[str, Any]:
    """What the front says of a release's model server. Raises Failure."""
    for backend in answer["backends"]:
        if backend["key"] == key:
            return dict(backend)
    raise Failure("the model server is gone")
