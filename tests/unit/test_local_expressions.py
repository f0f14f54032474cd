"""Conditions and selectors: the values they have, and the errors that are never just false."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.pipelinespec.cel import ExpressionError, parse
from ctflow.pipelinespec.conditions import condition, evaluate, select

NAME = "inputs.parameter_values['x']"


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        (f"{NAME} == 'a'", "a", True),
        (f"{NAME} != 'a'", "b", True),
        (f"{NAME} > 'a'", "b", True),
        (f"int({NAME}) == 3", 3, True),
        (f"int({NAME}) == 3", 3.0, True),
        (f"{NAME} > 0.5", 1, True),
        (f"{NAME} >= 0.5", 0.5, True),
        (f"{NAME} < -1", -2.5, True),
        (f"{NAME} == true", True, True),
        (f"{NAME} == true", 1, False),
        (f"{NAME} == 'true'", True, False),
        (f"{NAME} == 1", "1", False),
        (f"!(int({NAME}) == 3) && int({NAME}) > 5", 6, True),
        (f"!(int({NAME}) == 3) && !(int({NAME}) > 5)", 4, True),
        (f"{NAME} == null", None, True),
        (f"{NAME} in ['a', 'b']", "b", True),
        (f"size({NAME}) == 2", [1, 2], True),
        (f"{NAME}.a[1] == 'z'", {"a": [1, "z"]}, True),
        (f"{NAME} == 'it\\'s'", "it's", True),
        (f'{NAME} == "it\'s \\u00e9\\n"', "it's é\n", True),
        (f"{NAME} ? 1 == 1 : false", False, False),
        (f"1 + 2 * 3 - 4 / 2 == 5 && 7 % 3 == 1 && {NAME}", True, True),
        (f"-7 / 2 == -3 && -7 % 2 == -1 && {NAME}", True, True),
        (f"string(1.0) == '1' && double('2.5') == 2.5 && bool('t') && {NAME}", True, True),
        (f"{NAME} > 0.5", math.inf, True),
        (f"{NAME} > 0.5 || {NAME} <= 0.5", math.nan, False),
    ],
)
def test_value_of_a_condition(source: str, value: Any, expected: bool) -> None:
    assert condition(source, {"x": value}) is expected


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (f"{NAME} > 1", "a"),
        (f"{NAME} > 1", None),
        (f"{NAME} > true", 1),
        (NAME, 1),
        ("inputs.parameter_values['y'] == 1", 1),
        (f"int({NAME}) == 1", "one"),
        (f"int({NAME}) == 1", math.nan),
        (f"int({NAME}) == 1", math.inf),
        ("1 / 0 == 1", 1),
        ("1 % 0 == 1", 1),
        (f"parseJson({NAME}) == 1", "{"),
        ("__import__('os').system('true') == 0", 1),
        (f"{NAME}[0] == 1", 1),
        (f"{NAME} && true", 1),
        ("size(1) == 1", 1),
    ],
)
def test_what_has_no_value_is_an_error(source: str, value: Any) -> None:
    with pytest.raises(ExpressionError):
        condition(source, {"x": value})


@pytest.mark.parametrize(
    "source",
    ["", "1 +", "(1", "'a", "a b", "1 ** 2", "x.", "f(1", "[1", "'\\q'", "1 ? 2", "@", "x = 1",
     "'it's'", "'two\nlines'", "lambda: 1", "(" * 3000 + "1" + ")" * 3000],
)  # fmt: skip
def test_what_cannot_be_parsed_is_an_error(source: str) -> None:
    with pytest.raises(ExpressionError):
        parse(source)


def test_one_side_that_decides_makes_the_other_ones_error_unimportant() -> None:
    assert condition("false && missing == 1", {}) is False
    assert condition("missing == 1 && false", {}) is False
    assert condition("missing == 1 || true", {}) is True
    with pytest.raises(ExpressionError, match="missing"):
        condition("missing == 1 || false", {})


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ('parseJson(string_value)["a"]', {"a": 1}, 1),
        ('parseJson(string_value)["a"]', '{"a": [1, 2.5]}', [1, 2.5]),
        ("string_value", 3, "3"),
        ("number_value", 3, 3),
        ("list_value[1]", [1, "x"], "x"),
        ("struct_value.a", {"a": None}, None),
        ("bool_value", True, True),
    ],
)
def test_selectors(source: str, value: Any, expected: Any) -> None:
    assert select(source, value) == expected


def test_selector_that_finds_nothing_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="'b'"):
        select('parseJson(string_value)["b"]', {"a": 1})


numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))


@given(numbers, numbers)
def test_numbers_compare_as_numbers(left: float, right: float) -> None:
    variables = {"l": left, "r": right}
    for operator, expected in [
        ("==", left == right), ("!=", left != right), ("<", left < right),
        ("<=", left <= right), (">", left > right), (">=", left >= right),
    ]:  # fmt: skip
        assert evaluate(f"l {operator} r", variables) is expected


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\\'")))
def test_any_string_without_quotes_is_itself(text: str) -> None:
    assert evaluate(f"'{text}'", {}) == text


@given(st.text(max_size=40))
def test_no_text_makes_the_parser_fail_otherwise(source: str) -> None:
    with contextlib.suppress(ExpressionError):
        evaluate(source, {"x": 1})


@pytest.mark.parametrize(
    "source",
    [
        "1/0 == 1 || true",
        "true || 1 % 0 == 1",
        "!(1/0 == 1 && false)",
        "true || 9223372036854775807 + 1 > 0",
    ],
)
def test_arithmetic_that_fails_beside_what_decides(source: str) -> None:
    assert condition(source, {}) is True


def test_integers_beyond_53_bits_are_what_a_double_makes_of_them() -> None:
    value = (1 << 53) + 1  # as protobuf's number it is 2^53
    assert condition("inputs.parameter_values['x'] == 9007199254740992", {"x": value})
    assert condition("int(inputs.parameter_values['x']) == 9007199254740992", {"x": value})
    assert condition("inputs.parameter_values['x'] == 9007199254740992.0", {"x": value})


@pytest.mark.parametrize(
    "source",
    ["9223372036854775807 + 1 > 0", "99999999999999999999 > 0", "9223372036854775807 * 2 == 0"],
)
def test_integers_beyond_64_bits_are_an_error(source: str) -> None:
    with pytest.raises(ExpressionError, match="64-bit"):
        condition(source, {})
