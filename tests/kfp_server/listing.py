"""Lists: pages, filters and orders as the server has them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kfp_server.errors import Refused, during, invalid
from tests.kfp_server.values import Item

#: Operations by the number that the SDK sends.
_NUMBERS = {
    1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS",
    6: "LESS_THAN", 7: "LESS_THAN_EQUALS", 8: "IN", 9: "IS_SUBSTRING",
}  # fmt: skip
_TESTS: dict[str, Callable[[str, Any], bool]] = {
    "EQUALS": lambda found, wanted: found == str(wanted),
    "NOT_EQUALS": lambda found, wanted: found != str(wanted),
    "IS_SUBSTRING": lambda found, wanted: str(wanted) in found,
    "IN": lambda found, wanted: found in [str(one) for one in wanted.get("values", [])],
    "GREATER_THAN": lambda found, wanted: found > str(wanted),
    "GREATER_THAN_EQUALS": lambda found, wanted: found >= str(wanted),
    "LESS_THAN": lambda found, wanted: found < str(wanted),
    "LESS_THAN_EQUALS": lambda found, wanted: found <= str(wanted),
}
DEFAULT_SIZE, MAXIMUM_SIZE = 20, 200


@dataclass(frozen=True)
class Listing:
    """A kind of list: where its items come in the answer, and what one may ask by."""

    key: str
    resource: str
    id_field: str
    fields: tuple[str, ...]
    #: Words before a refusal; `{options}` stands for what was asked.
    refusal: str
    #: The same for a filter that cannot be read.
    unreadable: str
    tags: bool = False

    def page(self, items: list[Item], query: dict[str, str]) -> Item:
        """One page of `items`; an empty list is `{}`."""
        size = _size(query.get("page_size", ""))
        asked = (
            f"pageToken: {query.get('page_token', '')}, pageSize: {size}, "
            f"sortBy: {query.get('sort_by', '')}, filter: {query.get('filter', '')}"
        )
        with during(self.unreadable):
            rules = _rules(query.get("filter", ""))
        with during(self.refusal.format(options=asked)):
            if size < 0:
                raise invalid(f"The page size should be greater than 0. Got {size}")
            wanted, start = self._wanted(query)
            if query.get("page_token"):
                rules = _rules(wanted["filter"])
            for rule in rules:
                items = [item for item in items if self._passes(item, rule)]
            field, descending = self._order(wanted["sort_by"])
            items = sorted(items, key=lambda item: self._key(item, field), reverse=descending)
        total = len(items)
        if start is not None:
            before = [
                item for item in items if (self._key(item, field) < start) is not descending
                and self._key(item, field) != start
            ]  # fmt: skip
            items = items[len(before) :]
        size = min(size or DEFAULT_SIZE, MAXIMUM_SIZE)
        answer: Item = {self.key: items[:size], "total_size": total} if items else {}
        if len(items) > size:
            token = json.dumps({**wanted, "start": self._key(items[size], field)})
            answer["next_page_token"] = base64.b64encode(token.encode()).decode()
        return answer

    def _wanted(self, query: dict[str, str]) -> tuple[dict[str, str], tuple[str, str] | None]:
        wanted = {key: query.get(key, "") for key in ("filter", "sort_by")}
        if not (token := query.get("page_token")):
            return wanted, None
        held = _token(token)
        start = held.pop("start")
        if any(wanted.values()) and wanted != held:
            raise invalid(
                "page token does not match the supplied sort by and/or filtering criteria. Either "
                "specify the same criteria or leave the latter empty if page token is specified"
            )
        return held, (start[0], start[1])

    def _order(self, sort_by: str) -> tuple[str, bool]:
        match = re.fullmatch(r"(\S+)(?: (asc|desc))?", sort_by or "created_at")
        if match is None:
            raise invalid(
                f'Received invalid sort by format "{sort_by}". Supported format: "field_name", '
                '"field_name desc", or "field_name asc"'
            )
        if match[1] not in self.fields:
            raise invalid(f'Invalid sorting field: "{match[1]}" on listable type {self.resource}')
        return match[1], match[2] == "desc"

    def _key(self, item: Item, field: str) -> tuple[str, str]:
        # The database compares without regard to case.
        return self._found(item, field).casefold(), item[self.id_field]

    def _found(self, item: Item, field: str) -> str:
        if field.startswith("tags."):
            return str(item.get("tags", {}).get(field[5:], ""))
        if field == "id":
            field = self.id_field
        if field == "name" and "name" not in item:
            field = "display_name"
        if field == "status":
            field = "state"
        return str(item.get(field, ""))

    def _passes(self, item: Item, rule: dict[str, Any]) -> bool:
        field = rule["key"]
        if field not in self.fields and not (self.tags and field.startswith("tags.")):
            raise invalid(f'no support for filtering on unrecognized field "{field}"')
        return _TESTS[rule["operation"]](self._found(item, field), rule["value"])


def _size(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        problem = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise Refused(400, 3, f'parsing field "page_size": {problem}', plain=True) from None


def _token(text: str) -> Item:
    message = "Invalid page token"
    try:
        decoded = base64.b64decode(text, validate=True)
        held: Item = json.loads(decoded)
    except binascii.Error:
        raise Refused(400, 3, f"InvalidInputError: {message}", message) from None
    except ValueError:
        first = f"invalid character '\\u{decoded[0]:04x}' looking for beginning of value"
        raise Refused(400, 3, f"InvalidInputError: {message}: {first}", message) from None
    return held


def _rules(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    problem = "failed to parse filter spec: proto: "
    try:
        predicates = json.loads(text).get("predicates", [])
    except (ValueError, AttributeError):
        raise invalid(f"{problem}syntax error (line 1:1): invalid value {text}") from None
    rules = []
    for rule in predicates:
        operation = _NUMBERS.get(rule.get("operation"), rule.get("operation", ""))
        if operation not in _TESTS:
            column = text.find(json.dumps(operation)) + 1
            raise invalid(
                f"{problem}(line 1:{column}): invalid value for enum field operation: "
                f"{json.dumps(operation)}"
            )
        value = next((v for k, v in rule.items() if k not in {"key", "operation"}), "")
        rules.append({"key": rule.get("key", ""), "operation": operation, "value": value})
    return rules
