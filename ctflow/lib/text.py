"""Text from outside (a step's output, a name, an answer), made safe to show."""

from __future__ import annotations


def one_line(text: str, limit: int, end: str = "...") -> str:
    """One line of printable characters, at most ``limit`` of them.

    Args:
        end: what the line ends in where it was cut.
    """
    # Only the start is looked at: it may be a gigabyte.
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - len(end)] + end


def clean(text: str) -> str:
    """The text with its control characters spelled out, such as ``\\x1b``, for a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
