"""The words and figures of the gate's reasons: plain, short, safe to show on one line."""

from __future__ import annotations

from ctflow.lib.text import one_line

MAX_TEXT = 400
MAX_NAME = 100


def plain(text: str) -> str:
    """One line of printable characters, of bounded length."""
    return one_line(text, MAX_TEXT)


def short(text: str) -> str:
    """``plain``, cut at ``MAX_NAME``."""
    return one_line(text, MAX_NAME)


def signed(value: float) -> str:
    """A gain, with its sign."""
    return f"+{against(value, 0.0)}" if value >= 0 else against(value, 0.0)


def bound_text(value: float) -> str:
    """A bound as people write it."""
    return f"{value:.2f}" if float(f"{value:.2f}") == value else f"{value:g}"


def against(value: float, *limits: float) -> str:
    """The value with three decimals, or as many as show on which side of the limits it is."""
    for decimals in range(3, 12):
        text = f"{value:.{decimals}f}"
        near = float(text)
        if all((near > x) == (value > x) and (near < x) == (value < x) for x in limits):
            return text.replace("-0.000", "0.000") if near == 0 else text
    return f"{value:.6g}"


def apart(first: float, second: float) -> tuple[str, str]:
    """Two figures with as many decimals as tell them apart."""
    for decimals in range(3, 12):
        a, b = f"{first:.{decimals}f}", f"{second:.{decimals}f}"
        if a != b:
            return a, b
    return repr(first), repr(second)
