"""Replays recorded exchanges with Kubeflow Pipelines 2.17.0 and compares what is answered.

tests/contracts/kfp/README.md has the recordings' form.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from tests.kfp_server import KfpServer
from tests.kfp_server.values import NEVER, NOT_ENDED, number

FOLDER = Path(__file__).parent / "kfp"
Exchange = dict[str, Any]
_BOUNDARY = "----boundary7d1c"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: Where a made resource's id is in the answer, by the end of the path that makes it.
_MADE = {
    "/pipelines": ("pipeline", "pipeline_id"), "/pipelines/upload": ("pipeline", "pipeline_id"),
    "/pipelines/upload_version": ("version", "pipeline_version_id"),
    "/experiments": ("experiment", "experiment_id"), "/runs": ("run", "run_id"),
    "/recurringruns": ("recurring_run", "recurring_run_id"),
}  # fmt: skip


def exchanges() -> dict[int, Exchange]:
    """The recordings by number."""
    lines = (FOLDER / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    return {found["n"]: found for found in map(json.loads, lines)}


def package(name: str) -> str:
    """The text of a package that the recordings name."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def full(found: Any) -> Any:
    """A recorded value with what it abbreviates written out."""
    if isinstance(found, dict):
        if "@repeat" in found:
            text, times = found["@repeat"]
            return text * times
        if "@package" in found:
            return number(yaml.safe_load(package(found["@package"])))
        return {key: full(value) for key, value in found.items()}
    return [full(value) for value in found] if isinstance(found, list) else found


@dataclass
class Script:
    """A clock and ids that a replay sets, so that orders come out as recorded."""

    now: str = "2026-11-26T00:00:00Z"
    ids: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))

    def clock(self) -> str:
        return self.now

    def new_id(self, kind: str) -> str:
        return self.ids[kind].popleft() if self.ids[kind] else str(uuid.uuid4())

    def expect(self, **ids: str) -> None:
        """The next ids by kind."""
        for kind, value in ids.items():
            self.ids[kind].append(value)


@dataclass
class Replay:
    """One server and the exchanges sent to it; `differences` says what came out otherwise."""

    server: KfpServer
    script: Script
    differences: list[str] = field(default_factory=list)
    #: Recorded words and what stands for them here: page tokens, names that chance made.
    words: dict[str, str] = field(default_factory=dict)

    def send(self, exchange: Exchange) -> tuple[int, str, bytes] | None:
        """Send the recorded request; None where no answer is recorded and none came."""
        body, headers = _request(exchange)
        path = exchange["path"]
        for recorded, own in self.words.items():
            path = path.replace(quote(recorded), quote(own))
        if exchange["status"] is None:
            self._unanswered(exchange["method"], path, headers, body)
            return None
        return self.call(exchange["method"], path, headers, body)

    def call(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of a request."""
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def post(self, path: str, content: object) -> Any:
        """A call that no recording has, but that one needs; the path after `/apis/v2beta1`."""
        data = json.dumps(content).encode()
        status, _, body = self.call("POST", f"/apis/v2beta1{path}", {}, data)
        assert status == 200, body
        return json.loads(body)

    def _unanswered(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> None:
        """Send a request that the server takes and never answers."""
        before = self.server.unanswered
        thread = threading.Thread(target=self._given_up, args=(method, path, headers, body))
        thread.start()
        while self.server.unanswered == before and thread.is_alive():
            time.sleep(0.005)
        assert thread.is_alive(), "the request was answered"

    def _given_up(self, *request: Any) -> None:
        try:
            self.call(*request)
        except (OSError, http.client.HTTPException):
            return  # The server has ended.

    def run(self, exchange: Exchange, ignored: Callable[[Any], Any] = lambda found: found) -> None:
        """Send an exchange and note how the answer differs; `ignored` drops what may."""
        self._prepare(exchange)
        answer = self.send(exchange)
        if answer is None:
            return
        status, kind, body = answer
        recorded: Any = full(exchange.get("answer", exchange.get("text")))
        own: Any = json.loads(body) if "answer" in exchange else body.decode()
        self._learn(recorded, own)
        if "only the first and the last" in exchange.get("note", ""):
            (key,) = recorded.keys() - {"total_size", "next_page_token"}
            assert len(own[key]) == int(exchange[f"{key}_in_answer"])
            recorded[key], own[key] = recorded[key][:1], own[key][:1]
        _cut(recorded, own)
        wanted = (exchange["status"], exchange["type"], ignored(_compared(recorded, self.words)))
        found = (status, kind, ignored(_compared(_shaped(own, recorded), {})))
        if wanted != found:
            self.differences.append(
                f"{exchange['n']} {exchange['name']}\n  recorded {wanted}\n  answered {found}"
            )

    def _prepare(self, exchange: Exchange) -> None:
        answer = exchange.get("answer") or {}
        made = _MADE.get(exchange["path"].partition("?")[0].removeprefix("/apis/v2beta1"))
        if exchange["method"] == "POST" and exchange["status"] == 200 and made:
            kind, key = made
            self.script.expect(**{kind: answer[key]})
            if _TIME.fullmatch(answer["created_at"]):
                self.script.now = answer["created_at"]

    def _learn(self, recorded: Any, own: Any) -> None:
        if isinstance(recorded, dict) and isinstance(own, dict):
            token = recorded.get("next_page_token")
            if token and own.get("next_page_token"):
                self.words[token] = own["next_page_token"]


def _request(exchange: Exchange) -> tuple[bytes | None, dict[str, str]]:
    headers = dict(exchange.get("headers", {}))
    if upload := exchange.get("upload"):
        headers["Content-Type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        head = (
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
            f'name="{upload["field"]}"; filename="{upload["file"]}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{_BOUNDARY}--\r\n"
        return head.encode() + _content(upload["content"]) + tail.encode(), headers
    if "body" not in exchange:
        return None, headers
    body = exchange["body"]
    if isinstance(body, dict) and "@package" in body:
        return _content(body), headers
    text = body if isinstance(body, str) else json.dumps(full(body))
    return text.encode(), headers


def _content(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode()
    text = package(content["@package"]) + content.get("then", "")
    data: bytes = text.encode()
    if size := content.get("size"):
        data += b"\n#".ljust(size - len(data), b"x")
    return data


def _cut(recorded: Any, own: Any) -> None:
    """Of long details, which end in a stack trace, only the beginning was recorded."""
    key = "error_details"
    if isinstance(recorded, dict) and isinstance(own, dict) and key in recorded and key in own:
        recorded[key] = recorded[key].partition("\n@trace")[0]
        if own[key].startswith(recorded[key]):
            own[key] = recorded[key]


def _shaped(own: Any, recorded: Any) -> Any:
    """The own answer in the recording's short form, where that has one."""
    if recorded == "@any":
        return "@any" if own else own
    if isinstance(own, dict) and isinstance(recorded, dict):
        if "@tasks" in recorded:
            return {"@tasks": sorted(_task(task) for task in own["task_details"])}
        return {key: _shaped(value, recorded.get(key)) for key, value in own.items()}
    if isinstance(own, list) and isinstance(recorded, list) and len(own) == len(recorded):
        return [_shaped(one, other) for one, other in zip(own, recorded, strict=True)]
    return own


def _task(task: dict[str, Any]) -> str:
    name = re.sub(r"^(demo|slow|strict)-[0-9a-z]{5}(?=$|\()", "WORKFLOW",
                  task.get("display_name", "-"))  # fmt: skip
    return f"{name} {task.get('state', '-')}"


def _compared(found: Any, words: dict[str, str]) -> Any:
    """What must be the same: not the times, the traces, nor what chance makes."""
    if isinstance(found, dict):
        result = {key: _compared(value, words) for key, value in found.items()}
        if "next_page_token" in result:
            result["next_page_token"] = "TOKEN"
        if "@tasks" in result:
            result["@tasks"] = sorted(
                re.sub(r"^(executor\(0\)) PENDING$", r"\1 RUNNING", task)
                for task in result["@tasks"]
            )  # A pod's own state lags behind its node's.
        if "task_details" in result:
            result["task_details"] = sorted(map(_task_shape, found["task_details"]))
        return result
    if isinstance(found, list):
        return [_compared(value, words) for value in found]
    if isinstance(found, str):
        if _TIME.fullmatch(found):
            return found if found in (NEVER, NOT_ENDED) else "TIME"
        found = found.partition("\nserver.(*")[0]
        for recorded, own in words.items():
            found = found.replace(recorded, own)
    return found


def _task_shape(task: dict[str, Any]) -> str:
    """A task without ids: its name, state, fields, and whether it has ended."""
    state = task.get("state", "-")
    if task.get("display_name") == "executor(0)" and state == "PENDING":
        state = "RUNNING"
    ended = task["end_time"] != NOT_ENDED
    return f"{_task(task).rpartition(' ')[0]} {state} {ended} {' '.join(sorted(task))}"
