"""Pipelines and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.kfp_server.errors import Refused, during, exists, invalid, missing
from tests.kfp_server.listing import Listing
from tests.kfp_server.store import Store
from tests.kfp_server.values import Body, Item, checked_tags, number, one

_LIST = Listing(
    "pipelines", "Pipeline", "pipeline_id",
    ("id", "name", "display_name", "description", "created_at", "namespace"),
    "Failed to list pipelines due invalid list options: {options}",
    "Failed to list pipelines due to invalid tag filter in filter spec",
    tags=True,
)  # fmt: skip
_VERSIONS = Listing(
    "pipeline_versions", "PipelineVersion", "pipeline_version_id",
    ("id", "name", "display_name", "description", "created_at"),
    "Failed to list pipeline versions due invalid list options: {options}",
    "Failed to list pipeline versions due to invalid tag filter in filter spec",
    tags=True,
)  # fmt: skip
_NAMED = ("name", "display_name", "description", "namespace", "tags", "pipeline_id")


class NoYaml(Exception):
    """A package that is no YAML: the real server never answers to it."""


class Pipelines:
    """The calls on pipelines and versions."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, body: Body, headers: Mapping[str, str]) -> Item:
        fields = body.fields(*_NAMED)
        with during("Failed to create a pipeline due to server error"):
            namespace = fields.get("namespace") or ""
            name = fields.get("name") or fields.get("display_name") or ""
            if not name:
                raise invalid("name is required")
        with (
            during("Failed to create a pipeline as pipeline conversion failed"),
            during("Failed to convert API pipeline to model pipeline", internal=True),
        ):
            check_length("Pipeline.Name", name, 128)
        with during("Failed to create a pipeline due to server error"):
            with during(
                "Failed to create a pipeline due to authorization error. "
                f"Check if you have write permissions to namespace {namespace}"
            ):
                self.store.access.check_pipelines(headers, namespace, "create", name)
            return self.add(fields)

    def add(self, fields: Item) -> Item:
        """Store a pipeline whose name is within the limits."""
        name = fields.get("name") or fields["display_name"]
        shown = fields.get("display_name") or name
        namespace = fields.get("namespace") or "" if self.store.access.multi_user else ""
        tags = checked_tags(fields.get("tags") or {})
        with during("Failed to create a pipeline in PipelineStore"):
            if len(shown) > 255:
                message = "Error 1406 (22001): Data too long for column 'DisplayName' at row 1"
                words = f"InternalServerError: Failed to add pipeline to pipeline table: {message}"
                raise Refused(500, 13, words)
            if one(self.store.pipelines.values(), name=name, namespace=namespace):
                raise exists(
                    f"Failed to create a new pipeline. The name {name} already exist. "
                    "Please specify a new name"
                )
        item = {
            "pipeline_id": self.store.new_id("pipeline"),
            "display_name": shown,
            "name": name,
            "description": fields.get("description") or "",
            "created_at": self.store.clock(),
            "namespace": namespace,
            "tags": tags,
        }
        return self.store.pipelines.setdefault(item["pipeline_id"], item)

    def get(self, pipeline_id: str) -> Item:
        with (
            during(f"Failed to get a pipeline {pipeline_id}. Check error stack"),
            during(f"Failed to get a pipeline with id {pipeline_id}"),
        ):
            return self.pipeline(pipeline_id)

    def pipeline(self, pipeline_id: str) -> Item:
        """The pipeline; refuses without words before."""
        if pipeline_id not in self.store.pipelines:
            raise missing("Pipeline", pipeline_id)
        return self.store.pipelines[pipeline_id]

    def named(self, name: str) -> Item:
        with (
            during(f"Failed to get a pipeline with name {name} and namespace . Check error stack."),
            during(f"Failed to get a pipeline named {name} in namespace "),
        ):
            found = one(self.store.pipelines.values(), name=name)
            if found is None:
                raise missing("Namespace/Pipeline", f"/{name}")
            return found

    def list(self, query: dict[str, str], headers: Mapping[str, str]) -> Item:
        namespace = query.get("namespace", "") if self.store.access.multi_user else ""
        with (
            during(f"Failed to list pipelines in namespace {namespace}. Check error stack"),
            during(
                "Failed to list pipelines due to authorization error. "
                f"Check if you have read permission to namespace {namespace}"
            ),
        ):
            self.store.access.check_pipelines(headers, namespace, "list")
        items = [one for one in self.store.pipelines.values() if one["namespace"] == namespace]
        return _LIST.page(items, query)

    def patch(self, pipeline_id: str, body: Body) -> Item:
        with during(f"Failed to update pipeline {pipeline_id}. Check error stack"):
            return patched(self.pipeline(pipeline_id), body)

    def delete(self, pipeline_id: str, query: dict[str, str]) -> Item:
        with during(f"Failed to delete pipeline {pipeline_id}. Check error stack"):
            if pipeline_id not in self.store.pipelines:
                with during(f"Failed to delete pipeline with id {pipeline_id} as it was not found"):
                    raise missing("Pipeline", pipeline_id)
            own = [v for v in self.store.versions.values() if v["pipeline_id"] == pipeline_id]
            if own and query.get("cascade") != "true":
                raise invalid(
                    f"Failed to delete pipeline with id {pipeline_id} as it has existing pipeline "
                    f"versions (e.g. {own[0]['pipeline_version_id']}). Set cascade=true to delete "
                    "all versions"
                )
        for version in own:
            del self.store.versions[version["pipeline_version_id"]]
        del self.store.pipelines[pipeline_id]
        return {}

    def create_by_url(self, body: Body) -> Item:
        """Refuse as the server does: it fetches packages from addresses that it trusts."""
        fields = body.fields("pipeline", "pipeline_version")
        with during("Failed to create a pipeline"):
            url = _url(fields.get("pipeline_version") or {})
            if not url:
                raise invalid("invalid pipeline spec URL: ")
            raise invalid("Pipeline URL validation failed")

    # --- versions

    def add_version(
        self, pipeline_id: str, fields: Item, package: bytes, *, tags: dict[str, str] | None = None
    ) -> Item:
        """Store a version; raises NoYaml for a package that is none."""
        if not package:
            raise Refused(500, 13, "Failed to create a pipeline version")
        spec = read_package(package)
        name = fields["name"]
        item = {
            "pipeline_id": pipeline_id,
            "pipeline_version_id": self.store.new_id("version"),
            "display_name": fields.get("display_name") or name,
            "name": name,
            "description": fields.get("description") or "",
            "created_at": self.store.clock(),
            "pipeline_spec": spec,
            "tags": tags or {},
        }
        return self.store.versions.setdefault(item["pipeline_version_id"], item)

    def version(self, version_id: str) -> Item:
        """The version; refuses without words before."""
        if version_id not in self.store.versions:
            raise missing("PipelineVersion", version_id)
        return self.store.versions[version_id]

    def get_version(self, version_id: str) -> Item:
        with (
            during(f"Failed to get a pipeline version {version_id}"),
            during(f"Failed to get a pipeline version with id {version_id}"),
        ):
            return self.version(version_id)

    def list_versions(self, pipeline_id: str, query: dict[str, str]) -> Item:
        with (
            during(f"Failed to list pipeline versions for pipeline {pipeline_id}"),
            during(
                "Failed to list pipeline versions due to error fetching the namespace for pipeline "
                f"{pipeline_id}"
            ),
            during(f"Failed to get namespace for pipeline id {pipeline_id}"),
            during(f"Failed to get a pipeline with id {pipeline_id}"),
        ):
            self.pipeline(pipeline_id)
        own = [v for v in self.store.versions.values() if v["pipeline_id"] == pipeline_id]
        return _VERSIONS.page(own, query)

    def latest(self, pipeline_id: str) -> Item | None:
        """The pipeline's newest version."""
        own = [v for v in self.store.versions.values() if v["pipeline_id"] == pipeline_id]
        return own[-1] if own else None

    def patch_version(self, version_id: str, body: Body) -> Item:
        with during(f"Failed to update pipeline version {version_id}. Check error stack"):
            return patched(self.version(version_id), body)

    def delete_version(self, pipeline_id: str, version_id: str) -> Item:
        with (
            during(
                f"Failed to delete a pipeline version id {version_id} under pipeline id "
                f"{pipeline_id}. Check error stack"
            ),
            during(f"Failed to delete pipeline version with id {version_id} as it was not found"),
        ):
            self.version(version_id)
        del self.store.versions[version_id]
        return {}

    def create_version_by_url(self, body: Body) -> Item:
        """Refuse as the server does: it fetches packages from addresses that it trusts."""
        fields = body.fields(*_NAMED, "pipeline_version_id", "package_url", "pipeline_spec")
        words = "Failed to create a pipeline version"
        if not _url(fields):
            raise invalid(f"{words}. Package URL is nil")
        with during(f"{words}. Check error stack"):
            raise invalid("Pipeline URL validation failed")


def _url(fields: Mapping[str, Any]) -> str:
    found = (fields.get("package_url") or {}).get("pipeline_url", "")
    return str(found)


def check_length(what: str, text: str, limit: int) -> None:
    """Refuse a text that is too long for its column."""
    if len(text) > limit:
        raise invalid(f"{what} length cannot exceed {limit}")


def patched(item: Item, body: Body) -> Item:
    """Change the display name and the tags, as a whole; whatever else is said is ignored."""
    fields = body.fields(*_NAMED, "pipeline_version_id")
    tags = checked_tags(fields["tags"]) if "tags" in fields else item["tags"]
    item.update(display_name=fields.get("display_name") or item["display_name"], tags=tags)
    return item


def read_package(package: bytes) -> Item:
    """A package's specification; raises NoYaml, or Refused for YAML that is no pipeline."""
    documents: list[Any] = []
    try:
        for document in yaml.load_all(package, Loader=yaml.CSafeLoader):
            documents.append(document)  # noqa: PERF402
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if not documents:
            raise NoYaml from error
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else 0
        problem = getattr(error, "problem", "") or str(error)
        raise Refused(
            400, 3, f"unable to decode yaml document: yaml: line {line}: {problem}"
        ) from error
    spec = documents[0] if documents else None
    if not isinstance(spec, dict) or not {"pipelineInfo", "root", "schemaVersion"} <= set(spec):
        raise Refused(400, 3, "unknown template format")
    platforms = documents[1:2]
    found = number(spec)
    return {"pipeline_spec": found, "platform_spec": platforms[0]} if platforms else found
