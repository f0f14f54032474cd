"""Forwards HTTP requests to the model servers (imported by ``front.py``; uses aiohttp)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from ctflow.serving.local.pool import Backend, Pool
else:  # a script's siblings, in an environment without ctflow
    from pool import Backend, Pool

#: RFC 9110, 7.6.1: these belong to one connection and are not forwarded. ``expect`` is answered
#: here, by uvicorn.
_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect".split()
)
#: A request body up to this size (bytes) is kept whole, so that it can be sent a second time.
_REPLAY = 16 << 20
#: An answer up to this size (bytes) is passed on in one piece.
_WHOLE = 256 << 10

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Proxy:
    """The ASGI application: forwards each request to the backend that the pool chooses."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    def _session(self, fresh: bool) -> aiohttp.ClientSession:
        if fresh:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=1 << 16,
            max_field_size=1 << 16,
        )

    async def open(self) -> None:
        """Make the connection pools; needs the running loop."""
        self._pooled, self._fresh = self._session(False), self._session(True)

    async def close(self) -> None:
        """Close the connections to the backends."""
        for session in (self._pooled, self._fresh):
            if session is not None:
                await session.close()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; one that no backend answered is tried once more."""
        begin, whole = await _begin(receive)
        if begin is None:
            return
        backend = self.pool.choose()
        for session in (self._pooled, self._fresh):
            if backend is None or session is None:
                break
            data = begin if whole else _Rest(begin, receive)
            started = _Started(send)
            backend.requests += 1
            try:
                with backend.serving():
                    await self._forward(session, backend, scope, data, receive, started)
                return
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
                # Once for an attempt, and not where it was the client who failed.
                client = isinstance(data, _Rest) and data.left
                backend.errors += not (started.wrong or client)
                if started.yes or (isinstance(data, _Rest) and data.used):
                    raise
                backend = self.pool.again(backend)
        await _refuse(send)

    async def _forward(
        self,
        session: aiohttp.ClientSession,
        backend: Backend,
        scope: dict[str, Any],
        data: Any,
        receive: Receive,
        send: _Started,
    ) -> None:
        target = scope["raw_path"] + (
            b"?" + scope["query_string"] if scope["query_string"] else b""
        )
        url = URL(f"http://127.0.0.1:{backend.port}{target.decode('ascii')}", encoded=True)
        headers = CIMultiDict((_text(k), _text(v)) for k, v in _end_to_end(scope["headers"]))
        async with session.request(
            scope["method"],
            url,
            headers=headers,
            data=data or None,
            allow_redirects=False,
        ) as response:
            send.wrong = response.status >= 500
            backend.errors += send.wrong
            bare = response.status == 304  # it may name a length and has no body
            kept = [
                (name, value)
                for name, value in _end_to_end(response.raw_headers)
                if not (bare and name.lower() == b"content-length")
            ]
            kept.append((b"x-ctflow-model", backend.model.encode()))
            head = {"type": "http.response.start", "status": response.status, "headers": kept}
            length = response.content_length
            if length is not None and length <= _WHOLE:
                body = await response.read()
                await send(head)
                await send({"type": "http.response.body", "body": body})
                return
            await send(head)
            gone = asyncio.ensure_future(receive())
            try:
                async for chunk in response.content.iter_any():
                    if gone.done():
                        return  # the client left; leaving closes the backend's connection too
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b""})


class _Started:
    """Passes messages on and knows whether the answer has begun, and was a server's error."""

    def __init__(self, send: Send) -> None:
        self._send, self.yes, self.wrong = send, False, False

    async def __call__(self, message: dict[str, Any]) -> None:
        self.yes = True
        await self._send(message)


class _Rest:
    """A long request body as it arrives: what was read already, then the rest."""

    def __init__(self, first: bytes, receive: Receive) -> None:
        self._first, self._receive, self.used, self.left = first, receive, False, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.used = True
        yield self._first
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                raise ConnectionResetError("the client left")
            more = message.get("more_body", False)
            yield message.get("body", b"")


async def _begin(receive: Receive) -> tuple[bytes | None, bool]:
    """The request's body up to ``_REPLAY`` bytes and whether that is all; None: nobody is there."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None, True
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            return b"".join(parts), True
        if size > _REPLAY:
            return b"".join(parts), False


def _end_to_end(headers: Any) -> list[tuple[bytes, bytes]]:
    """The headers without those of the connection and those that ``Connection`` names."""
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    drop = _HOP | {name.strip().lower() for name in named.split(b",")}
    return [(name, value) for name, value in headers if name.lower() not in drop]


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


async def _refuse(send: Send) -> None:
    body = b'{"error":"no model server is ready here; see ctflow status"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
