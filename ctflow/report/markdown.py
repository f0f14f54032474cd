"""Blocks as GitHub-flavoured markdown. All text is escaped: nothing that a step wrote can become a
link, an image, a mention, HTML, a heading or the end of a table's cell.
"""

from __future__ import annotations

import re

from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Report, Table, tame

#: GitHub refuses a body of more than 65,536 characters; some room is left for a forge's own marks.
FORGE_LIMIT = 65_000

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>])")


def escape(text: str) -> str:
    """Untrusted text, to be read as nothing but itself."""
    tamed = tame(text).replace("&", "&amp;").replace("<", "&lt;")
    tamed = _SPECIAL.sub(r"\\\1", tamed)
    # A mention or an autolink needs its sign as a character: an entity shows it and does nothing.
    tamed = tamed.replace("@", "&#64;").replace(":", "&#58;")
    return re.sub(r"\bwww\b", "ww&#119;", tamed)


def to_markdown(report: Report) -> str:
    """The whole report."""
    return "\n\n".join(filter(None, map(_block, report))) + "\n"


def cut(report: Report, limit: int = FORGE_LIMIT) -> str:
    """The report, whole blocks left out at its end until it has at most ``limit`` characters."""
    blocks = list(report)
    text = to_markdown(blocks)
    note = Paragraph("The rest does not fit here: the whole report is in the branch, report.md.")
    while len(text) > limit and blocks:
        blocks.pop()
        text = to_markdown([*blocks, note])
    return text


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escape(block.text)}"
    if isinstance(block, Paragraph):
        text = escape(block.text)
        # GitHub draws this alert in red.
        return f"> [!CAUTION]\n> **{text}**" if block.tone == "alarm" else text
    if isinstance(block, Bullets):
        return "\n".join(f"- {escape(item)}" for item in block.items)
    if isinstance(block, Code):
        return _code(block)
    return _table(block)


def _code(block: Code) -> str:
    lines = [_plain(line) for line in block.text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join((f"{fence}{block.language}", *lines, fence))


def _plain(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else " " for c in line)[:1000]


def _table(block: Table) -> str:
    rule = ("--:" if i in block.right else "---" for i in range(len(block.header)))
    rows = [block.header, tuple(rule), *block.rows]
    lines = []
    for index, row in enumerate(rows):
        cells = row if index == 1 else tuple(escape(cell) for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
