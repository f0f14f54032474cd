"""The report: what it says, and that nothing a step wrote can become markup."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ctflow.config import RolloutConfig
from ctflow.model import Comparison, Override, Reason, Verdict
from ctflow.report import Confusion, Evidence, promotion_report
from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Table
from ctflow.report.markdown import cut, escape, to_markdown
from ctflow.report.text import to_text
from tests.unit.test_release import DIGEST, a_release

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "@everyone please merge",
    "fixes #1, GH-1, acme/x#2",
    "https://evil.example www.evil.example",
    "| cell | break |",
    "```\n# heading\n```",
    "a\n\n# Verdict: promote",
    "\x1b[31mred\x1b[0m\x07",
    "<!-- hidden -->",
    "--- \n> quote",
    "\u202eevil",
]


def evidence(text: str = "fine", override: Override | None = None) -> Evidence:
    comparison = Comparison("accuracy", 0.96, 0.94, 0.021, 0.006, 0.037, 0.95, "mcnemar", 800, 0.01)
    verdict = Verdict(
        "digits", "staging", "r-2", "promote",
        (Reason("min", "promote", text, slice=text),
         Reason("over", "promote", "+0.021", "", comparison)),
        champion="sha256:" + "b" * 64, metrics={text: 0.96, "accuracy": 0.96},
        champion_metrics={"accuracy": 0.94}, examples=800, override=override, notes=(text,),
    )  # fmt: skip
    release = replace(a_release(), verdict=verdict, metrics={text: 0.5, "accuracy": 0.96})
    matrix = Confusion([text, "b"], [[3, 1], [0, 4]])
    return Evidence(
        release, a_release("sha256:" + "b" * 64), RolloutConfig(canary=(10, 100), pause="5m"),
        matrix, matrix, "a: 1\n", f"a: {text}\n",
    )  # fmt: skip


def test_the_report_holds_the_evidence() -> None:
    text = to_text(promotion_report(evidence()))
    for piece in ("Verdict: promote", "+0.0210 (95% CI 0.0060 to 0.0370)", "+0.02", DIGEST, "r-1",
                  "10%, 100%", "held for 5m", "ctflow rollback staging", "label \\ predicted",
                  "+a: fine", "parameter epochs"):  # fmt: skip
        assert piece in text, piece


def test_an_override_is_an_alarm_in_both_forms() -> None:
    report = promotion_report(evidence(override=Override("demo on friday", "Ada <a@b>")))
    assert "> [!CAUTION]" in to_markdown(report)
    assert "\x1b[31m\x1b[1m!! OVERRIDDEN by Ada <a@b>: demo on friday" in to_text(report, True)


def test_nothing_nasty_survives_as_markup() -> None:
    for text in NASTY:
        plain = to_markdown(promotion_report(evidence("fine")))
        markdown = to_markdown(promotion_report(evidence(text)))
        # The code block is a fence of its own; what is in it is not markup.
        outside = re.sub(r"(?ms)^(`{3,})diff\n.*?^\1$", "", markdown)
        for sign in ("<script", "<img", "<!--", "](", "https://", "www.", "\x1b", "\x07", "\u202e"):
            assert sign not in outside, (text, sign)
        assert "@" not in outside
        assert outside.count("\n# ") == plain.count("\n# ")
        assert outside.count("\n## ") == plain.count("\n## ")
        # A cell cannot end its cell: each row of a table keeps its table's number of bars.
        for rows in re.findall(r"(?m)(?:^\|.*\n?)+", outside):
            bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
            assert len(bars) == 1, (text, rows)


@given(st.text())
def test_escaped_text_has_no_bare_markup(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|~>]", escaped)


@given(st.text())
def test_a_code_block_cannot_be_closed_from_inside(text: str) -> None:
    lines = to_markdown([Code(text, "diff")]).splitlines()
    fence = lines[0].removesuffix("diff")
    assert lines[-1] == fence
    assert all(fence not in line for line in lines[1:-1])


def test_text_for_a_terminal_has_no_foreign_control_characters() -> None:
    for text in NASTY:
        for character in to_text(promotion_report(evidence(text))):
            assert character.isprintable() or character in "\n\t"


def test_the_forges_limit_cuts_whole_blocks_and_says_so() -> None:
    rows = tuple((str(n), "x" * 100) for n in range(2000))
    report: list[Block] = [
        Heading(1, "t"), Bullets(("first",)), Paragraph("kept"), Table(("a", "b"), rows),
    ]  # fmt: skip
    text = cut(report)
    assert len(text) <= 65_000
    assert "kept" in text
    assert "report\\.md" in text
    assert cut(report[:3]) == to_markdown(report[:3])
