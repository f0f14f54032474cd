"""Changing single values in the text of a YAML document, so that all else survives byte for byte.

A path is a tuple of keys; ``[NAME]`` is the item of a list whose ``name`` is NAME.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.lib import yaml_text

if TYPE_CHECKING:
    import yaml

#: Words of these need no quotes; digits are not among them, so that ids are always quoted alike.
_PLAIN = set("abcdefghijklmnopqrstuvwxyz-")
Path = tuple[str, ...]


def compose(text: str, where: str) -> yaml.Node | None:
    """The document's nodes, whose marks count characters. Raises ConfigError."""
    import yaml

    try:
        # The pure loader: its marks count characters, which is what slices need.
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where} is not valid YAML: {error}", next="correct or remove it"
        ) from None
    return node


def set_value(text: str, path: Path, value: str, where: str) -> str:
    """The document with the value at ``path`` replaced, or added.

    Raises:
        ConfigError: it is not YAML, or has no place for the value.
    """
    import yaml

    node = compose(text, where)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.SequenceNode if _is_item(key) else yaml.MappingNode):
            kind = "list" if _is_item(key) else "mapping"
            raise ConfigError(
                f"{where}: {'.'.join(path[:depth]) or 'the document'} is not a {kind}",
                next="correct it, or remove the file and promote again",
            )
        found = child(node, key)
        if found is None:
            return _insert(text, node, path[depth:], value, where)
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{where}: {'.'.join(path)} is not a single value", next="correct it")
    if node.value == value:
        return text
    return text[: node.start_mark.index] + scalar(value) + text[node.end_mark.index :]


def child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """What a mapping has at a key, or a list at an item's ``[NAME]``; None where there is none."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.SequenceNode) and _is_item(key):
        for item in node.value:
            name = child(item, "name")
            if isinstance(name, yaml.ScalarNode) and name.value == key[1:-1]:
                return item  # type: ignore[no-any-return]
    return None


def at(node: yaml.Node | None, path: Path) -> yaml.Node | None:
    """The node at a path; None where there is none."""
    for key in path:
        node = child(node, key)
    return node


def _block(path: Path, value: str, indent: str) -> str:
    """The lines of a new value: keys below each other, a list's item with its name.

    Args:
        indent: of the first key or item, before which it stands already.
    """
    lines, lead = "", ""
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if _is_item(key):
            lines += f"{lead}- name: {scalar(key[1:-1])}\n"
        else:
            lines += f"{lead}{scalar(key)}:{f' {scalar(value)}' if last else ''}\n"
        indent += "  "
        lead = indent
    return lines


def _insert(text: str, node: yaml.CollectionNode, rest: Path, value: str, where: str) -> str:
    """Put what is missing before the first key or item, at the same indentation."""
    if node.flow_style or not node.value:
        raise ConfigError(
            f"{where}: {'.'.join(rest)} is missing, and ctflow cannot add it", next="add that key"
        )
    mark = node.start_mark if _is_item(rest[0]) else node.value[0][0].start_mark
    indent, start = " " * mark.column, int(mark.index)
    return f"{text[:start]}{_block(rest, value, indent)}{indent}{text[start:]}"


def lines_of(text: str, key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """Where an entry of a block mapping begins, at its key, and where its last line ends.

    Comments after it belong to what follows.
    """
    import yaml

    start, end = int(key.start_mark.index), int(value.end_mark.index)
    if isinstance(value, yaml.CollectionNode) and not value.flow_style:
        lines = text[start:end].splitlines(keepends=True)
        while lines and lines[-1].strip()[:1] in ("", "#"):
            lines.pop()
        return start, start + len("".join(lines))
    if end > start and text[end - 1] == "\n":  # a text in lines of its own
        return start, end
    newline = text.find("\n", end)
    return start, len(text) if newline < 0 else newline + 1


def moved(text: str, start: int, end: int, indent: str) -> str:
    """The lines of an entry at another indentation."""
    column = start - (text.rfind("\n", 0, start) + 1)
    first, *others = text[start:end].splitlines()
    kept = [f"{indent}{first}\n"]
    for line in others:
        rest = line[column:] if not line[:column].strip() else line.lstrip()
        kept.append(f"{indent}{rest}\n" if rest else "\n")
    return "".join(kept)


def scalar(value: str) -> str:
    """A YAML scalar that reads back as this very string."""
    plain = bool(value) and set(value) <= _PLAIN and value[0].isalpha()
    if plain and yaml_text.read(value) == value:
        return value
    import yaml

    return str(yaml.safe_dump(value, default_style='"', width=1 << 30)).strip()


def _is_item(key: str) -> bool:
    return key.startswith("[")
