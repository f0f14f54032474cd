"""The stand-in as a server on 127.0.0.1, in this process."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from tests.kfp_server.access import Access
from tests.kfp_server.errors import Refused
from tests.kfp_server.memory import MemoryRunner
from tests.kfp_server.pipelines import NoYaml
from tests.kfp_server.routes import Call, Routes
from tests.kfp_server.store import Runner, Store, random_id
from tests.kfp_server.uploads import RawText, body_of
from tests.kfp_server.values import Item, now, without_empty

if TYPE_CHECKING:
    from typing_extensions import Self

_PLAIN_TEXT = "text/plain; charset=utf-8"


class KfpServer:
    """A stand-in for the API server of Kubeflow Pipelines 2.17.

    With no `runner` runs stay where `advance` and `finish` put them. `grants`, pairs of user and
    namespace, turn multi-user mode on.
    """

    def __init__(
        self,
        runner: Runner | None = None,
        *,
        port: int = 0,
        grants: Collection[tuple[str, str]] | None = None,
        clock: Callable[[], str] = now,
        new_id: Callable[[str], str] = random_id,
    ) -> None:
        self._memory = MemoryRunner(clock, new_id) if runner is None else None
        access = Access(grants is not None, grants or ())
        self.store = Store(runner or self._memory_runner(), access, clock, new_id)
        self.routes = Routes(self.store)
        #: Method and path of each request, in the order of their coming.
        self.requests: list[tuple[str, str]] = []
        #: Uploads that are never answered, because what came is no YAML.
        self.unanswered = 0
        self._http = _Front(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def _memory_runner(self) -> MemoryRunner:
        assert self._memory is not None, "a runner of its own decides what becomes of its runs"
        return self._memory

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server; what waits for an answer loses its connection."""
        self.store.ended.set()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread until it is interrupted."""
        self._http.serve_forever()

    # --- what a test says of runs in memory

    def advance(self, run_id: str, states: Mapping[str, str] | None = None) -> None:
        """Make a run RUNNING and set its tasks' states by name (`train`, `train-driver`)."""
        with self.store.lock:
            self._memory_runner().advance(self.store.runs[run_id], states or {})

    def report_without_state(self, run_id: str) -> None:
        """Give a run's history an entry without a state, which it has at times."""
        with self.store.lock:
            run = self.store.runs[run_id]
            run["state_history"].append({"update_time": self.store.clock()})

    def finish(
        self,
        run_id: str,
        state: str = "SUCCEEDED",
        *,
        failed: Collection[str] = (),
        skipped: Collection[str] = (),
    ) -> None:
        """End a run, with tasks that failed or were skipped."""
        with self.store.lock:
            self._memory_runner().finish(self.store.runs[run_id], state, failed, skipped)

    def write_log(self, run_id: str, task: str, text: str) -> str:
        """Give a task's pod a log; returns the pod's name."""
        with self.store.lock:
            return self._memory_runner().write_log(self.store.runs[run_id], task, text)

    def trigger(self, recurring_run_id: str) -> str:
        """Let a recurring run fire once; returns the id of the run."""
        with self.store.lock:
            return str(self.routes.recurring.trigger(recurring_run_id)["run_id"])

    # --- answers

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], data: bytes
    ) -> tuple[int, str, bytes] | None:
        """Status, content type and body; None for a request that is never answered."""
        path, _, query_text = target.partition("?")
        query = dict(parse_qsl(query_text))
        upload = path.startswith("/apis/v2beta1/pipelines/upload")
        with self.store.lock:
            self.requests.append((method, target))
            if not path.startswith("/apis/"):
                return 404, _PLAIN_TEXT, b"404 page not found\n"
            try:
                action, groups = self.routes.find(method, path)
                found = action(Call(groups, query, headers, data))
                return _succeeded(path, _public(found))
            except NoYaml:
                self.unanswered += 1
                return None
            except RawText as text:
                return 400, _PLAIN_TEXT, str(text).encode()
            except Refused as refused:
                return _refused(refused, path, upload)
            except Exception as error:  # noqa: BLE001  # the stand-in's own mistake
                traceback.print_exc()
                words = f"InternalServerError: {error!r}"
                return 500, "application/json", _json(Refused(500, 13, words).body())


def _public(found: Any) -> Any:
    """An answer without what a runner notes for itself."""
    if isinstance(found, dict):
        return {key: _public(value) for key, value in found.items() if not key.startswith("_")}
    return [_public(value) for value in found] if isinstance(found, list) else found


def _succeeded(path: str, found: Any) -> tuple[int, str, bytes]:
    if path.startswith("/apis/v1alpha1/"):
        return 200, _PLAIN_TEXT, found if isinstance(found, bytes) else _json(found)
    shown = found if path.endswith("/healthz") else without_empty(found)
    return 200, "application/json", _json(shown)


def _refused(refused: Refused, path: str, upload: bool) -> tuple[int, str, bytes]:
    kind = _PLAIN_TEXT if refused.plain else "application/json"
    if upload and refused.code != 12:
        return refused.status, kind, _json(body_of(refused))
    if refused.plain and path.endswith(":read"):
        told: Item = {"error_message": refused.message, "error_details": refused.message}
        return refused.status, kind, _json(told)
    return refused.status, "application/json", _json(refused.body())


def _json(found: object) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


class _Front(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: KfpServer) -> None:
        super().__init__(address, _Handler)
        self.owner = owner


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Front

    def _serve(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = owner.answer(self.command, self.path, headers, data)
        if answer is None:
            owner.store.ended.wait()
            self.close_connection = True
            return
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` has them."""
