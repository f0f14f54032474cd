"""What a report is made of. Texts are raw: each renderer escapes them for its own medium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ctflow.lib.quick import dataclass
from ctflow.lib.text import one_line

#: No single text of a step's making may fill a report.
MAX_TEXT = 300


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the report's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; ``tone`` ``alarm`` is shown in red where there is colour."""

    text: str
    tone: Literal["plain", "alarm"] = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list; each item may have a mark before it."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; ``right`` are the indexes of the columns to align to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Code:
    """Text as it is: a diff, a command."""

    text: str
    language: str = ""


Block = Heading | Paragraph | Bullets | Table | Code
Report = Sequence[Block]


def tame(text: str, limit: int = MAX_TEXT) -> str:
    """One line without control characters, cut at ``limit`` characters."""
    return one_line(text, limit, "…")
