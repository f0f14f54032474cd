"""Parameters as people write them: the declared type decides what the text means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctflow.cli.given import parameters_of
from ctflow.config.reading import parse
from ctflow.config.settings import load_settings
from ctflow.errors import ConfigError
from ctflow.pipelinespec import values
from ctflow.pipelinespec.parameters import check_parameters
from ctflow.pipelinespec.spec import Component, Parameter

#: What is written, and what it is for a string, an integer, a double and a boolean (None: refused).
WRITTEN = [
    ("2024-01-01", None, None, None),
    ("010", 10, 10.0, None),
    ("12:30", None, None, None),
    ("no", None, None, None),
    ("1.10", None, 1.1, None),
    ("10", 10, 10.0, None),
    ("true", None, None, True),
    ("1e3", None, 1000.0, None),
    ("0x1F", None, None, None),
    ("1_000", None, None, None),
    ("null", None, None, None),
    ("~", None, None, None),
]
TYPES = (values.INTEGER, values.DOUBLE, values.BOOLEAN)


def taken(given: dict[str, Any], type_: str) -> Any:
    root = Component("root", {"x": Parameter(type_)}, {}, {}, {})
    return check_parameters(root, given)["x"]


@pytest.mark.parametrize(("text", "integer", "double", "boolean"), WRITTEN)
@pytest.mark.parametrize("where", ["flag", "file", "set"])
def test_the_declared_type_decides(
    tmp_path: Path, where: str, text: str, integer: Any, double: Any, boolean: Any
) -> None:
    if where == "flag":
        given = parameters_of([f"x={text}"])
    else:
        line = f"parameters: {{x: {text}}}\n" if where == "file" else ""
        (tmp_path / "ctflow.yaml").write_text(f"project: p\n{line}")
        flags = [f"parameters.x={text}"] if where == "set" else []
        given = dict(load_settings(tmp_path, {}, flags).project.parameters)
    if given["x"] is not None:  # null in YAML: no value
        assert taken(given, values.STRING) == text
    for type_, wanted in zip(TYPES, (integer, double, boolean), strict=True):
        if wanted is not None:
            assert taken(given, type_) == wanted
            assert type(taken(given, type_)) is type(wanted)
        elif given["x"] is not None:
            with pytest.raises(ConfigError, match="parameter x: "):
                taken(given, type_)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ('["a", null]', ["a", None]),
        ("[2024-01-01, 010, no]", ["2024-01-01", "010", "no"]),
    ],
)
def test_lists_are_json_or_yaml(text: str, wanted: list[Any]) -> None:
    assert taken(parameters_of([f"x={text}"]), values.LIST) == wanted


def test_dicts_are_json_or_yaml() -> None:
    assert taken(parameters_of(["x={a: 1, b: [1.10]}"]), values.STRUCT) == {"a": 1, "b": ["1.10"]}
    with pytest.raises(ConfigError, match="neither JSON nor YAML"):
        taken(parameters_of(["x={a"]), values.STRUCT)
    with pytest.raises(ConfigError, match="is not a dict"):
        taken(parameters_of(["x=[1]"]), values.STRUCT)


def test_what_yaml_offers_besides_still_works() -> None:
    data, _ = parse(
        "project: p\nparameters:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n  c: '5'\n"
        "  d: !!str 5\n  e: |\n    two\n    lines\n  f: *a\n",
        "ctflow.yaml",
    )
    assert data["parameters"] == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": "5", "d": "5", "e": "two\nlines\n",
        "f": {"x": 1, "y": 2},
    }  # fmt: skip
