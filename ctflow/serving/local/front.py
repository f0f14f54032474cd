"""An environment's stable port on 127.0.0.1, in front of its model servers (a script).

``python front.py '{"port": 8080 or 0, "report": fd}'``, in the environment's folder, holds
``front.lock`` (with its pid) for its life, answers HTTP on the port and JSON lines on
``control.sock``, and owns the model servers (``backend.py``): it starts them, spreads the requests
over them by weight, restarts one that dies, drains one that is removed. They end with it. What a
control connection has changed and not committed is undone when that connection ends, so a
deployment that is killed leaves what served before. It uses what kserve brings: uvicorn, aiohttp.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from ctflow.serving.local.pool import DRAIN, Backend, Pool, Refused, hold
    from ctflow.serving.local.proxy import Proxy
else:  # a script's siblings, in an environment without ctflow
    from pool import DRAIN, Backend, Pool, Refused, hold
    from proxy import Proxy

#: Seconds until a front that nobody uses ends.
_UNUSED = 30.0


class Control:
    """The control socket: status, add, weights, remove, undo, stop; one JSON object a line."""

    def __init__(self, pool: Pool, port: int) -> None:
        self.pool, self.port, self.stopping = pool, port, asyncio.Event()
        self._sessions = 0
        self._unused()

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one control connection; undo what it leaves uncommitted."""
        self._sessions += 1
        changed = False
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                changed = asked["do"] in {"add", "weights"} or changed
                try:
                    reply = {"ok": True} | await self._do(asked)
                except Refused as refused:
                    reply = {"ok": False, "error": str(refused)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, KeyError):
            pass  # a caller that is gone or talks nonsense: as if it had hung up
        except asyncio.CancelledError:
            changed = False  # the front itself ends
        finally:
            self._sessions -= 1
            writer.close()
            if changed:
                await self._undo()
            self._unused()

    async def _do(self, asked: dict[str, Any]) -> dict[str, Any]:
        pool, key = self.pool, str(asked.get("key", ""))
        if asked["do"] == "add":
            await self._add(Backend(asked["spec"]))
        elif asked["do"] == "weights":
            pool.weigh(dict(asked["weights"]), bool(asked.get("commit")))
        elif asked["do"] == "remove":
            await self._remove(key)
        elif asked["do"] == "undo":
            await self._undo()
        elif asked["do"] == "stop":
            self.stopping.set()
        shown = [backend.report() for backend in pool.backends.values()]
        return {"pid": os.getpid(), "port": self.port, "backends": shown} | {
            "committed": pool.committed
        }

    async def _add(self, backend: Backend) -> None:
        old = self.pool.backends.get(backend.key)
        if old is not None:
            if old.state == "ready":
                return
            await self._remove(backend.key)
        self.pool.backends[backend.key] = backend
        try:
            await backend.start()
        except (Refused, OSError) as error:
            self.pool.backends.pop(backend.key, None)
            await backend.stop()
            raise Refused(str(error)) from None

    async def _remove(self, key: str) -> None:
        backend = self.pool.backends.get(key)
        if backend is not None:
            self.pool.committed.pop(key, None)
            await backend.stop()
            if self.pool.backends.get(key) is backend:
                del self.pool.backends[key]

    async def _undo(self) -> None:
        for backend in self.pool.backends.values():
            backend.weight = self.pool.committed.get(backend.key, 0)
        for key in [key for key in self.pool.backends if key not in self.pool.committed]:
            await self._remove(key)

    def _unused(self) -> None:
        """A front without a release that nobody is talking to ends after a while."""

        def end() -> None:
            if not self._sessions and not self.pool.backends:
                self.stopping.set()

        asyncio.get_running_loop().call_later(_UNUSED, end)


async def serve(listener: socket.socket, report: Callable[[], None]) -> None:
    """Answer until told to stop; then end the backends."""
    pool = Pool()
    control, proxy = Control(pool, listener.getsockname()[1]), Proxy(pool)
    await proxy.open()
    Path("control.sock").unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    door.bind("control.sock")
    os.umask(old)
    sessions = await asyncio.start_unix_server(control.session, sock=door, limit=1 << 24)
    server = uvicorn.Server(
        uvicorn.Config(
            proxy,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(DRAIN),
            backlog=2048,
        )
    )

    async def until_told() -> None:
        await control.stopping.wait()
        server.should_exit = True

    told = asyncio.ensure_future(until_told())
    report()
    try:
        await server.serve(sockets=[listener])
    finally:
        told.cancel()
        sessions.close()
        await asyncio.gather(*(backend.stop() for backend in pool.backends.values()))
        await proxy.close()


def main() -> None:
    """Take the lock and the port, say so through the file descriptor ``report``, serve."""
    asked: dict[str, Any] = json.loads(sys.argv[1])

    def report(**said: Any) -> None:
        with os.fdopen(asked["report"], "w") as pipe:
            pipe.write(json.dumps(said))

    lock = os.open("front.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        report(error="another front is running", kind="running")
        return
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    hold(os.environ)  # as long as this process lives
    # Named as TCP, or asyncio does not switch Nagle's delay (40 ms an answer) off.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", asked["port"]))
    except OSError as error:
        report(error=error.strerror or str(error), kind="port")
        return
    port = listener.getsockname()[1]
    # uvicorn ends gracefully on SIGTERM and then raises it again: the backends come first.
    signal.signal(signal.SIGTERM, lambda *_: None)
    asyncio.run(serve(listener, lambda: report(port=port)))
    os.ftruncate(lock, 0)


if __name__ == "__main__":
    main()
