"""The two uploads, which answer in a form of their own."""

from __future__ import annotations

import email.parser
import email.policy
from collections.abc import Mapping
from dataclasses import dataclass

from tests.kfp_server.errors import Refused
from tests.kfp_server.pipelines import Pipelines
from tests.kfp_server.runs import TRACE
from tests.kfp_server.values import Item, one, tags_in_query

_LIMIT = 32 << 20
_ENDINGS = (".yaml", ".yml", ".json", ".zip", ".tar.gz")
_BOTH = "Failed to create a pipeline and a pipeline version"
_VERSION = "Failed to create a pipeline version"


@dataclass(frozen=True)
class File:
    """The file of a multipart body."""

    name: str
    content: bytes


class RawText(Exception):
    """A refusal that is a line of text and no JSON."""


def body_of(refused: Refused) -> Item:
    """What a refused upload is answered; the details are a stack trace."""
    message = refused.detail or refused.message
    return {"error_message": message, "error_details": f"{message}\n{TRACE}"}


class Uploads:
    """The calls that upload a package."""

    def __init__(self, pipelines: Pipelines) -> None:
        self.pipelines, self.store = pipelines, pipelines.store

    def pipeline(self, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Item:
        """Store a pipeline and its first version, which has its name."""
        file = _file(headers, body, _BOTH)
        namespace = query.get("namespace", "")
        name = query.get("name") or query.get("display_name") or file.name
        self._authorize(headers, namespace, name, "Failed to create a pipeline")
        if len(name) > 128:
            raise RawText("Invalid input error: Pipeline.Name length cannot exceed 128\n")
        tags = tags_in_query(query.get("tags", ""))
        fields = {
            "name": name, "display_name": query.get("display_name", ""),
            "description": query.get("description", ""), "namespace": namespace, "tags": tags,
        }  # fmt: skip
        if len(name) > 127:  # Its first version cannot have its name.
            raise Refused(500, 13, _BOTH)
        before = dict(self.store.pipelines)
        try:
            made = self.pipelines.add(fields)
        except Refused as refused:
            raise Refused(refused.status, refused.code, _BOTH) from refused
        version = {"name": name, "description": fields["description"]}
        try:
            self.pipelines.add_version(made["pipeline_id"], version, file.content)
        except BaseException:
            self.store.pipelines = before  # A failed call leaves no pipeline.
            raise
        return made

    def version(self, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Item:
        """Store a version of a pipeline."""
        file = _file(headers, body, _VERSION)
        name = query.get("name") or query.get("display_name") or file.name
        if len(name) > 127:
            raise RawText("Invalid input error: PipelineVersion.Name length cannot exceed 127\n")
        pipeline = self.store.pipelines.get(query.get("pipelineid", ""))
        if pipeline is None:
            raise Refused(400, 3, _VERSION, plain=True)
        self._authorize(headers, pipeline["namespace"], pipeline["name"], _VERSION)
        tags = tags_in_query(query.get("tags", ""))
        if one(self.store.versions.values(), pipeline_id=pipeline["pipeline_id"], name=name):
            raise Refused(409, 6, _VERSION)
        fields = {
            "name": name, "display_name": query.get("display_name", ""),
            "description": query.get("description", ""),
        }  # fmt: skip
        return self.pipelines.add_version(pipeline["pipeline_id"], fields, file.content, tags=tags)

    def _authorize(self, headers: Mapping[str, str], namespace: str, name: str, words: str) -> None:
        try:
            self.store.access.check(headers, namespace, "create", "pipelines", name)
        except Refused as refused:
            raise Refused(400, 3, words, plain=True) from refused


def _file(headers: Mapping[str, str], body: bytes, words: str) -> File:
    refused = Refused(400, 3, words, plain=True)
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/form-data") or "boundary=" not in kind:
        raise refused
    boundary = kind.split("boundary=")[1].strip('"').encode()
    start = body.find(b"--" + boundary)
    head, _, rest = body[start + len(boundary) + 2 :].partition(b"\r\n\r\n")
    content = rest[: rest.find(b"\r\n--" + boundary)]
    told = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head.lstrip())
    disposition = told["Content-Disposition"]
    given = disposition.params if disposition is not None else {}
    name = given.get("filename", "")
    if given.get("name") != "uploadfile" or len(content) > _LIMIT or not name.endswith(_ENDINGS):
        raise refused
    return File(name, content)
