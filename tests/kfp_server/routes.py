"""Which call goes where."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.kfp_server.errors import Refused
from tests.kfp_server.experiments import Experiments
from tests.kfp_server.pipelines import Pipelines
from tests.kfp_server.recurring import Recurring
from tests.kfp_server.runs import Runs
from tests.kfp_server.store import Store
from tests.kfp_server.uploads import Uploads
from tests.kfp_server.values import Body, Item

_ID = r"([^/:]+)"
_BASE = "/apis/v2beta1"


@dataclass(frozen=True)
class Call:
    """A request after parsing; `body` is read by the action that takes one."""

    groups: tuple[str, ...]
    query: dict[str, str]
    headers: Mapping[str, str]
    data: bytes

    def __getitem__(self, index: int) -> str:
        return unquote(self.groups[index])

    @property
    def body(self) -> Body:
        """The JSON; raises the parser's refusal."""
        return Body.parse(self.data)


Action = Callable[[Call], Any]


class Routes:
    """The server's table of calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.pipelines = Pipelines(store)
        self.experiments = Experiments(store)
        self.runs = Runs(store, self.pipelines, self.experiments)
        self.recurring = Recurring(store, self.experiments, self.runs)
        self.uploads = Uploads(self.pipelines)
        self._table = [
            (method, re.compile(pattern), action)
            for method, pattern, action in [
                *self._pipeline_calls(), *self._run_calls(), *self._recurring_calls()
            ]
        ]  # fmt: skip

    def find(self, method: str, path: str) -> tuple[Action, tuple[str, ...]]:
        """The action of a call and its path's parts; raises the router's refusals."""
        matches = [(m, found, action) for m, pattern, action in self._table
                   if (found := pattern.fullmatch(path))]  # fmt: skip
        for found_method, match, action in matches:
            if found_method == method:
                return action, match.groups()
        if matches:
            raise Refused(501, 12, "Method Not Allowed", plain=True)
        raise Refused(404, 5, "Not Found", plain=True)

    def _pipeline_calls(self) -> list[tuple[str, str, Action]]:
        p, e, u = self.pipelines, self.experiments, self.uploads
        pipelines, experiments = f"{_BASE}/pipelines", f"{_BASE}/experiments"
        return [
            ("GET", f"{_BASE}/healthz", lambda c: self._health(pipeline_store="database")),
            ("GET", "/apis/v1beta1/healthz", lambda c: self._health()),
            ("POST", f"{pipelines}/upload", lambda c: u.pipeline(c.query, c.headers, c.data)),
            ("POST", f"{pipelines}/upload_version",
             lambda c: u.version(c.query, c.headers, c.data)),
            ("POST", f"{pipelines}/create", lambda c: p.create_by_url(c.body)),
            ("POST", pipelines, lambda c: p.create(c.body, c.headers)),
            ("GET", pipelines, lambda c: p.list(c.query, c.headers)),
            ("GET", f"{pipelines}/names/([^/]+)", lambda c: p.named(_whole(c[0]))),
            ("GET", f"{pipelines}/{_ID}", lambda c: p.get(c[0])),
            ("PATCH", f"{pipelines}/{_ID}", lambda c: p.patch(c[0], c.body)),
            ("DELETE", f"{pipelines}/{_ID}", lambda c: p.delete(c[0], c.query)),
            ("GET", f"{pipelines}/{_ID}/versions", lambda c: p.list_versions(c[0], c.query)),
            ("POST", f"{pipelines}/{_ID}/versions", lambda c: p.create_version_by_url(c.body)),
            ("GET", f"{pipelines}/{_ID}/versions/{_ID}", lambda c: p.get_version(c[1])),
            ("PATCH", f"{pipelines}/{_ID}/versions/{_ID}",
             lambda c: p.patch_version(c[1], c.body)),
            ("DELETE", f"{pipelines}/{_ID}/versions/{_ID}",
             lambda c: p.delete_version(c[0], c[1])),
            ("POST", experiments, lambda c: e.create(c.body, c.headers)),
            ("GET", experiments, lambda c: e.list(c.query)),
            ("GET", f"{experiments}/{_ID}", lambda c: e.get(c[0])),
            ("POST", f"{experiments}/{_ID}:archive", lambda c: e.archive(c[0])),
            ("POST", f"{experiments}/{_ID}:unarchive", lambda c: e.unarchive(c[0])),
            ("DELETE", f"{experiments}/{_ID}", lambda c: e.delete(c[0])),
        ]  # fmt: skip

    def _run_calls(self) -> list[tuple[str, str, Action]]:
        r, runs = self.runs, f"{_BASE}/runs"
        return [
            ("POST", runs, lambda c: r.create(c.body, c.headers)),
            ("GET", runs, lambda c: r.list(c.query, c.headers)),
            ("GET", f"{runs}/{_ID}", lambda c: r.get(c[0])),
            ("DELETE", f"{runs}/{_ID}", lambda c: r.delete(c[0])),
            ("POST", f"{runs}/{_ID}:terminate", lambda c: r.terminate(c[0])),
            ("POST", f"{runs}/{_ID}:retry", lambda c: r.retry(c[0])),
            ("POST", f"{runs}/{_ID}:archive", lambda c: r.archive(c[0], "ARCHIVED")),
            ("POST", f"{runs}/{_ID}:unarchive", lambda c: r.archive(c[0], "AVAILABLE")),
            ("GET", f"{runs}/{_ID}/nodes/{_ID}/artifacts/{_ID}:read",
             lambda c: {"data": base64.b64encode(r.artifact(c[0], c[1], c[2])).decode()}),
            ("GET", f"/apis/v1alpha1/runs/{_ID}/nodes/{_ID}/log", lambda c: r.log(c[0], c[1])),
        ]  # fmt: skip

    def _recurring_calls(self) -> list[tuple[str, str, Action]]:
        r, recurring = self.recurring, f"{_BASE}/recurringruns"
        return [
            ("POST", recurring, lambda c: r.create(c.body)),
            ("GET", recurring, lambda c: r.list(c.query)),
            ("GET", f"{recurring}/{_ID}", lambda c: r.get(c[0])),
            ("DELETE", f"{recurring}/{_ID}", lambda c: r.delete(c[0])),
            ("POST", f"{recurring}/{_ID}:(enable|disable)", lambda c: r.switch(c[0], c[1])),
        ]

    def _health(self, **more: str) -> Item:
        return {
            "commit_sha": "unknown", "tag_name": "2.17.0",
            "multi_user": self.store.access.multi_user, **more,
        }  # fmt: skip


def _whole(name: str) -> str:
    """A name from a path; one with a slash never gets to the server's own code."""
    if "/" in name:
        raise Refused(404, 5, "Not Found", plain=True)
    return name
