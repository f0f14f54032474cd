"""The model servers of one environment, as the front (``front.py``) owns them.

Imported by the front, so standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Seconds: for requests in flight to end; for a process to end after SIGTERM; between restarts,
#: first and at most.
DRAIN, END, BACKOFF, BACKOFF_MAX = 30.0, 35.0, 0.2, 10.0


def hold(environ: Mapping[str, str]) -> int | None:
    """Keep a process's Python environment from being pruned until the descriptor is closed.

    The layout of the user's cache is that of ``ctflow.steps.environments``. None where the
    environment is no part of it.
    """
    place = Path(environ.get("VIRTUAL_ENV", ""))
    file = place.parent.parent / "locks" / f"{place.name}.use"
    if place.parent.name != "environments" or not file.parent.is_dir():
        return None
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        return None  # a cache that this user cannot write to, nor prune
    return descriptor


def not_ready(timeout: float) -> str:
    """Why a model server did not start that was given ``timeout`` seconds."""
    return f"it was not ready after {timeout:g} s, see serving.timeout"


class Refused(Exception):
    """A control command that cannot be done; the message says why."""


class Backend:
    """One release's model server process and what it has answered."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.key, self.model = spec, str(spec["key"]), str(spec["model"])
        self.process: asyncio.subprocess.Process | None = None
        self.port = self.weight = self.current = 0
        self.inflight = self.requests = self.errors = self.restarts = 0
        self.state, self.kept = "starting", False
        self.watcher: asyncio.Task[None] | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self.held = hold(self.spec["environ"])

    async def start(self) -> None:
        """Start the process and wait until it answers; raises Refused when it does not."""
        ready = Path("run", f"{self.key[:12]}.{os.getpid()}.ready").absolute()
        ready.parent.mkdir(exist_ok=True)
        ready.unlink(missing_ok=True)
        handed = ("name", "code", "predictor", "model_dir")
        argument = {key: self.spec[key] for key in handed}
        argument |= {"ready": str(ready), "parent": os.getpid()}
        with Path(self.spec["log"]).open("ab") as log:
            self.process = process = await asyncio.create_subprocess_exec(
                self.spec["python"],
                self.spec["program"],
                json.dumps(argument),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.spec["code"],
                env=self.spec["environ"],
                start_new_session=True,
            )
        deadline = time.monotonic() + float(self.spec["timeout"])
        while not ready.exists():
            if process.returncode is not None:
                raise Refused(f"it ended with exit code {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                await self._kill()
                raise Refused(not_ready(float(self.spec["timeout"])))
            await asyncio.sleep(0.02)
        self.port = int(json.loads(ready.read_text(encoding="utf-8"))["port"])
        ready.unlink()
        self.state = "ready"
        if self.watcher is None:
            self.watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        """Note the process's end at once; start it again if it is one to keep."""
        delay = BACKOFF
        while self.process is not None:
            began = time.monotonic()
            await self.process.wait()
            self.state = "dead"
            if time.monotonic() - began > 60:
                delay = BACKOFF
            while self.state == "dead":
                if not self.kept:
                    return
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF_MAX)
                self.restarts += 1
                with contextlib.suppress(Refused, OSError):
                    await self.start()

    async def stop(self) -> None:
        """Let the requests in flight end, then the process."""
        self.weight = 0
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.idle.wait(), DRAIN)
        self.state = "stopping"
        if self.watcher is not None:
            self.watcher.cancel()
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.process.wait(), END)
        await self._kill()
        if self.held is not None:
            os.close(self.held)
            self.held = None

    async def _kill(self) -> None:
        """End what is left of the process's group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Counts a request in flight."""
        self.inflight += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.inflight -= 1
            if not self.inflight:
                self.idle.set()

    def report(self) -> dict[str, Any]:
        """What ``status`` tells."""
        names = ("key", "model", "port", "weight", "state", "kept")
        counts = ("inflight", "requests", "errors", "restarts")
        shown = {name: getattr(self, name) for name in names + counts}
        shown["pid"] = self.process.pid if self.process else None
        return shown


class Pool:
    """The backends and which one answers the next request."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.committed: dict[str, int] = {}

    def choose(self) -> Backend | None:
        """Smooth weighted round robin: 10 % is every tenth request, evenly spread."""
        live = [b for b in self.backends.values() if b.weight and b.state == "ready"]
        if not live:
            return None
        for backend in live:
            backend.current += backend.weight
        best = max(live, key=lambda backend: backend.current)
        best.current -= sum(backend.weight for backend in live)
        return best

    def again(self, failed: Backend) -> Backend | None:
        """Who gets a request that ``failed`` did not answer: itself, if its process lives."""
        process = failed.process
        if failed.state == "ready" and process is not None and process.returncode is None:
            return failed
        live = [b for b in self.backends.values() if b.weight and b.state == "ready"]
        return max(live, key=lambda backend: backend.weight, default=None)

    def weigh(self, weights: dict[str, int], commit: bool) -> None:
        """Set all weights in one step; with ``commit`` they are what a lost deployment leaves."""
        for key in weights:
            if key not in self.backends or self.backends[key].state != "ready":
                raise Refused(f"model server {key[:12]} is not ready")
        for key, backend in self.backends.items():
            backend.weight, backend.current = weights.get(key, 0), 0
            if commit:
                backend.kept = bool(backend.weight)
        if commit:
            self.committed = dict(weights)
