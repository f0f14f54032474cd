"""Object stores on 127.0.0.1, and a proxy before them that fails as it is told."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.config

#: What a test's process knows of who asks; nothing looks anywhere else.
S3_ENVIRON = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret-value",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
_MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server (moto), empty and in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def s3_client(endpoint: str) -> Any:
    """AWS's own client for the server."""
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="other-key", aws_secret_access_key="other-secret",
        config=botocore.config.Config(retries={"max_attempts": 1}),
    )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request that the proxy saw."""

    method: str
    path: str
    size: int

    @property
    def object(self) -> str:
        """The object's path, without bucket and query."""
        return urlsplit(self.path).path.lstrip("/").partition("/")[2]


#: What the proxy does with a request: (status, body), ``cut``, or None to pass it on.
Fault = Callable[[Asked], "tuple[int, str] | str | None"]


@dataclass
class Proxy:
    """A server before another: ``seen`` are the requests, ``fault`` decides what becomes of one.

    ``headers`` is told each request's headers, as one text.
    """

    target: str
    seen: list[Asked] = field(default_factory=list)
    fault: Fault = field(default=lambda asked: None)
    address: str = ""
    headers: Callable[[str], None] = field(default=lambda text: None)

    def sent(self, method: str = "PUT") -> list[str]:
        """The objects that requests of this method named, in their order."""
        return [one.object for one in self.seen if one.method == method]


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy before the server at ``target``."""
    made = Proxy(target)
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            asked = Asked(self.command, self.path, length)
            made.seen.append(asked)
            made.headers(str(self.headers))
            said = made.fault(asked)
            if said == "cut":
                self._break()
            elif isinstance(said, tuple):
                self._answer(said[0], said[1].encode(), {"Content-Type": "application/xml"})
            else:
                self._pass(body, cut=said == "cut in the body")

        def _pass(self, body: bytes, *, cut: bool) -> None:
            other = http.client.HTTPConnection(host, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            other.request(self.command, self.path, body, headers)
            answer = other.getresponse()
            data = answer.read()
            kept = {
                k: v for k, v in answer.getheaders()
                if k.lower() not in {"content-length", "transfer-encoding", "connection"}
            }  # fmt: skip
            size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            other.close()
            self._answer(answer.status, data, kept, size, cut=cut)

        def _answer(
            self, status: int, data: bytes, headers: dict[str, str], size: str | None = None,
            *, cut: bool = False,
        ) -> None:  # fmt: skip
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", size or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self._break()

        def _break(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 (http.server's)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fails_first(times: int, what: tuple[int, str] | str, pattern: str = "") -> Fault:
    """A fault of the first requests whose ``METHOD path`` has the pattern."""
    left = [times]
    guard = threading.Lock()

    def fault(asked: Asked) -> tuple[int, str] | str | None:
        with guard:
            if left[0] and re.search(pattern, f"{asked.method} {asked.path}"):
                left[0] -= 1
                return what
        return None

    return fault


def xml(code: str, more: str = "") -> str:
    """An S3 error's body."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>"
