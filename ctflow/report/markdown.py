"""Blocks as GitHub-flavoured markdown. Nothing that a step wrote can become a link, an image, a
mention, a reference, a command, HTML, a heading or the end of a table's cell.

Two kinds of signs need two kinds of care. What the markdown parser acts on (``*``, ``[``, ``<``) is
escaped with a backslash. Mentions, references and links are looked for afterwards, in the text that
was parsed, where a backslash or an entity has gone already: they get a zero-width space behind
their sign. All else stays as it is, for ``report.md`` is read as plain text as well.

Sources: the GitHub Flavored Markdown specification (backslash escapes, autolinks); GitHub's
"Autolinked references and URLs"; GitLab's "Special references" and "Quick actions".
"""

from __future__ import annotations

import re

from ctflow.lib.secrets import KNOWN
from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Report, Table, tame

#: GitHub refuses a body of more than 65,536 characters; some room is left for a forge's own marks.
FORGE_LIMIT = 65_000
ZERO_WIDTH = "\u200b"

#: Signs of inline markup, of HTML, of entities and of mathematics, wherever they stand.
_INLINE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])")
#: Signs of a block, at the start of a line only: headings, lists, rules, commands.
_BLOCK = re.compile(
    r"(?P<number>\d{1,9})(?=[.)](?:\s|$))|(?=#{1,6}(?:\s|$)|[-+](?:\s|$)|--|=+\s*$|/\w)"
)
#: A sign and what it would refer to: @user, #1, !1, $1, &1, ~label, %milestone, ^alert, :emoji:.
_REFERENCE = re.compile(r"(@)(?=\S)|(\\?[#!$&~%^])(?=[\w\"'\\{])|(:)(?=(?:\\?[\w+-])+:)")
_ISSUE = re.compile(r"\b(GH-)(?=\d)", re.IGNORECASE)
#: What is made a link without any brackets.
_LINK = re.compile(r"(:)(?=//)|\b(www)(?=\.)|\b(mailto:|xmpp:)", re.IGNORECASE)


def escape(text: str) -> str:
    """Untrusted text as one line that is read as nothing but itself."""
    tamed = _INLINE.sub(lambda sign: f"\\{sign[0]}", tame(text))
    if start := _BLOCK.match(tamed):
        number = start["number"] or ""
        tamed = f"{number}\\{tamed[len(number) :]}"
    for pattern in (_REFERENCE, _ISSUE, _LINK):
        tamed = pattern.sub(lambda sign: f"{sign[0]}{ZERO_WIDTH}", tamed)
    return tamed


def to_markdown(report: Report) -> str:
    """The whole report, without secrets: the escapes below would hide them from who looks later."""
    return "\n\n".join(filter(None, map(_block, KNOWN.masked(report)))) + "\n"


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
        # Signs at a heading's end count as its closing ones.
        text = re.sub(r"(?<!\S)(#+)$", r"\\\1", escape(block.text))
        return f"{'#' * block.level} {text}"
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
