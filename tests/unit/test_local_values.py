"""Parameter values: what the package's doubles become, and how values read on a command line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.pipelinespec import values
from ctflow.pipelinespec.placeholders import Context, command_line, local_path, replace, resolve


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (30.0, values.INTEGER, 30),
        (30, values.DOUBLE, 30.0),
        ([1.0, [2.5, {"a": 3.0}]], values.LIST, [1, [2.5, {"a": 3}]]),
        ({"a": 1.0}, values.STRUCT, {"a": 1}),
        (True, values.BOOLEAN, True),
        ("1.0", values.STRING, "1.0"),
        (1e300, values.STRUCT, 1e300),
    ],
)
def test_constants_of_the_package(value: Any, kind: str, expected: Any) -> None:
    found = values.constant(value, kind)
    assert found == expected
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", values.INTEGER), (1.5, values.INTEGER), (True, values.INTEGER), (True, values.DOUBLE),
     (1, values.BOOLEAN), ({}, values.LIST), ([], values.STRUCT), ("[]", values.LIST)],
)  # fmt: skip
def test_value_of_another_type_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(values.Mismatch, match="is not"):
        values.convert(value, kind)


def test_a_string_takes_anything() -> None:
    given_ = [1, 1.5, True, None, [1, "x"], {"a": None}, "s"]
    found = [values.convert(value, values.STRING) for value in given_]
    assert found == ["1", "1.5", "true", None, '[1, "x"]', '{"a": null}', "s"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (30.0, "30"), (0.1, "0.1"), (1e-7, "0.0000001"), (1.5e21, "1500000000000000000000"),
        (-0.0, "-0"), (math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf"),
        (10**30, str(10**30)), (123456789.125, "123456789.125"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_the_backend_does(value: float, text: str) -> None:
    assert values.number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_numbers_read_back(value: float) -> None:
    text = values.number(value)
    assert "e" not in text
    assert float(text) == value


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (" 3\n", values.INTEGER, 3), ("3", values.DOUBLE, 3.0), ("True\n", values.BOOLEAN, True),
        ("0", values.BOOLEAN, False), (" x\n", values.STRING, " x\n"),
        ('[1, 2.0]', values.LIST, [1, 2.0]), ('{"a": 1}', values.STRUCT, {"a": 1}),
        ("-inf", values.DOUBLE, -math.inf), ("\n+5\t", values.INTEGER, 5),
        (" 1e3 ", values.DOUBLE, 1000.0), (".5", values.DOUBLE, 0.5), ("T", values.BOOLEAN, True),
        (str(2**63 - 1), values.INTEGER, 2**63 - 1), (' {"a": [null]} ', values.STRUCT,
                                                      {"a": [None]}),
    ],
)  # fmt: skip
def test_output_parameter_files(content: str, kind: str, expected: Any) -> None:
    found = values.read_file(content, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("", values.INTEGER), ("1_000", values.INTEGER), ("٣", values.INTEGER),
        ("0x10", values.INTEGER), ("1.0", values.INTEGER), (str(2**63), values.INTEGER),
        ("1_0.5", values.DOUBLE), ("1e999", values.DOUBLE), ("1,5", values.DOUBLE),
        ("+nan", values.DOUBLE), ("yes", values.BOOLEAN), ("tRUE", values.BOOLEAN),
        ("null", values.LIST), ("null", values.STRUCT), ("[NaN]", values.LIST),
        ('{"a": Infinity}', values.STRUCT), ("{}", values.LIST), ("[]", values.STRUCT),
        ("[" * 5000, values.LIST),
    ],
)  # fmt: skip
def test_output_parameter_files_that_the_launcher_refuses(content: str, kind: str) -> None:
    with pytest.raises(values.Mismatch):
        values.read_file(content, kind)


def context(**parameters: Any) -> Context:
    return Context(
        {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {"a": {"artifacts": [
                    {"name": "n", "uri": "s3://b/k", "metadata": {"m": 1, "l": [1]}}]}},
            },
            "outputs": {
                "parameters": {"p": {"outputFile": "/o/p"}},
                "artifacts": {"a": {"artifacts": [{"name": "a", "uri": "/o/a"}]}},
                "outputFile": "/o/executor_output.json",
            },
        },
        {"pipeline_job_name": "r-1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{$.inputs.parameters['x']}}", "v"),
        ('{{$.inputs.parameters["x"]}}', "v"),
        ("a{{$.inputs.parameters['x']}}{{$.inputs.parameters['x']}}b", "avvb"),
        ("a{{$.inputs.parameters['none']}}", "a{{$.inputs.parameters['none']}}"),
        ("{{$.inputs.artifacts['none'].path}}", "{{$.inputs.artifacts['none'].path}}"),
        (
            "{{$.outputs.parameters['none'].output_file}}",
            "{{$.outputs.parameters['none'].output_file}}",
        ),
        ("{{$.outputs.artifacts['none'].uri}}", "{{$.outputs.artifacts['none'].uri}}"),
        ("{{$.inputs.artifacts['a'].uri}}", "s3://b/k"),
        ("{{$.inputs.artifacts['a'].path}}", "/s3/b/k"),
        ("{{$.inputs.artifacts['a'].name}}", "n"),
        ("{{$.inputs.artifacts['a'].metadata['m']}}", "1"),
        ("{{$.inputs.artifacts['a'].metadata}}", '{"m": 1, "l": [1]}'),
        ("{{$.outputs.artifacts['a'].path}}", "/o/a"),
        ("{{$.outputs.parameters['p'].output_file}}", "/o/p"),
        ("{{$.outputs.output_file}}", "/o/executor_output.json"),
        ("{{$.outputMetadataUri}}", "/o/executor_output.json"),
        ("{{$.pipeline_job_name}}", "r-1"),
        ("{{$.no_such_thing}}", "{{$.no_such_thing}}"),
        ("{{ not one }}", "{{ not one }}"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    assert replace(text, context(x="v")) == expected


def test_executor_input_is_json() -> None:
    found = json.loads(replace("{{$}}", context(x=[1, 2.5, "é"])))
    assert found["inputs"]["parameterValues"] == {"x": [1, 2.5, "é"]}


@given(st.text())
def test_values_are_never_replaced_again(value: str) -> None:
    assert replace("<{{$.inputs.parameters['x']}}>", context(x=value)) == f"<{value}>"
    assert command_line(["{{$.inputs.parameters['x']}}"], context(x=value)) == [value]


def test_lone_placeholder_keeps_the_type() -> None:
    assert resolve({"k": "{{$.inputs.parameters['x']}}", "l": [1, "n{{$.inputs.parameters['x']}}"]},
                   context(x=3)) == {"k": 3, "l": [1, "n3"]}  # fmt: skip


CONCAT = (
    '{"Concat": ["a=", "{{$.inputs.parameters[\'x\']}}", {"IfPresent": {"InputName": "y", '
    '"Then": "1", "Else": {"Concat": ["2", "3"]}}}]}'
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ('{"IfPresent": {"InputName": "x", "Then": ["--x", "{{$.inputs.parameters[\'x\']}}"]}}',
         ["--x", "v"]),
        ('{"IfPresent": {"InputName": "y", "Then": ["--y"]}}', []),
        ('{"IfPresent": {"InputName": "y", "Then": ["--y"], "Else": "no"}}', ["no"]),
        ('{"IfPresent": {"InputName": "a", "Then": "there"}}', ["there"]),
        (CONCAT, ["a=v23"]),
        ('{"Concat": broken', ['{"Concat": broken']),
    ],
)  # fmt: skip
def test_structured_placeholders(word: str, expected: list[str]) -> None:
    assert command_line([word], context(x="v")) == expected


def test_if_present_sees_only_what_the_pipeline_gave() -> None:
    word = '{"IfPresent": {"InputName": "x", "Then": "given", "Else": "default"}}'
    given_ = context(x="v")
    assert command_line([word], Context(given_.executor_input, {}, frozenset())) == ["default"]


def test_paths_of_remote_uris() -> None:
    assert local_path("gs://b/k") == "/gcs/b/k"
    assert local_path("oci://r/i:1") == "/oci/r_i:1/models"
    assert local_path("/tmp/x") == "/tmp/x"
