"""A proxy on loopback in front of a KFP server, which breaks the calls that a test names."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: What becomes of call number n (from 0): None: it goes through.
Fault = Callable[[int, str, str], "str | None"]
#: ``late`` ones reach the server, and its answer is lost.
KINDS = ("cut", "late cut", "502", "late 502", "html", "503 wait")


def only(at: int, kind: str) -> Fault:
    """Call number ``at`` breaks, in one way."""
    return lambda number, method, path: kind if number == at else None


class Proxy:
    """Forwards to ``target``; ``fault`` says which calls break, and how."""

    def __init__(self, target: str) -> None:
        self.fault: Fault = lambda number, method, path: None
        self.calls: list[tuple[str, str]] = []
        host = urlsplit(target)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                number = len(outer.calls)
                outer.calls.append((self.command, self.path))
                kind = outer.fault(number, self.command, self.path)
                if kind is None or kind.startswith("late"):
                    answer = self._forward(body)
                if kind is None:
                    self._send(*answer)
                elif kind.endswith("cut"):
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                elif kind.endswith("502"):
                    self._send(502, {"Content-Type": "text/plain"}, b"no upstream")
                elif kind == "html":
                    self._send(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
                elif kind == "401":
                    self._send(401, {"Content-Type": "application/json"}, b'{"message": "who?"}')
                else:
                    self._send(503, {"Retry-After": "0"}, b"")

            def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                assert host.hostname is not None
                link = http.client.HTTPConnection(host.hostname, host.port or 80, timeout=30)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                    link.request(self.command, self.path, body or None, headers)
                    answer = link.getresponse()
                    kind = answer.headers.get("Content-Type", "")
                    return answer.status, {"Content-Type": kind}, answer.read()
                finally:
                    link.close()

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_PATCH = _any  # noqa: N815

            def log_message(self, *words: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    made = Proxy(target)
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()
        thread.join()
