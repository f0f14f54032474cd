"""Refusals as Kubeflow Pipelines 2.17 words them: each layer of it puts its own words before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Refused(Exception):
    """An error answer: HTTP status, gRPC code, the whole message and its innermost part."""

    def __init__(
        self, status: int, code: int, message: str, detail: str = "", *, plain: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.detail = status, code, message, detail
        #: Of the router or the parser: without `details`. Of an upload: as `text/plain`.
        self.plain = plain

    def body(self) -> dict[str, Any]:
        """What a JSON call is answered."""
        if self.plain:
            return {"code": self.code, "message": self.message}
        detail = "Internal Server Error" if self.code == 13 else self.detail
        kind = "type.googleapis.com/google.rpc.Status"
        return {
            "code": self.code,
            "message": self.message,
            "details": [{"@type": kind, "code": self.code, "message": detail}],
        }


def invalid(message: str) -> Refused:
    """An input that the server does not take."""
    return Refused(400, 3, f"Invalid input error: {message}", message)


def missing(kind: str, name: str) -> Refused:
    """A resource that is not there; `kind` as the server names it."""
    message = f"{kind} {name} not found"
    return Refused(404, 5, f"ResourceNotFoundError: {message}", message)


def exists(message: str) -> Refused:
    """A name that is taken."""
    return Refused(409, 6, f"Already exist error: {message}", message)


def unsupported(what: str) -> Refused:
    """What this stand-in cannot do; the real server may."""
    return Refused(501, 12, f"this stand-in for Kubeflow Pipelines {what}", what)


def unknown_field(text: str, name: str) -> Refused:
    """A field that no message has; `text` is the body as it came, for the position."""
    before = text[: max(text.find(f'"{name}"'), 0)]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return Refused(400, 3, f'proto: (line {line}:{column}): unknown field "{name}"', plain=True)


@contextmanager
def during(words: str, *, internal: bool = False) -> Iterator[None]:
    """Put `words` before a refusal; `internal` also makes it a 500, as the server does at times."""
    try:
        yield
    except Refused as refused:
        if refused.plain:
            raise
        refused.message = f"{words}: {refused.message}"
        if internal:
            refused.message = f"InternalServerError: {refused.message}"
            refused.status, refused.code = 500, 13
        raise
