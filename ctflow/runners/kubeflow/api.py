"""The REST API of Kubeflow Pipelines, ``/apis/v2beta1``, as far as ctflow needs it.

What is sent and answered follows KFP's published API; what servers do besides is said where it
matters. Names are looked up by filters and not by path: KFP finds no name with a ``/`` by its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ctflow.errors import OutsideError
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError

ROOT = "/apis/v2beta1"
#: KFP gives this many at most, whatever is asked for.
PAGE = 200
#: The largest package that KFP takes, in bytes.
LARGEST = 32 * 2**20
#: Characters that names may have.
PIPELINE_NAME, VERSION_NAME, RUN_NAME = 128, 127, 128
#: How tags are limited: their number, and the characters of a key and of a value.
TAGS, TAG = 20, 63
#: Seconds for the upload of a large package.
_UPLOAD = (10.0, 300.0)
#: A package that the server cannot read makes it hang: it has this long to say so of a small one.
_SMALL_UPLOAD = (10.0, 60.0)

Json = dict[str, Any]


class Kfp:
    """One server's API.

    Args:
        namespace: of a multi-user installation; empty for a single-user one.
    """

    def __init__(self, api: Api, namespace: str = "") -> None:
        self.api = api
        self.namespace = namespace

    def page(self, path: str) -> str:
        """The address of a page of KFP's own interface; empty where this is not a way to it."""
        return "" if self.api.base.endswith("/proxy") else f"{self.api.base}/#/{path}"

    def health(self) -> Json:
        """``tag_name`` (version), ``multi_user`` and ``pipeline_store``."""
        found: Json = self.api.get(f"{ROOT}/healthz")
        return found

    # -- pipelines --------------------------------------------------------------------------------

    def pipeline(self, name: str) -> Json | None:
        """A pipeline by its name."""
        return self._one("pipelines", "pipelines", "name", name, self._scope())

    def create_pipeline(self, name: str, description: str) -> Json:
        """A new pipeline, without a version. ApiError with status 409: the name is taken."""
        body = {"name": name, "display_name": name, "description": description} | self._scope()
        found: Json = self.api.call("POST", f"{ROOT}/pipelines", json=body)
        return found

    def version(self, pipeline_id: str, name: str) -> Json | None:
        """A version of a pipeline by its name."""
        path = f"pipelines/{quote(pipeline_id, safe='')}/versions"
        return self._one(path, "pipeline_versions", "name", name, {})

    def get_version(self, pipeline_id: str, version_id: str) -> Json:
        """A version with its package as ``pipeline_spec``."""
        path = (
            f"{ROOT}/pipelines/{quote(pipeline_id, safe='')}/versions/{quote(version_id, safe='')}"
        )
        found: Json = self.api.get(path)
        return found

    def newest_version(self, pipeline_id: str) -> Json | None:
        """The version that KFP takes where none is named."""
        path = f"{ROOT}/pipelines/{quote(pipeline_id, safe='')}/versions"
        answer = self.api.get(path, {"sort_by": "created_at desc", "page_size": "1"})
        return next(iter(items(answer, "pipeline_versions")), None)

    def versions(self, pipeline_id: str) -> Iterator[Json]:
        """The versions of a pipeline, the newest first."""
        path = f"pipelines/{quote(pipeline_id, safe='')}/versions"
        return self._all(path, "pipeline_versions", {"sort_by": "created_at desc"})

    def upload_version(
        self, pipeline_id: str, name: str, description: str, tags: Mapping[str, str], package: bytes
    ) -> Json:
        """Upload a package as a version. ApiError with status 409: the name is taken."""
        query = {"name": name, "display_name": name, "description": description,
                 "pipelineid": pipeline_id}  # fmt: skip
        if tags:
            query["tags"] = json.dumps(dict(tags), sort_keys=True)
        found: Json = self.api.call(
            "POST",
            f"{ROOT}/pipelines/upload_version",
            query=query,
            # Without a name that ends in .yaml the server refuses it, and does not say why.
            file=("package.yaml", package),
            timeout=_SMALL_UPLOAD if len(package) < 2**20 else _UPLOAD,
        )
        return found

    # -- experiments ------------------------------------------------------------------------------

    def experiment(self, name: str) -> Json | None:
        """An experiment by its name."""
        return self._one("experiments", "experiments", "display_name", name, self._scope())

    def ensure_experiment(self, name: str) -> Json:
        """An experiment by its name, made now if there is none."""
        found = self.experiment(name)
        if found is None:
            body = {"display_name": name} | self._scope()
            try:
                return dict(self.api.call("POST", f"{ROOT}/experiments", json=body))
            except ApiError as error:
                # Somebody else made it meanwhile, or the connection broke after it was made.
                if error.status != 409 and not error.unsure:
                    raise
                found = self.experiment(name)
                if found is None:
                    raise
        if found.get("storage_state") == "ARCHIVED":
            from ctflow.errors import StateError

            raise StateError(
                f"experiment {name!r} is archived",
                next="restore it in Kubeflow Pipelines, or name another in kubeflow.experiment",
            )
        return found

    # -- runs -------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Json:
        """A run, with the details of its tasks."""
        found: Json = self.api.get(f"{ROOT}/runs/{quote(run_id, safe='')}")
        return found

    def run_named(self, name: str) -> Json | None:
        """A run by its display name."""
        return self._one("runs", "runs", "display_name", name, self._scope())

    def runs(
        self, *, experiment_id: str = "", state: str = "", page_size: int = PAGE
    ) -> Iterator[Json]:
        """Runs, the newest first."""
        query = {"sort_by": "created_at desc"} | self._scope()
        if experiment_id:
            query["experiment_id"] = experiment_id
        if state:
            query["filter"] = equals("state", state)
        return self._all("runs", "runs", query, page_size)

    def create_run(self, body: Json) -> Json:
        """Start a run. The caller looks for it first where this is unsure."""
        found: Json = self.api.call("POST", f"{ROOT}/runs", json=body)
        return found

    def act(self, run_id: str, verb: str) -> None:
        """``terminate``, ``retry``, ``archive`` or ``unarchive`` a run."""
        self.api.call("POST", f"{ROOT}/runs/{quote(run_id, safe='')}:{verb}")

    def pod_log(self, run_id: str, pod: str) -> str | None:
        """The log of a pod; None where the server cannot read it.

        Servers answer 200 always: a failure is JSON with ``error_message``.
        """
        path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(pod, safe='')}/log"
        text: str = self.api.call("GET", path, reads=True, plain=True)
        if text.startswith("{"):
            try:
                data = json.loads(text)
            except ValueError:
                return text
            if isinstance(data, dict) and {"error_message", "error_details"} <= set(data):
                return None
        return text

    # -- recurring runs ---------------------------------------------------------------------------

    def recurring_runs(self, experiment_id: str = "") -> Iterator[Json]:
        """Recurring runs, the newest first."""
        query = {"sort_by": "created_at desc"} | self._scope()
        if experiment_id:
            query["experiment_id"] = experiment_id
        return self._all("recurringruns", "recurringRuns", query)

    def create_recurring_run(self, body: Json) -> Json:
        """Make a recurring run. Two of one name are taken: the caller looks first."""
        found: Json = self.api.call("POST", f"{ROOT}/recurringruns", json=body)
        return found

    def delete_recurring_run(self, id: str) -> None:
        """Remove a recurring run."""
        self.api.call("DELETE", f"{ROOT}/recurringruns/{quote(id, safe='')}", reads=True)

    def set_recurring_run(self, id: str, *, enabled: bool) -> None:
        """Let a recurring run start runs, or not."""
        verb = "enable" if enabled else "disable"
        # The same twice is the same as once.
        self.api.call("POST", f"{ROOT}/recurringruns/{quote(id, safe='')}:{verb}", reads=True)

    # -- lists ------------------------------------------------------------------------------------

    def _scope(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _one(
        self, path: str, key: str, field: str, value: str, query: Mapping[str, str]
    ) -> Json | None:
        asked = {**query, "filter": equals(field, value), "page_size": "2"}
        if path in ("pipelines", "experiments", "runs"):
            # Of several (display names may be), the first that was made is the one.
            asked["sort_by"] = "created_at asc"
        answer = self.api.get(f"{ROOT}/{path}", asked)
        return next(iter(items(answer, key)), None)

    def _all(
        self, path: str, key: str, query: Mapping[str, str], page_size: int = PAGE
    ) -> Iterator[Json]:
        # The size and the filter have to be the same for each page.
        asked = {**query, "page_size": str(min(page_size, PAGE))}
        seen: set[str] = set()
        while True:
            answer = self.api.get(f"{ROOT}/{path}", asked)
            yield from items(answer, key)
            token = answer.get("next_page_token") if isinstance(answer, dict) else None
            if not token:
                return
            if token in seen:
                raise OutsideError(f"{self.api.name} gives the same page of {path} again and again")
            seen.add(token)
            asked["page_token"] = token


def items(answer: Any, key: str) -> list[Json]:
    """The entries of a list; one without entries is ``{}``."""
    found = answer.get(key) if isinstance(answer, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def equals(field: str, value: str) -> str:
    """A filter, as KFP wants it."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": field, "stringValue": value}]})
