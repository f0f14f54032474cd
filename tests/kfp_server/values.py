"""What every part reads and writes: bodies, tags, times and empty fields."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.kfp_server.errors import Refused, invalid, unknown_field

Item = dict[str, Any]
#: How the server writes that something has not happened yet.
NEVER = "1970-01-01T00:00:00Z"
#: The same for the end of a task.
NOT_ENDED = "0001-01-01T00:00:00Z"
#: Answers keep these as they came, empty fields too.
_VERBATIM = frozenset({"pipeline_spec", "parameters", "trigger"})


def now() -> str:
    """The time as the server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def without_empty(found: Any) -> Any:
    """An answer without its empty fields, as protobuf's JSON leaves them out."""
    if isinstance(found, dict):
        return {
            key: number(value) if key in _VERBATIM else without_empty(value)
            for key, value in found.items()
            if not (value in ("", None, {}, []) and key != "trigger") and value is not False
        }
    return [without_empty(value) for value in found] if isinstance(found, list) else found


def number(found: Any) -> Any:
    """A value that went through a double, as all numbers in a protobuf Struct do."""
    if isinstance(found, bool):
        return found
    if isinstance(found, (int, float)):
        double = float(found)
        return int(double) if double.is_integer() else double
    if isinstance(found, dict):
        return {key: number(value) for key, value in found.items()}
    return [number(value) for value in found] if isinstance(found, list) else found


@dataclass(frozen=True)
class Body:
    """A request's JSON, with the text that it came as."""

    text: str
    content: Any

    @classmethod
    def parse(cls, data: bytes) -> Body:
        """Read a body; raises the parser's refusal."""
        text = data.decode(errors="replace")
        try:
            return cls(text, json.loads(text) if text.strip() else {})
        except ValueError as error:
            raise Refused(400, 3, _not_json(text, error), plain=True) from None

    def fields(self, *known: str, of: Any = None) -> Item:
        """The fields by KFP's own names, from camel case too; refuses one that is not `known`."""
        content = self.content if of is None else of
        if not isinstance(content, dict):
            raise Refused(400, 3, "proto: syntax error (line 1:1): unexpected token", plain=True)
        result = {}
        for key, value in content.items():
            name = re.sub("([A-Z])", lambda match: "_" + match[1].lower(), key)
            if name not in known:
                raise unknown_field(self.text, key)
            result[name] = value
        return result


def _not_json(text: str, error: ValueError) -> str:
    inside = re.fullmatch(r"\s*\{\s*([^\s\"}]).*", text, re.S)
    if inside:
        return f"invalid character '{inside[1]}' looking for beginning of object key string"
    return str(error)


def checked_tags(tags: Any) -> dict[str, str]:
    """Tags within the server's limits: 20, values of 63 characters, keys without dots."""
    if not isinstance(tags, dict):
        raise invalid(_NOT_TAGS)
    if len(tags) > 20:
        raise invalid(f"number of tags ({len(tags)}) exceeds maximum of 20 per entity")
    for key, value in tags.items():
        if "." in key:
            raise invalid(f"tag key \"{key}\" must not contain '.' character")
        for what, text in (("key", key), ("value", value)):
            if len(text) > 63:
                told = f'"{key}"' if what == "key" else f'"{value}" for key "{key}"'
                raise invalid(f"tag {what} {told} exceeds maximum length of 63 characters")
    return dict(tags)


_NOT_TAGS = "Failed to parse tags query parameter. Expected JSON object with string keys and values"


def tags_in_query(text: str) -> dict[str, str]:
    """The tags of an upload; what is no JSON is refused as plain text."""
    if not text:
        return {}
    try:
        return checked_tags(json.loads(text))
    except ValueError:
        raise Refused(400, 3, _NOT_TAGS, _NOT_TAGS, plain=True) from None


def one(items: Iterable[Item], **wanted: object) -> Item | None:
    """The first item with these values."""
    test: Callable[[Item], bool] = lambda item: all(item.get(k) == v for k, v in wanted.items())  # noqa: E731
    return next(filter(test, items), None)
