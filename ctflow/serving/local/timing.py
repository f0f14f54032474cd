"""How long a model server takes to answer: the golden requests in turn, one client, one at a time.

The time is that of the whole answer on one connection that stays open, from the first byte sent to
the last one read. The front that serves an environment is not in between.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import itertools
import json
import time
from collections.abc import Iterator, Sequence

from ctflow.ports import Timed, WantsMore
from ctflow.serving.golden import PATHS, READY, TIMEOUT, Golden, clean

#: Requests, and seconds, that go before: caches fill, code is compiled, a first call imports.
WARM_UP = 20
WARM_UP_SECONDS = 2.0


def worth_timing(golden: Sequence[Golden]) -> list[Golden]:
    """Those that the model answers: one that is to be refused would make it look fast."""
    asked = (one for one in golden if one is not READY)
    return [one for one in asked if not isinstance(one.expect, int) or one.expect == 200]


def timed(port: int, model: str, golden: Sequence[Golden], more: WantsMore) -> Timed:
    """The times of the answers, so long as ``more`` are wanted; a request that fails ends it.

    Args:
        port: the model server's on 127.0.0.1.
        model: the served model's name.
        golden: what to send, in turn; one or more.
    """
    requests = itertools.cycle(
        [(PATHS[one.protocol].format(model), json.dumps(one.request).encode(), one.name)
         for one in golden]
    )  # fmt: skip
    times: list[float] = []
    began = time.perf_counter()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    with contextlib.closing(client), _no_pauses():
        while True:
            warm = len(times) >= WARM_UP or time.perf_counter() - began >= WARM_UP_SECONDS
            if warm:
                break
            took, fault = _one(client, *next(requests))
            if fault:
                return Timed((), 0.0, fault)
            times.append(took)
        times, began = [], time.perf_counter()
        while more(times, time.perf_counter() - began):
            took, fault = _one(client, *next(requests))
            if fault:
                seconds = time.perf_counter() - began
                return Timed(tuple(times), seconds, f"{fault} after {len(times)} timed requests")
            times.append(took)
        return Timed(tuple(times), time.perf_counter() - began)


def _one(
    client: http.client.HTTPConnection, path: str, body: bytes, name: str
) -> tuple[float, str]:
    """(milliseconds, why it failed or "")."""
    began = time.perf_counter()
    try:
        client.request("POST", path, body, {"Content-Type": "application/json"})
        response = client.getresponse()
        response.read()
    except TimeoutError:
        return 0.0, f"{clean(name, 80)}: no answer within {TIMEOUT:g} s"
    except (OSError, http.client.HTTPException) as error:
        return 0.0, f"{clean(name, 80)}: no answer ({type(error).__name__})"
    took = 1000 * (time.perf_counter() - began)
    wrong = response.status != 200
    return took, f"{clean(name, 80)}: status {response.status}" if wrong else ""


@contextlib.contextmanager
def _no_pauses() -> Iterator[None]:
    """Keep our own collector's pauses, long where predictions are held, out of the times."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
