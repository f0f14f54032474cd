"""Serving targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ctflow.lib.quick import dataclass
from ctflow.model import OWN, Check, Deployment, ModelRef
from ctflow.ports.events import Watch


@dataclass(frozen=True)
class ServeRequest:
    """What an environment shall serve.

    Attributes:
        model: the model.
        fetch: brings its content to this machine, for a target that needs it here. OutsideError
            where it cannot be had.
        manifest: the InferenceService manifest of the release, as git has it.
        code: a folder with predictor.py, requirements.txt and golden.json; for a standard runtime
            with the golden requests only, if there are any.
        golden: the golden requests' file; empty: a standard runtime without any.
        runtime: ``predictor``, or the model format whose standard runtime serves it.
        requirements: what a standard runtime has installed beside the server.
        commit: the commit of the default branch that says so.
        canary: traffic percentages to go through, each held for ``pause`` seconds; empty: at once.
        port: the port on 127.0.0.1, or None for any free one (kept from then on).
        image: the image of the project's predictor; empty: it has none. A target without containers
            runs what goes into it: the files of ``code`` that ``.dockerignore`` leaves.
    """

    project: str
    environment: str
    model: ModelRef
    fetch: Callable[[], Path]
    code: Path
    predictor: str
    golden: str
    commit: str
    manifest: bytes = b""
    canary: tuple[int, ...] = ()
    pause: float = 0.0
    port: int | None = None
    runtime: str = OWN
    requirements: tuple[str, ...] = ()
    image: str = ""


#: Told the times so far, in milliseconds, and the seconds they took: whether to time another.
WantsMore = Callable[[Sequence[float], float], bool]


@dataclass(frozen=True)
class GoldenRequest:
    """A model to be tried once with its serving code, before anybody is served by it.

    Attributes:
        project: the name that the model is served under.
        path: the model's content on this machine.
        code, golden, runtime, requirements, image: as in ``ServeRequest``.
        more: what says, given the times so far, whether another answer is to be timed, once all are
            right; None: nothing is timed.
    """

    project: str
    path: Path
    code: Path
    predictor: str
    golden: str
    more: WantsMore | None = None
    runtime: str = OWN
    requirements: tuple[str, ...] = ()
    image: str = ""


@dataclass(frozen=True)
class Timed:
    """How long a model's answers took.

    Attributes:
        times: in milliseconds, in the order of the requests.
        seconds: what they took in all.
        fault: why there are no more of them, where a request failed.
    """

    times: tuple[float, ...] = ()
    seconds: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class Trial:
    """What trying a model told; ``timed`` is None where nothing was timed."""

    checks: tuple[Check, ...]
    timed: Timed | None = None


#: ``Server.try_model``, for who needs nothing else of a serving target.
GoldenCheck = Callable[[GoldenRequest, Watch], Trial]


class Server(Protocol):
    """A serving target."""

    def deploy(self, request: ServeRequest, watch: Watch) -> Deployment:
        """Serve it: start, check with the golden requests, then switch without a dropped request.

        The result's state is ``ready``, or ``failed`` with the last good model still serving and
        the reason in ``message``. Asking for what already serves changes nothing.
        """
        ...

    def status(self, environment: str) -> Deployment:
        """What really runs there now."""
        ...

    def stop(self, environment: str) -> Deployment:
        """Serve nothing there."""
        ...

    def try_model(self, request: GoldenRequest, watch: Watch) -> Trial:
        """Start a model once, apart from every environment, and send the golden requests.

        Where all answers are right and the request asks for it, time them too.

        Raises RunFailed when it does not start, ConfigError when the golden requests are wrong.
        """
        ...

    def check(self, environment: str) -> tuple[Check, ...]:
        """Send the golden requests to what serves now."""
        ...
