"""The golden requests: reading them, and the rule that compares answers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError
from ctflow.serving import golden as g
from ctflow.serving.local.attempt import worse

GOOD = {"name": "a", "protocol": "v1", "request": {"instances": [1]}, "expect": {"predictions": []}}


def write(folder: Path, data: Any) -> Path:
    file = folder / "golden.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return file


def test_reads_requests(tmp_path: Path) -> None:
    bare = {"request": {}, "expect": 400}
    first, second = g.read_golden(write(tmp_path, [GOOD, bare]))
    assert (first.name, first.protocol, first.expect) == ("a", "v1", {"predictions": []})
    assert (second.name, second.protocol, second.expect) == ("request 2", "v1", 400)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{", "not JSON"),
        ([], "not a list of golden requests"),
        ({"name": "a"}, "not a list of golden requests"),
        ([GOOD, 3], "entry 2 is not an object"),
        ([GOOD | {"protocol": "v3"}], "entry 1 has protocol 'v3'"),
        ([GOOD | {"request": [1]}], "entry 1 has a request that is not an object"),
        ([GOOD | {"expect": 7}], "entry 1 expects neither"),
        ([GOOD | {"expect": True}], "entry 1 expects neither"),
        ([GOOD | {"expect": {}}], "entry 1 expects neither"),
        ([GOOD | {"name": ""}], "entry 1 has a name"),
        ([GOOD, GOOD | {"expected": {}}], "entry 2 has an unknown key 'expected'"),
        ([{"expect": {"a": 1}}], "entry 1 has no 'request'"),
    ],
)
def test_a_malformed_file_is_named_with_the_entry(tmp_path: Path, data: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        g.read_golden(write(tmp_path, data))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read golden\.json: No such file"):
        g.read_golden(tmp_path / "golden.json")


@pytest.mark.parametrize(
    ("expect", "found"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": [{"x": 1}]}, {"a": [{"x": 1, "y": 2}]}),
        ({"a": 1.0}, {"a": 1.0 + 5e-7}),
        ({"a": 3}, {"a": 3.0}),
        ({"a": 0}, {"a": 1e-13}),
        ({"a": float("nan")}, {"a": float("nan")}),
        ({"a": None, "b": True, "c": "s"}, {"a": None, "b": True, "c": "s"}),
    ],
)
def test_holds(expect: Any, found: Any) -> None:
    assert g.difference(expect, found) == ""


@pytest.mark.parametrize(
    ("expect", "found", "why"),
    [
        ({"a": 1}, {"b": 1}, "a is missing"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b[1] is 3, not 2"),
        ({"a": [1]}, {"a": [1, 1]}, "a has 2 items, not 1"),
        ({"a": 1.0}, {"a": 1.0 + 2e-6}, "a is 1.000002, not 1.0"),
        ({"a": 1}, {"a": True}, "a is True, not 1"),
        ({"a": 1}, {"a": "1"}, "a is '1', not 1"),
        ({"a": float("nan")}, {"a": 0.0}, "a is 0.0, not nan"),
        ({"a": 0.0}, {"a": float("nan")}, "a is nan, not 0.0"),
        ({"a": 1}, [1], "the answer is [1], not {'a': 1}"),
    ],
)
def test_differs(expect: Any, found: Any, why: str) -> None:
    assert g.difference(expect, found) == why


@pytest.fixture
def answering() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that answers what the test says, and keeps the last request."""
    said: dict[str, Any] = {"status": 200, "body": b"{}", "asked": None}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            said["asked"] = (self.path, json.loads(body))
            self.send_response(said["status"])
            self.send_header("content-length", str(len(said["body"])))
            self.send_header("x-ctflow-model", "sha256:ab")
            self.end_headers()
            self.wfile.write(said["body"])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", said
    server.shutdown()
    server.server_close()
    thread.join()


def test_sends_by_protocol_past_any_proxy(
    answering: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    base, said = answering
    said["body"] = b'{"predictions": [1]}'
    answer = g.send(base, "digits", g.Golden("a", "v1", {"instances": []}, {"predictions": [1]}))
    assert answer.check.passed
    assert answer.model == "sha256:ab"
    assert said["asked"] == ("/v1/models/digits:predict", {"instances": []})
    g.send(base, "digits", g.Golden("a", "v2", {"inputs": []}, {"predictions": [1]}))
    assert said["asked"] == ("/v2/models/digits/infer", {"inputs": []})


@pytest.mark.parametrize(
    ("status", "body", "expect", "detail"),
    [
        (500, b"\x1b[31mboom\n<b>", {"a": 1}, "status 500: [31mboom <b>"),
        (200, b"nothing", {"a": 1}, "the answer is not JSON"),
        (200, b"{}", {"a": 1}, "a is missing"),
        (200, b"{}", 400, "status 200, not 400"),
        (400, b"{}", 400, ""),
    ],
)
def test_judges_an_answer(
    answering: tuple[str, dict[str, Any]], status: int, body: bytes, expect: Any, detail: str
) -> None:
    base, said = answering
    said.update(status=status, body=body)
    check = g.send(base, "digits", g.Golden("a", "v1", {}, expect)).check
    assert (check.passed, check.detail) == (not detail, detail)


def test_nobody_there_is_a_failed_check() -> None:
    check = g.send("http://127.0.0.1:1", "digits", g.Golden("a", "v1", {}, 200)).check
    assert not check.passed
    assert check.detail == "no answer (ConnectionError)"


@pytest.mark.parametrize(
    ("canary", "stable", "is_worse"),
    [
        ((0, 10), (0, 90), False),
        ((1, 10), (0, 90), False),  # one in ten happens by chance in ten of a hundred
        ((3, 10), (0, 90), True),
        ((10, 100), (90, 900), False),  # the users' own bad requests fail everywhere
        ((40, 100), (90, 900), True),
        ((0, 0), (5, 10), False),
        ((2, 2), (0, 0), True),
        ((100_000, 500_000), (0, 500_000), True),
    ],
)
def test_a_canary_is_worse_only_beyond_chance(
    canary: tuple[int, int], stable: tuple[int, int], is_worse: bool
) -> None:
    assert worse(canary, stable) is is_worse


@pytest.mark.parametrize(
    ("expect", "found", "why"),
    [
        ({"p": {"$approx": 0.97, "abs": 0.01}}, {"p": 0.965}, ""),
        ({"p": {"$approx": 0.97, "abs": 0.01}}, {"p": 0.95}, "p is 0.95, not near 0.97"),
        ({"p": {"$approx": 200, "rel": 0.1}}, {"p": 219.0}, ""),
        ({"p": {"$approx": 200, "rel": 0.1}}, {"p": 230}, "p is 230, not near 200"),
        ({"p": [{"$range": [0, 1]}, {"$range": [None, 5]}]}, {"p": [1, -7.5]}, ""),
        ({"p": {"$range": [0, 1]}}, {"p": 1.01}, "p is 1.01, not within 0 to 1"),
        ({"p": {"$range": [0, 1]}}, {"p": True}, "p is True, not a number"),
        ({"p": {"$range": [0, 1]}}, {"p": float("nan")}, "p is nan, not within 0 to 1"),
        ({"p": {"$one_of": ["3", {"$range": [8, 9]}]}}, {"p": 8.5}, ""),
        ({"p": {"$one_of": ["3", "8"]}}, {"p": "5"}, "p is '5', none of ['3', '8']"),
    ],
)
def test_what_is_allowed_in_place_of_a_value(expect: Any, found: Any, why: str) -> None:
    assert g.difference(expect, found) == why


def test_a_tolerance_holds_for_all_numbers(tmp_path: Path) -> None:
    entry = {"request": {}, "expect": {"p": [0.5, 100.0]}, "tolerance": {"abs": 0.01}}
    (tmp_path / "golden.json").write_text(json.dumps([entry]))
    (golden,) = g.read_golden(tmp_path / "golden.json")
    near, far = {"p": [0.505, 100.005]}, {"p": [0.5, 100.02]}
    assert g.difference(golden.expect, near, tolerance=golden.tolerance) == ""
    assert (
        g.difference(golden.expect, far, tolerance=golden.tolerance) == "p[1] is 100.02, not 100.0"
    )
    assert g.difference(golden.expect, near) != ""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"expect": {"p": {"$aprox": 1}}},
            "'$aprox'; the known ones are $approx, $range and $one_of",
        ),
        ({"expect": {"p": {"$range": [0]}}}, "$range that is not"),
        ({"expect": {"p": [{"$one_of": []}]}}, "$one_of that is not"),
        ({"expect": {"p": {"$approx": "x"}}}, "$approx that is not"),
        ({"expect": {"p": {"$approx": 1, "within": 2}}}, "tolerance that is not"),
        ({"tolerance": {"abs": -1}}, "tolerance that is not"),
        ({"tolerance": 0.1}, "tolerance that is not"),
    ],
)
def test_wrong_words_are_named(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    entry = {"request": {}, "expect": {"p": 1}} | changed
    (tmp_path / "golden.json").write_text(json.dumps([entry]))
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        g.read_golden(tmp_path / "golden.json")
    assert "entry 1 has" in str(caught.value)
