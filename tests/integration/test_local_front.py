"""The front alone: HTTP as it passes through, and what its control socket promises.

Its model servers are a small echo program here, which starts fast and shows what it was sent.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctflow.ports import Environment
from ctflow.serving.local.control import CommandRefused, Front, kill_front, start_front

ECHO = r"""
import http.server, json, os, sys, threading, time
said = json.loads(sys.argv[1])
gate = said["model_dir"]

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/slow"):
            while not os.path.exists(gate):
                time.sleep(0.01)
        if self.path == "/drop":
            self.close_connection = True  # and no answer
            return
        self.send_response(500 if self.path in ("/wrong", "/torn") else 200)
        if self.path == "/torn":
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"not all")
            self.close_connection = True
            return
        if self.path.startswith("/headers"):
            body = json.dumps([self.path, sorted(self.headers.items())]).encode()
        for name in ("content-encoding", "x-a"):
            for value in self.headers.get_all(name, []):
                self.send_header(name, value)
        if self.path == "/chunked":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for part in (body[:10], body[10:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "x-secret")
            self.send_header("x-secret", "1")
            self.end_headers()
            self.wfile.write(body)
        if self.path == "/hang-up":
            self.close_connection = True  # without having said so

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("content-length", "1234")
        self.end_headers()

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
with open(said["ready"] + ".half", "w") as half:
    json.dump({"port": server.server_port}, half)
os.rename(said["ready"] + ".half", said["ready"])
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
server.serve_forever()
"""


class Desk:
    """A running front and what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "echo.py").write_text(ECHO)
        self.environment = Environment("this", Path(sys.prefix), Path(sys.executable), {})
        self.port = start_front(folder, self.environment, 0)
        self.control = self.connect()

    def connect(self) -> Front:
        front = Front.connect(self.folder)
        assert front is not None
        return front

    def add(self, key: str, front: Front | None = None) -> None:
        spec = {"key": key, "model": f"sha256:{key}", "name": "m", "code": str(self.folder)}
        spec |= {"predictor": "", "model_dir": str(self.folder / "gate")}
        spec |= {"python": sys.executable, "program": str(self.folder / "echo.py")}
        spec |= {"log": str(self.folder / "log")}
        asked: dict[str, Any] = {**spec, "environ": dict(os.environ), "timeout": 30.0}
        (front or self.control).ask("add", spec=asked, timeout=40)

    def backend(self, key: str) -> dict[str, Any]:
        told = self.control.ask("status")["backends"]
        return next((dict(one) for one in told if one["key"] == key), {})

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


def ask(
    client: http.client.HTTPConnection, path: str, body: Any = b"", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request("POST", path, body, named)
    answer = client.getresponse()
    return answer.status, answer.read(), answer.msg


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.add("a")
    desk.control.ask("weights", weights={"a": 100}, commit=True)
    yield desk
    desk.control.close()
    (tmp_path / "gate").touch()
    kill_front(tmp_path)


def test_passes_http_through(desk: Desk) -> None:
    client = desk.client()
    large = os.urandom(10 << 20)
    assert ask(client, "/", large)[1] == large
    longer = os.urandom(20 << 20)  # longer than what is kept to be sent again
    assert ask(client, "/", longer)[1] == longer
    parts = [b"one", b"two" * 5]
    assert ask(client, "/chunked", iter(parts))[1] == b"".join(parts)
    packed = gzip.compress(b"plain")
    _, body, head = ask(client, "/", packed, content_encoding="gzip")
    assert (body, head["content-encoding"]) == (packed, "gzip")
    assert head["x-ctflow-model"] == "sha256:a"
    assert head["x-secret"] is None  # `Connection` named it: not for us
    client.request("HEAD", "/")
    answer = client.getresponse()
    assert (answer.read(), answer.headers["content-length"]) == (b"", "1234")
    assert ask(client, "/", b"after HEAD")[1] == b"after HEAD"


def test_end_to_end_headers_arrive_as_sent(desk: Desk) -> None:
    hop = {"connection": "keep-alive, x-mine", "x_mine": "1", "te": "trailers"}
    path = "/headers/%20%2F?a=%2F&b"
    _, body, _ = ask(desk.client(), path, b"x", x_a="1", host="me", **hop)
    assert json.loads(body)[0] == path
    names = {name.lower(): value for name, value in json.loads(body)[1]}
    assert set(names) <= {"host", "x-a", "content-length", "accept-encoding"}
    assert (names["host"], names["x-a"], names["content-length"]) == ("me", "1", "1")


def test_answers_expect_100_itself(desk: Desk) -> None:
    client = desk.client()
    client.putrequest("POST", "/")
    client.putheader("Expect", "100-continue")
    client.putheader("Content-Length", "4")
    client.endheaders()
    assert client.sock is not None
    assert client.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    client.send(b"body")
    assert client.getresponse().read() == b"body"


def test_a_connection_that_the_backend_closed_is_no_failure(desk: Desk) -> None:
    client = desk.client()
    for _ in range(5):
        assert ask(client, "/hang-up", b"x")[:2] == (200, b"x")
        assert ask(client, "/", b"y")[:2] == (200, b"y")


def test_weights_are_exact_and_a_keep_alive_connection_sees_each_switch(desk: Desk) -> None:
    client = desk.client()
    desk.add("b")

    def shares(requests: int) -> list[str]:
        return [ask(client, "/")[2]["x-ctflow-model"][-1] for _ in range(requests)]

    desk.control.ask("weights", weights={"a": 75, "b": 25})
    assert shares(100).count("b") == 25
    desk.control.ask("weights", weights={"a": 99, "b": 1})
    assert shares(100).count("b") == 1
    desk.control.ask("weights", weights={"b": 100})
    assert set(shares(10)) == {"b"}
    with pytest.raises(CommandRefused, match="not ready"):
        desk.control.ask("weights", weights={"c": 100})
    assert set(shares(10)) == {"b"}


def test_errors_are_counted(desk: Desk) -> None:
    ask(desk.client(), "/wrong")
    ask(desk.client(), "/")
    told = desk.backend("a")
    assert (told["requests"], told["errors"]) == (2, 1)


@pytest.mark.parametrize("path", ["/drop", "/torn"])
def test_an_attempt_that_fails_is_a_request_and_an_error(desk: Desk, path: str) -> None:
    """Both attempts at one request count, each once: more errors than requests make no share."""
    assert ask(desk.client(), path)[0] == 503
    told = desk.backend("a")
    assert (told["requests"], told["errors"]) == (2, 2)


def test_a_client_that_leaves_is_no_error_of_the_model(desk: Desk) -> None:
    with socket.create_connection(("127.0.0.1", desk.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n")
        client.sendall(bytes(20 << 20))  # longer than what is kept to be sent again
        wait_for(lambda: desk.backend("a")["inflight"] == 1)
    wait_for(lambda: desk.backend("a")["inflight"] == 0)
    told = desk.backend("a")
    assert (told["requests"], told["errors"]) == (1, 0)


def test_what_a_lost_deployment_left_is_undone(desk: Desk) -> None:
    lost = desk.connect()
    desk.add("b", lost)
    lost.ask("weights", weights={"a": 10, "b": 90})
    pid = desk.backend("b")["pid"]
    lost.close()
    wait_for(lambda: not desk.backend("b"))
    assert desk.backend("a")["weight"] == 100
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_removing_waits_for_the_requests_in_flight(desk: Desk) -> None:
    answers: list[tuple[int, bytes]] = []
    slow = threading.Thread(target=lambda: answers.append(ask(desk.client(), "/slow", b"long")[:2]))
    slow.start()
    wait_for(lambda: desk.backend("a")["inflight"] == 1)
    desk.add("b")
    desk.control.ask("weights", weights={"b": 100}, commit=True)
    other = desk.connect()
    removing = threading.Thread(target=lambda: other.ask("remove", key="a", timeout=30))
    removing.start()
    assert ask(desk.client(), "/", b"now")[2]["x-ctflow-model"] == "sha256:b"
    assert desk.backend("a")["inflight"] == 1
    (desk.folder / "gate").touch()
    slow.join()
    removing.join()
    other.close()
    assert answers == [(200, b"long")]
    assert not desk.backend("a")


def test_a_dead_backend_answers_503_and_comes_back(desk: Desk) -> None:
    os.kill(desk.backend("a")["pid"], signal.SIGKILL)
    statuses = []

    def recovered() -> bool:
        statuses.append(ask(desk.client(), "/")[0])
        return statuses[-1] == 200

    wait_for(lambda: desk.backend("a")["state"] == "dead")
    wait_for(recovered)
    assert set(statuses[:-1]) == {503}
    assert desk.backend("a")["restarts"] == 1


def test_a_front_that_hangs_is_replaced_on_the_same_port(desk: Desk) -> None:
    told = desk.control.ask("status")
    os.kill(told["pid"], signal.SIGSTOP)
    assert start_front(desk.folder, desk.environment, desk.port) == desk.port
    desk.control.close()
    desk.control = desk.connect()
    assert desk.control.ask("status")["pid"] != told["pid"]
    assert ask(desk.client(), "/")[0] == 503
