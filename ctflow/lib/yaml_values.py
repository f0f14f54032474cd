"""Pipeline parameters in YAML, kept so that nothing of what was written is lost.

YAML 1.1 reads ``010`` as 8, ``12:30`` as 750, ``no`` as false, ``1.10`` as 1.1 and a date as an
object, before anybody knows what type the pipeline declares. Here a plain word is a number, true,
false or null only where it is written as JSON writes that value; all else is text, which the type
decides about later. Aliases and merges work as everywhere in YAML.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

_STR, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def plain(node: yaml.Node) -> Any:
    """The value of a composed YAML node, as the module says."""
    if isinstance(node, yaml.ScalarNode):
        # In quotes, or said to be text; libyaml gives plain words an empty style, not None.
        return node.value if node.style or node.tag == _STR else word(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 (there is no fourth kind)
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for part in reversed(parts):
                merged |= plain(part)
        else:
            found[str(key.value)] = plain(value)
    return merged | found


def word(text: str) -> Any:
    """A plain word: a number, true, false or null as JSON has them, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        value = json.loads(text)
        # Only what is written in the one way that is written back: 1.10 may be a version.
        if json.dumps(value) == text:
            return value
    return text
