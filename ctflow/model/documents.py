"""The nouns' JSON form: each stage's result is a document with a kind and a version."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from ctflow.errors import UsageError
from ctflow.model.exact import Inexact, exact
from ctflow.model.layouts import upgraded, version_of
from ctflow.model.releases import Deployment, Promotion, Release
from ctflow.model.runs import Images, Package, Run
from ctflow.model.verdicts import Verdict

Document = Images | Package | Run | Verdict | Release | Promotion | Deployment
D = TypeVar("D")
#: A field ``version`` in a document, where ``version`` is the document's own.
_OF_PIPELINE = "pipeline_version"


def to_json(document: Any) -> dict[str, Any]:
    """The JSON form of a document, with ``kind`` and ``version`` first."""
    if not is_dataclass(document) or isinstance(document, type):
        raise TypeError(f"not a document: {document!r}")
    data = asdict(document)
    kind = getattr(document, "kind", None)
    if not kind:
        return data
    if "version" in data:
        data[_OF_PIPELINE] = data.pop("version")
    return {"kind": kind, "version": version_of(kind)} | data


def iso(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the second."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def dump(document: Any) -> str:
    """A document as JSON text, ending in a newline; NaN stays as Python writes it."""
    return json.dumps(to_json(document), indent=2, ensure_ascii=False) + "\n"


def from_json(cls: type[D], data: Any, where: str = "the document") -> D:
    """Build ``cls`` from its JSON form.

    Raises:
        UsageError: the data is another kind of document, or does not fit.
    """
    kind = getattr(cls, "kind", None)
    if not isinstance(data, dict):
        raise UsageError(f"{where} is not a JSON object", next=f"give the {kind} that ctflow wrote")
    data = dict(data)
    if kind is not None:
        found = data.pop("kind", None)
        if found != kind:
            raise UsageError(f"{where} holds {found or 'no document'}, not a {kind}")
        data = upgraded(kind, data, where)
        if "version" in cls.__dataclass_fields__ and _OF_PIPELINE in data:  # type: ignore[attr-defined]
            data["version"] = data.pop(_OF_PIPELINE)
    try:
        return exact(cls, data)
    except Inexact:
        pass  # it says what does not fit, or how it is meant
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{where} is not a valid {kind} document: {place}: {first['msg']}"
        ) from None


def load(cls: type[D], path: Path) -> D:
    """Read a document from a file.

    Raises:
        UsageError: no such file, not JSON, or not that kind of document.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    return from_json(cls, data, str(path))
