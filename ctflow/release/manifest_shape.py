"""A manifest's predictor: a model with KServe's own server, or a container with an image of ours.

KServe takes one of the two. Where a release needs the other one, what people have added to the
container (resources, probes, variables, volumes) goes along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.release.manifest_text import at, child, compose, lines_of, moved, scalar

if TYPE_CHECKING:
    import yaml

#: KServe takes the container of this name for the predictor. Its variable STORAGE_URI says what the
#: storage initializer brings to /mnt/models.
CONTAINER = "kserve-container"
STORAGE = "STORAGE_URI"
_PREDICTOR = ("spec", "predictor")
#: Keys of ``model`` that say which server there is and what it serves; all others are the
#: container's.
_OF_MODEL = {"modelFormat", "storageUri", "storage", "protocolVersion", "runtime", "runtimeVersion",
             "name", "image", "command", "args", "ports"}  # fmt: skip
_OF_CONTAINER = {"name", "image", "command", "args", "ports"}


def container(image: str, uri: str, name: str, indent: str, more: str = "") -> str:
    """The list's item for a predictor's image.

    Args:
        uri: the model's.
        name: what the model is served as.
        more: further lines of it; with ``env``, where they have one.
    """
    inner = f"{indent}  "
    env = f"{inner}env:\n{inner}  - name: {STORAGE}\n{inner}    value: {scalar(uri)}\n"
    return (
        f"{indent}- name: {CONTAINER}\n"
        f"{inner}image: {scalar(image)}\n"
        f"{inner}args:\n{inner}  - {scalar(f'--model_name={name}')}\n"
        f"{'' if _has_env(more, inner) else env}{more}"
    )


def model(format: str, uri: str, protocol: str, indent: str, more: str = "") -> str:
    """The mapping for KServe's own server.

    Args:
        protocol: its ``protocolVersion``; empty: none is named.
        more: further lines of it.
    """
    inner = f"{indent}  "
    version = f"{inner}protocolVersion: {protocol}\n" if protocol else ""
    return (
        f"{indent}model:\n{inner}modelFormat:\n{inner}  name: {scalar(format)}\n{version}"
        f"{inner}storageUri: {scalar(uri)}\n{more}"
    )


def to_container(text: str, image: str, uri: str, where: str) -> str:
    """The manifest with a container in the place of the model, if it does not have it yet.

    Raises:
        ConfigError: it is not YAML, or is not written in lines.
    """
    root = compose(text, where)
    predictor = at(root, _PREDICTOR)
    key, value = _entry(predictor, "model")
    have = child(predictor, "containers")
    if predictor is None or (child(have, f"[{CONTAINER}]") is not None and value is None):
        return text
    _check(predictor, value, have, where=where)
    name = at(root, ("metadata", "name"))
    called = str(getattr(name, "value", ""))
    if value is None or key is None:
        # Neither: before the first key.
        mark = predictor.value[0][0].start_mark
        start = end = int(mark.index) - mark.column
        column, more = " " * mark.column, ""
    else:
        column = " " * key.start_mark.column
        start, end = lines_of(text, key, value)
        start -= key.start_mark.column
        more = _others(text, value, _OF_MODEL, f"{column}    ")
    if child(have, f"[{CONTAINER}]") is not None:
        return text[:start] + text[end:]
    if have is None:
        new = f"{column}containers:\n{container(image, uri, called, f'{column}  ', more)}"
        return text[:start] + new + text[end:]
    # The first of the containers that are there, whichever of the two stands first in the text.
    mark = have.start_mark
    place, indent = int(mark.index) - mark.column, " " * mark.column
    more = _others(text, value, _OF_MODEL, f"{indent}  ") if value is not None else ""
    new = container(image, uri, called, indent, more)
    cuts = sorted([(start, end, ""), (place, place, new)], reverse=True)
    for begin, stop, put in cuts:
        text = text[:begin] + put + text[stop:]
    return text


def to_model(text: str, format: str, uri: str, protocol: str, where: str) -> str:
    """The manifest with a model in the place of ctflow's container, if that is there.

    Raises:
        ConfigError: as ``to_container``.
    """
    predictor = at(compose(text, where), _PREDICTOR)
    key, have = _entry(predictor, "containers")
    item = child(have, f"[{CONTAINER}]")
    if key is None or have is None or at(item, ("env", f"[{STORAGE}]")) is None:
        return text
    _check(predictor, have, item, where=where)
    column = " " * key.start_mark.column
    start, end = lines_of(text, key, have)
    start -= key.start_mark.column
    more = _others(text, item, _OF_CONTAINER, f"{column}  ")
    new = "" if child(predictor, "model") else model(format, uri, protocol, column, more)
    if len(have.value) == 1:
        return text[:start] + new + text[end:]
    # Others stay: only the one item goes.
    begin = text.rfind("\n", 0, int(item.start_mark.index)) + 1  # type: ignore[union-attr]
    last = item.value[-1]  # type: ignore[union-attr]
    _, stop = lines_of(text, *last)
    return text[:start] + new + text[start:begin] + text[stop:]


def _entry(
    node: yaml.Node | None, name: str
) -> tuple[yaml.Node | None, yaml.CollectionNode | None]:
    """A mapping's key and what it has there."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name and isinstance(value, yaml.CollectionNode):
                return key, value
    return None, None


def _check(*nodes: yaml.Node | None, where: str) -> None:
    import yaml

    for node in nodes:
        if node is not None and (
            not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value
        ):
            raise ConfigError(
                f"{where}: spec.predictor is not written in lines of its own, so ctflow cannot"
                " change it",
                next="write it in block style, or remove the file and promote again",
            )


def _others(text: str, node: yaml.Node | None, known: set[str], indent: str) -> str:
    """The entries of a mapping that people added, at another indentation; no STORAGE_URI."""
    import yaml

    lines = ""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in known:
            continue
        start, end = lines_of(text, key, value)
        entry = moved(text, start, end, indent)
        ours = child(value, f"[{STORAGE}]") if key.value == "env" else None
        if ours is not None:
            if len(value.value) == 1:
                continue
            begin = text.rfind("\n", 0, int(ours.start_mark.index)) + 1
            _, stop = lines_of(text, *ours.value[-1])
            cut = text[:begin] + text[stop:]
            entry = moved(cut, start, end - (stop - begin), indent)
        lines += entry
    return lines


def _has_env(lines: str, indent: str) -> bool:
    return any(line.startswith(f"{indent}env:") for line in lines.splitlines())
