"""One release's KServe model server, as a process of its own (a script of the serving environment).

``python backend.py '{"name": ..., "code": ..., "predictor": ..., "model_dir": ..., "ready": ...,
"parent": pid}'`` loads the class ``Predictor`` (a ``kserve.Model``) and serves it over REST, V1 and
Open Inference Protocol, on a free port of 127.0.0.1. When it answers it writes ``{"pid", "port"}``
to the file ``ready``, whole or not at all. SIGTERM ends it after the requests in flight; the end
of its parent (standard input closes) ends it at once. It uses the standard library and kserve only.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

#: prctl(2): the signal that the kernel sends when the parent ends.
_PR_SET_PDEATHSIG = 1
#: Longer than the front keeps an idle connection, so that the front is the one who closes it.
_KEEP_ALIVE = 120
#: Seconds that requests in flight have after SIGTERM.
_GRACE = 30


def _die_with(parent: int) -> None:
    """End when the parent ends, however it ends.

    The kernel's signal also reaches a predictor that is stuck in native code; the pipe works on
    every system.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was asked


def _load(spec: dict[str, Any]) -> Any:
    """The project's model, loaded. Ends the process with one clear line where it is none."""
    import kserve

    code, file = Path(spec["code"]), Path(spec["code"]) / spec["predictor"]
    sys.path[0] = str(code)  # in place of this script's own folder
    if file.parent != code:
        sys.path.insert(0, str(file.parent))
    found = importlib.util.spec_from_file_location("predictor", file)
    if found is None or found.loader is None or not file.is_file():
        raise SystemExit(f"there is no predictor {spec['predictor']}")
    module = importlib.util.module_from_spec(found)
    sys.modules["predictor"] = module
    found.loader.exec_module(module)
    kind = getattr(module, "Predictor", None)
    if not isinstance(kind, type) or not issubclass(kind, kserve.Model):
        raise SystemExit(f"{spec['predictor']} defines no class Predictor(kserve.Model)")
    model: Any = kind(spec["name"], spec["model_dir"])
    if not model.ready:
        model.load()
    if not model.ready:
        raise SystemExit("Predictor.load() did not set self.ready: the model is not loaded")
    return model


def _announce(ready: Path, port: int) -> None:
    half = ready.with_suffix(".half")
    half.write_text(json.dumps({"pid": os.getpid(), "port": port}), encoding="utf-8")
    half.replace(ready)


def _serve(model: Any, ready: Path) -> None:
    """Run kserve's own server on a socket of 127.0.0.1; kserve itself knows only 0.0.0.0."""
    import kserve.model_server as ms

    # Named as TCP, or asyncio does not switch Nagle's delay (40 ms an answer) off.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    kserve_rest = ms.RESTServer

    def local_rest(*args: Any, **kwargs: Any) -> Any:
        rest = kserve_rest(*args, **kwargs)

        async def start() -> None:
            rest.create_application()
            serving = asyncio.ensure_future(rest._server.serve(sockets=[listener]))
            while not rest._server.started and not serving.done():
                await asyncio.sleep(0.005)
            if rest._server.started:
                _announce(ready, listener.getsockname()[1])
            await serving

        rest.start = start
        return rest

    ms.RESTServer = local_rest
    server = ms.ModelServer(
        http_port=0,
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
        grace_period=_GRACE,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False
    server.start([model])


def main() -> None:
    """Serve what the argument says until told to end."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    _die_with(spec["parent"])
    # kserve reads the command line and this variable while it is imported.
    sys.argv = sys.argv[:1]
    os.environ.setdefault("KSERVE_LOGLEVEL", "WARNING")
    _serve(_load(spec), Path(spec["ready"]))


if __name__ == "__main__":
    main()
