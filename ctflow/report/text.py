"""Blocks as text for a terminal: plain, or with colour where the terminal has it."""

from __future__ import annotations

from ctflow.lib.secrets import KNOWN
from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Report, Table, tame

_BOLD, _RED, _GREEN, _OFF = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


def to_text(report: Report, colour: bool = False) -> str:
    """The whole report, without control characters of anybody else's making.

    Without secrets too: cut in a cell, the beginning of one would not be found any more.
    """
    return "\n\n".join(_block(block, colour) for block in KNOWN.masked(report)) + "\n"


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_OFF}" if colour else text


def _block(block: Block, colour: bool) -> str:
    if isinstance(block, Heading):
        return _paint(tame(block.text), _BOLD, colour)
    if isinstance(block, Paragraph):
        alarm = block.tone == "alarm"
        text = tame(block.text)
        return _paint(f"!! {text}", _RED + _BOLD, colour) if alarm else text
    if isinstance(block, Bullets):
        return "\n".join(f"  {tame(item)}" for item in block.items)
    if isinstance(block, Code):
        return "\n".join(_code(line, colour) for line in block.text.splitlines())
    return _table(block, colour)


def _code(line: str, colour: bool) -> str:
    text = "".join(c if c.isprintable() or c == "\t" else " " for c in line)
    code = {"+": _GREEN, "-": _RED}.get(text[:1], "")
    return "    " + (_paint(text, code, colour) if code else text)


def _table(block: Table, colour: bool) -> str:
    rows = [tuple(tame(cell, 100) for cell in row) for row in (block.header, *block.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(block.header))]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if i in block.right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join(cells).rstrip())
    lines[0] = _paint(lines[0], _BOLD, colour)
    return "\n".join(lines)
