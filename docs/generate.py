"""Writes what the documentation says of the code from the code: tables, and the JSON schema.

``python docs/generate.py`` brings README.md, docs/configuration.md and docs/ctflow.schema.json up
to date; a test calls ``stale`` and fails where one of them is not.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctflow import errors
from ctflow.cli import VERBS, schema
from ctflow.config.project import Project

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = Path("docs/ctflow.schema.json")
#: What the codes without a class of their own mean.
_OTHER_CODES = {0: "Done", 1: "A bug in ctflow: the traceback is shown; please report it"}
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "value"}


def verbs() -> str:
    """The table of the command line's verbs."""
    rows = [f"| `ctflow {verb}` | {text} |" for verb, (_, text) in VERBS.items()]
    return "\n".join(["| verb | what it does |", "| --- | --- |", *rows])


def exit_codes() -> str:
    """The table of exit codes, in the words of ``ctflow.errors``."""
    said: dict[int, list[str]] = {code: [text] for code, text in _OTHER_CODES.items()}
    classes = [one for one in vars(errors).values() if inspect.isclass(one)]
    for one in classes:
        if one is not errors.CtflowError and issubclass(one, errors.CtflowError):
            said.setdefault(one.exit_code, []).append(_plain(inspect.getdoc(one)))
    rows = [f"| {code} | {'; '.join(texts)} |" for code, texts in sorted(said.items())]
    return "\n".join(["| code | what it means |", "| --- | --- |", *rows])


def keys() -> str:
    """The tables of all keys of ``ctflow.yaml``, a section each."""
    parts = []
    for path, model in _sections(Project, ""):
        title = f"`{path}`" if path else "The top level"
        about = _plain(inspect.getdoc(model))
        rows = [
            f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {_about(field)} |"
            for name, field in model.model_fields.items()
        ]
        head = ["| key | type | default | what it says |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([f"### {title}", "", about, "", *head, *rows]))
    return "\n\n".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner, suffix = _model_of(field.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}{suffix}".lstrip("."))


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model in an annotation, and how its place is written: ``[]`` in a list, ``.<name>``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    suffix = {tuple: "[]", dict: ".<name>"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        inner, further = _model_of(argument)
        if inner is not None:
            return inner, suffix + further
    return None, ""


def _type(annotation: Any) -> str:
    inner, suffix = _model_of(annotation)
    if inner is not None:
        return {"": "section", "[]": "list of sections"}.get(suffix, "section for each name")
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if origin is dict:
        return f"{_type(arguments[1])} for each name"
    if origin is Union or type(None) in arguments:
        return _type(next(one for one in arguments if one is not type(None)))
    if origin is not None and arguments:  # Annotated
        return _type(arguments[0])
    return _TYPES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*must be given*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value is None or value in ((), {}):
        return ""
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value)
    return f"`{value}`"


def _about(field: FieldInfo) -> str:
    inner, suffix = _model_of(field.annotation)
    return _plain(field.description or ("" if inner is None or suffix else inspect.getdoc(inner)))


def _plain(text: str | None) -> str:
    """The first line of a docstring, or a description, as markdown that may stand in a table."""
    first = (text or "").split("\n")[0].replace("``", "`")
    return first.replace("|", "\\|").replace("<", "&lt;").rstrip(".")


def json_schema() -> str:
    """What ``ctflow schema`` prints."""
    return schema.schema_text()


def filled(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the marks of that name, which must be there once."""
    pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(\n<!-- end of {name} -->)"
    done, count = re.subn(
        pattern, lambda found: f"{found[1]}\n{content}\n{found[2]}", text, flags=re.S
    )
    if count != 1:
        raise ValueError(f"the marks of {name} are there {count} times")
    return done


def wanted() -> dict[Path, str]:
    """Each file's text as it ought to be."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    configuration = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    readme = filled(filled(readme, "verbs", verbs()), "exit codes", exit_codes())
    return {
        Path("README.md"): readme,
        Path("docs/configuration.md"): filled(configuration, "keys", keys()),
        SCHEMA: json_schema(),
    }


def stale() -> list[str]:
    """The files that are not up to date."""
    return [
        str(path)
        for path, text in wanted().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write what is stale."""
    for name in stale():
        (ROOT / name).write_text(wanted()[Path(name)], encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
