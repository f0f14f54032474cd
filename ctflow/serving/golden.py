"""Golden requests: requests with expected answers that a model server must give.

A golden file is a JSON list of ``{"name", "protocol": "v1" or "v2", "request": {...}, "expect"}``.
``v1`` posts the request to ``/v1/models/<name>:predict``, ``v2`` to ``/v2/models/<name>/infer``
(the Open Inference Protocol). ``expect`` is a part of the answer (objects may hold more keys, lists
are compared item by item, numbers within 1e-6 relative), or an HTTP status code. In place of any
value of it may stand what is allowed there:

- ``{"$approx": 0.97, "abs": 0.01}``, or ``"rel"``: a number that near;
- ``{"$range": [0, 1]}``: a number from the first to the second, both included; null: no end;
- ``{"$one_of": ["3", "8"]}``: one of these values, each as it could stand there itself.

``"tolerance": {"abs": ..., "rel": ...}`` beside ``expect`` holds for all its numbers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError
from ctflow.lib.text import one_line
from ctflow.model import Check

RELATIVE = 1e-6
#: For an expected zero, which has no relative neighbourhood.
ABSOLUTE = 1e-12
#: Seconds until a server must have answered.
TIMEOUT = 30.0
#: Asks no prediction, only whether the model is loaded.
_READY = "ready"
PATHS = {"v1": "/v1/models/{}:predict", "v2": "/v2/models/{}/infer"}
_KEYS = frozenset({"name", "protocol", "request", "expect", "tolerance"})


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be off: relatively to what is expected, or absolutely."""

    rel: float = RELATIVE
    abs: float = ABSOLUTE

    def near(self, expected: float, found: float) -> bool:
        """Whether ``found`` is near enough; NaN is near NaN."""
        if math.isnan(expected) and math.isnan(found):
            return True
        return math.isclose(expected, found, rel_tol=self.rel, abs_tol=self.abs)


@dataclass(frozen=True)
class Golden:
    """One request and what its answer must hold: a JSON value, or a status code as an int."""

    name: str
    protocol: str
    request: dict[str, Any]
    expect: dict[str, Any] | int
    tolerance: Tolerance = Tolerance()


#: What a model without golden requests is asked instead.
READY = Golden("the model is ready", _READY, {}, {"ready": True})


@dataclass(frozen=True)
class Answer:
    """A check and the digest that the answering server named (empty: none)."""

    check: Check
    model: str


def clean(text: str, limit: int = 300) -> str:
    """``text`` as one printable line of at most ``limit`` characters; it may come from anywhere."""
    return one_line(text, limit)


def read_golden(file: Path) -> tuple[Golden, ...]:
    """The golden requests of a file.

    Raises:
        ConfigError: no such file, not JSON, no request in it, or an entry (counted from 1) that
            is not one.
    """
    mend = "write requests with the answers that the model must give"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file.name}: {error.strerror}", next=mend) from None
    except ValueError as error:
        raise ConfigError(f"{file.name} is not JSON: {clean(str(error))}", next=mend) from None
    if not isinstance(data, list) or not data:
        raise ConfigError(f"{file.name} is not a list of golden requests", next=mend)
    return tuple(_entry(file.name, number, entry) for number, entry in enumerate(data, 1))


def golden_in(folder: Path, name: str) -> tuple[Golden, ...]:
    """The golden requests of a serving folder; ``READY`` alone where it has none.

    Args:
        name: the file in the folder; empty: there is none.

    Raises:
        ConfigError: as ``read_golden``.
    """
    return read_golden(folder / name) if name else (READY,)


def _entry(file: str, number: int, entry: Any) -> Golden:
    def wrong(what: str) -> ConfigError:
        return ConfigError(
            f"{file}: entry {number} {clean(what)}",
            next='an entry is {"name", "protocol": "v1" or "v2", "request": {...}, "expect": ...}',
        )

    if not isinstance(entry, dict):
        raise wrong("is not an object")
    if unknown := sorted(set(entry) - _KEYS):
        raise wrong(f"has an unknown key {unknown[0]!r}")
    if missing := sorted({"request", "expect"} - set(entry)):
        raise wrong(f"has no {missing[0]!r}")
    name, protocol = entry.get("name", f"request {number}"), entry.get("protocol", "v1")
    if not isinstance(name, str) or not name:
        raise wrong("has a name that is not text")
    if protocol not in PATHS:
        raise wrong(f"has protocol {protocol!r}, which is neither v1 nor v2")
    if not isinstance(entry["request"], dict):
        raise wrong("has a request that is not an object")
    expect = entry["expect"]
    code = isinstance(expect, int) and not isinstance(expect, bool) and 100 <= expect <= 599
    if not code and (not isinstance(expect, dict) or not expect):
        raise wrong("expects neither a part of the answer nor a status code")
    try:
        check_allowed(expect)
        tolerance = _tolerance(entry.get("tolerance", {}))
    except ValueError as error:
        raise wrong(str(error)) from None
    return Golden(name, protocol, entry["request"], expect, tolerance)


def _tolerance(given: Any) -> Tolerance:
    known = isinstance(given, dict) and given.keys() <= {"abs", "rel"}
    if not known or not all(_is_number(value) and value >= 0 for value in given.values()):
        raise ValueError('has a tolerance that is not {"abs": ..., "rel": ...}')
    rel = given.get("rel", 0.0 if given else RELATIVE)
    return Tolerance(float(rel), float(given.get("abs", ABSOLUTE)))


def check_allowed(expect: Any) -> None:
    """See that each ``$`` word in what is expected is one, rightly used.

    Raises:
        ValueError: it is not; the text says how it is written.
    """
    if isinstance(expect, list):
        for item in expect:
            check_allowed(item)
    if not isinstance(expect, dict):
        return
    word = next((key for key in expect if key.startswith("$")), None)
    if word is None:
        for value in expect.values():
            check_allowed(value)
    elif word == "$approx":
        _tolerance({key: value for key, value in expect.items() if key != word})
        if not _is_number(expect[word]):
            raise ValueError('has a $approx that is not {"$approx": number, "abs" or "rel": ...}')
    elif word == "$range":
        ends = expect[word]
        pair = isinstance(ends, list) and len(ends) == 2 and len(expect) == 1
        if not pair or not all(end is None or _is_number(end) for end in ends):
            raise ValueError('has a $range that is not {"$range": [least, greatest]}')
    elif word == "$one_of":
        if not isinstance(expect[word], list) or not expect[word] or len(expect) != 1:
            raise ValueError('has a $one_of that is not {"$one_of": [values]}')
        check_allowed(expect[word])
    else:
        raise ValueError(f"has {word!r}; the known ones are $approx, $range and $one_of")


def difference(expect: Any, found: Any, where: str = "", tolerance: Tolerance = Tolerance()) -> str:
    """Why ``found`` does not hold ``expect``, naming the place; empty where it does."""
    if isinstance(expect, dict) and any(key.startswith("$") for key in expect):
        return _not_allowed(expect, found, where, tolerance)
    if isinstance(expect, dict) and isinstance(found, dict):
        for key, value in expect.items():
            here = f"{where}.{key}" if where else str(key)
            if key not in found:
                return f"{here} is missing"
            if why := difference(value, found[key], here, tolerance):
                return why
        return ""
    if isinstance(expect, list) and isinstance(found, list):
        if len(expect) != len(found):
            return f"{where} has {len(found)} items, not {len(expect)}"
        pairs = zip(expect, found, strict=True)
        answers = (difference(e, f, f"{where}[{i}]", tolerance) for i, (e, f) in enumerate(pairs))
        return next((why for why in answers if why), "")
    if _is_number(expect) and _is_number(found):
        same = tolerance.near(expect, found)
    else:
        same = type(expect) is type(found) and expect == found
    return "" if same else f"{where or 'the answer'} is {found!r}, not {expect!r}"


def _not_allowed(expect: dict[str, Any], found: Any, where: str, tolerance: Tolerance) -> str:
    place = where or "the answer"
    if "$one_of" in expect:
        if any(not difference(one, found, where, tolerance) for one in expect["$one_of"]):
            return ""
        return f"{place} is {found!r}, none of {expect['$one_of']!r}"
    if not _is_number(found):
        return f"{place} is {found!r}, not a number"
    if "$range" in expect:
        low, high = expect["$range"]
        if (low is None or found >= low) and (high is None or found <= high):
            return ""
        return f"{place} is {found!r}, not within {low} to {high}"
    own = {key: value for key, value in expect.items() if key != "$approx"}
    near = _tolerance(own) if own else tolerance
    if near.near(expect["$approx"], found):
        return ""
    return f"{place} is {found!r}, not near {expect['$approx']!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def send(base: str, model: str, golden: Golden, timeout: float = TIMEOUT) -> Answer:
    """Send one golden request to the server at ``base`` and compare; never raises for an answer.

    Args:
        base: ``http://127.0.0.1:PORT``.
        model: the served model's name.
        golden: what to send.
        timeout: seconds until the server must have answered.
    """
    import requests

    began = time.monotonic()
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the user's must not see 127.0.0.1
            if golden.protocol == _READY:
                response = session.get(f"{base}/v2/models/{model}/ready", timeout=timeout)
            else:
                place = base + PATHS[golden.protocol].format(model)
                response = session.post(place, json=golden.request, timeout=timeout)
        why, digest = _judge(golden, response), response.headers.get("x-ctflow-model", "")
    except requests.Timeout:
        why, digest = f"no answer within {timeout:g} s", ""
    except requests.RequestException as error:
        why, digest = f"no answer ({type(error).__name__})", ""
    check = Check(clean(golden.name, 80), not why, clean(why), time.monotonic() - began)
    return Answer(check, digest)


def _judge(golden: Golden, response: Any) -> str:
    if isinstance(golden.expect, int):
        got = response.status_code
        return "" if got == golden.expect else f"status {got}, not {golden.expect}"
    if response.status_code != 200:
        return f"status {response.status_code}: {clean(response.text, 160)}"
    try:
        return difference(golden.expect, response.json(), tolerance=golden.tolerance)
    except ValueError:
        return "the answer is not JSON"


def send_all(base: str, model: str, golden: Sequence[Golden]) -> tuple[Check, ...]:
    """Send all golden requests, one after another; their checks in that order."""
    return tuple(send(base, model, one).check for one in golden)
