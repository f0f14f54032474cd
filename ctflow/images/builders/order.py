"""In which order images are built at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from ctflow.images.builders.claims import Busy
from ctflow.images.builders.engine import Target
from ctflow.steps.context import DOCKERFILE

_SMALL = 1 << 20
Result = tuple[str, bool]


def in_order(
    targets: Sequence[Target], submit: Callable[[Target, bool], Future[Result]]
) -> dict[str, Result]:
    """The results by step. Raises what the first that fails raises.

    All at the same time, but of those that install the same the first goes before the others: they
    find its layers in the engine's cache, instead of making them once more each. What is busy with
    another machine is taken up again, with patience, when there is nothing else to do.

    Args:
        submit: begins one, with patience or raising ``Busy``.
    """
    groups: dict[str, list[Target]] = {}
    for target in targets:
        groups.setdefault(_alike(target), []).append(target)
    following = {group[0].step: group[1:] for group in groups.values()}
    waiting = {submit(group[0], False): group[0] for group in groups.values()}
    done: dict[str, Result] = {}
    busy: list[Target] = []
    while waiting or busy:
        if not waiting:
            waiting = {submit(target, True): target for target in busy}
            busy = []
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            target = waiting.pop(future)
            try:
                done[target.step] = future.result()
            except Busy:
                busy.append(target)
            for other in following.pop(target.step, ()):
                waiting[submit(other, False)] = other
    return done


def _alike(target: Target) -> str:
    """Names what comes first in most Dockerfiles, and costs most: they and the requirements."""
    sha = hashlib.sha256()
    for one in target.files:
        if one.path in (DOCKERFILE, "requirements.txt") and 0 < one.size < _SMALL:
            sha.update(one.path.encode() + b"\0" + Path(one.source).read_bytes() + b"\0")
    return sha.hexdigest()
