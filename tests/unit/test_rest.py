"""The REST client against a real server on loopback that misbehaves in every way."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import ConfigError
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError
from ctflow.rest.patience import Patience

#: What a server does with one request: (status, headers, body), or None to cut the connection.
Answer = "tuple[int, dict[str, str], bytes] | None"


class Server:
    """Answers with what is in ``script``, the last one again and again; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                step = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if step is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                status, headers, data = step
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _any  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def serving(change: Callable[[Server], None] = lambda server: None) -> Iterator[Server]:
    made = Server()
    change(made)
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def said(status: int, data: Any, **headers: str) -> Any:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(data).encode()


def api(url: str, **more: Any) -> Api:
    return Api(f"the service at {url}", url, patience=Patience(sleep=lambda s: None), **more)


def test_what_reads_is_asked_again_and_what_changes_is_not(server: Server) -> None:
    server.script = [None, said(502, {}), said(503, {}), said(200, {"a": 1})]
    assert api(server.url).get("/x") == {"a": 1}
    assert len(server.asked) == 4
    server.script = [said(502, {"message": "no upstream"})]
    with pytest.raises(ApiError, match="answered 502") as failed:
        api(server.url).call("POST", "/x", json={})
    assert (failed.value.unsure, failed.value.said, len(server.asked)) == (True, "no upstream", 5)
    server.script = [None]
    with pytest.raises(ApiError, match="the connection was closed") as failed:
        api(server.url).call("POST", "/x", json={})
    assert failed.value.unsure


def test_a_change_that_was_never_sent_is_asked_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    pauses: list[float] = []
    with pytest.raises(ApiError, match="connection refused") as failed:
        Api("it", url, patience=Patience(3, sleep=pauses.append)).call("POST", "/x", json={})
    assert not failed.value.unsure
    assert len(pauses) == 2


def test_the_server_says_how_long_to_wait(server: Server) -> None:
    pauses: list[float] = []
    server.script = [said(429, {}, **{"Retry-After": "7"}), said(200, {})]
    made = Api("it", server.url, patience=Patience(sleep=pauses.append))
    assert made.call("POST", "/x", json={}) == {}
    assert pauses == [7.0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"), "asks for a login"),
        ((302, {"Location": "https://dex.example/auth?x=secret"}, b""), "login at dex.example"),
        ((200, {}, b"no json"), "not JSON"),
        ((404, {"Content-Type": "text/html"}, b"<html>"), "answered 404"),
        (said(401, {"message": "who?"}), r"does not accept who asks \(401\) \(who\?\)"),
        (said(403, {"message": "no"}), r"does not allow it \(403\)"),
        (said(400, {"message": "a\x1b[31m\nb"}), r"answered 400 \(a \[31m b\)"),
    ],
)
def test_refusals_are_one_line(server: Server, answer: Any, words: str) -> None:
    server.script = [answer]
    with pytest.raises(ApiError, match=words) as failed:
        api(server.url).get("/x")
    assert "\n" not in str(failed.value)
    assert "secret" not in str(failed.value)


def test_a_login_is_renewed_once(server: Server) -> None:
    class Login:
        token = "one"

        def headers(self) -> dict[str, str]:
            return {"Authorization": f"Bearer {self.token}"}

        def renew(self) -> bool:
            self.token = "two"
            return True

    server.script = [said(401, {}), said(200, {"ok": True})]
    assert api(server.url, credentials=Login()).get("/x") == {"ok": True}
    assert [asked[2]["Authorization"] for asked in server.asked] == ["Bearer one", "Bearer two"]
    server.script = [said(401, {})]
    with pytest.raises(ApiError, match="401"):
        api(server.url, credentials=Login()).get("/x")
    assert len(server.asked) == 4


def test_a_login_of_another_place_is_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hidden-word\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.script = [said(200, {})]
    api(server.url).get("/x")
    assert "Authorization" not in server.asked[0][2]


def test_a_file_is_sent_as_kfp_wants_it(server: Server) -> None:
    server.script = [said(200, {})]
    api(server.url).call("POST", "/up", query={"name": "a b/c"}, file=("package.yaml", b"x: 1"))
    _, path, headers, body = server.asked[0]
    assert path == "/up?name=a+b%2Fc"
    assert headers["Content-Type"].startswith("multipart/form-data")
    assert b'name="uploadfile"; filename="package.yaml"' in body
    assert b"x: 1" in body


def test_certificates_are_checked(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def secured(made: Server) -> None:
        made.script = [said(200, {"ok": True})]
        made.http.socket = context.wrap_socket(made.http.socket, server_side=True)

    with serving(secured) as made:
        port = made.http.server_address[1]
        url = f"https://localhost:{port}"
        assert api(url, verify=str(cert)).get("/x") == {"ok": True}
        with pytest.raises(ApiError, match=r"not trusted here.*kubeflow\.ca") as failed:
            api(url, ca_key="kubeflow.ca").call("POST", "/x")
        assert not failed.value.unsure
        with pytest.raises(ApiError, match="is for another host"):
            api(f"https://127.0.0.1:{port}", verify=str(cert)).get("/x")
    with serving(lambda made: made.script.append(said(200, {}))) as made:
        plain = made.url.replace("http://", "https://")
        with pytest.raises(ApiError, match="uses plain HTTP"):
            api(plain).get("/x")


def test_credentials_come_from_outside_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctflow.runners.kubeflow.credentials import FromCommand, FromFile, FromVariable

    with pytest.raises(ConfigError, match="the environment variable KFP_TOKEN is not set"):
        FromVariable("KFP_TOKEN", {}, "Authorization", "Bearer ").headers()
    known = FromVariable("KFP_TOKEN", {"KFP_TOKEN": "abc-def"}, "Authorization", "Bearer ")
    assert known.headers() == {"Authorization": "Bearer abc-def"}
    with pytest.raises(ConfigError, match="holds no credential"):
        FromVariable("KFP_TOKEN", {"KFP_TOKEN": "a\r\nX: y"}, "Authorization").headers()
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot read the token"):
        FromFile(file).headers()
    file.write_text("first-token\n")
    kept = FromFile(file)
    assert kept.headers() == {"Authorization": "Bearer first-token"}
    assert not kept.renew()
    file.write_text("second-token\n")
    assert kept.renew()
    counter = tmp_path / "count"
    counter.write_text("0")
    command = ["sh", "-c", 'n=$(cat count); echo $((n+1)) > count; echo "token-number-$n"']
    asked = FromCommand(command, tmp_path)
    assert asked.headers() == asked.headers() == {"Authorization": "Bearer token-number-0"}
    assert asked.renew()
    assert asked.headers() == {"Authorization": "Bearer token-number-1"}
    with pytest.raises(ConfigError, match="is not installed"):
        FromCommand(["no-such-command"], tmp_path).headers()


def test_a_token_is_asked_for_before_it_ends(tmp_path: Path) -> None:
    import base64
    import time

    from ctflow.runners.kubeflow.credentials import FromCommand

    def token(ends: float) -> str:
        part = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).decode().rstrip("=")
        return f"e30.{part}.sig"

    script = tmp_path / "tokens"
    script.write_text(f"{token(time.time() + 1)}\n{token(time.time() + 3600)}\n")
    take = ["sh", "-c", "head -n 1 tokens; sed -i 1d tokens"]
    made = FromCommand(take, tmp_path)
    first = made.headers()
    made._ends = time.time() - 1  # the moment has come
    assert made.headers() != first
    assert made.headers() == made.headers()
    assert script.read_text() == ""
