"""The report: what it says, and that nothing a step wrote can become markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import cmarkgfm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.config.project import RolloutConfig
from ctflow.model import Comparison, Override, Reason, Verdict
from ctflow.report import Confusion, Evidence, promotion_report
from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Table, tame
from ctflow.report.markdown import ZERO_WIDTH, cut, escape, to_markdown
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
    "/merge",
    '!1 $1 &1 ~bug %v1 ^alert#1 :tada: %"a b"',
    "&#64;everyone &lt;b>",
    "$`x`$ $x$",
    "1. one",
    "a_b_ _c_ **d** ~~e~~",
    "mailto:a@b.co xmpp:a@b.co a@b.co",
    "ftp://x.y HTTPS://X.Y",
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


def test_a_metric_that_improves_as_it_falls_has_one_sign_in_the_table() -> None:
    given = evidence()
    fell = Comparison("rmse", 57.4, 78.0, 20.6, 18.2, 23.1, 0.95, "bootstrap", 800)
    verdict = replace(
        given.release.verdict,
        reasons=(Reason("rmse over champion", "promote", "rmse 57.4", "", fell),),
        champion_metrics={"rmse": 78.0},
    )
    release = replace(given.release, verdict=verdict, metrics={"rmse": 57.4})
    text = to_text(promotion_report(replace(given, release=release)))
    assert "-20.6 " in text
    assert "-20.6000 (95% CI -23.1000 to -18.2000), better" in text
    assert "+20.6" not in text


def test_an_override_is_an_alarm_in_both_forms() -> None:
    report = promotion_report(evidence(override=Override("demo on friday", "Ada <a@b>")))
    assert "> [!CAUTION]" in to_markdown(report)
    assert "\x1b[31m\x1b[1m!! OVERRIDDEN by Ada <a@b>: demo on friday" in to_text(report, True)


#: What a forge makes of text after the markdown was parsed: mentions, references, links, emoji.
MADE_LATER = re.compile(
    r"""[@#!$&~%^][\w"'{]|\bGH-\d|://|\bwww\.|\b(?:mailto|xmpp):\w|:[\w+-]+:""",
    re.IGNORECASE,
)
#: What GitLab does, wherever a line of the source begins so.
COMMAND = re.compile(r"^/\w", re.MULTILINE)


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.pre = 0
        self.text = ""
        self.outside_code = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self.pre -= tag == "pre"

    def handle_data(self, data: str) -> None:
        self.text += data
        if not self.pre:
            self.outside_code += data


def page(markdown: str) -> Page:
    """What GitHub's own renderer makes of it."""
    return Page(cmarkgfm.github_flavored_markdown_to_html(markdown))


def plain(text: str) -> str:
    return " ".join(text.replace(ZERO_WIDTH, "").split())


def test_nothing_nasty_survives_as_markup() -> None:
    # A metric of a dotted name is that of a task, which the report leaves out.
    bare, dotted = (page(to_markdown(promotion_report(evidence(t)))) for t in ("fine", "fi.ne"))
    wanted = bare
    assert set(wanted.tags) <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th",
                                "td", "pre", "code"}  # fmt: skip
    for text in NASTY:
        markdown = to_markdown(promotion_report(evidence(text)))
        assert not COMMAND.search(markdown)
        found = page(markdown)
        wanted = dotted if "." in text else bare
        # The same elements in the same order: the text is text in every place that it has.
        assert found.tags == wanted.tags, text
        assert not MADE_LATER.search(found.outside_code), text
        for sign in ("\x1b", "\x07", "\u202e"):
            assert sign not in found.text, text


@pytest.mark.parametrize(
    "block", [Paragraph, lambda text: Bullets((text,)), lambda text: Heading(2, text)]
)
@given(text=st.text(st.sampled_from("ab1 .:/@#!$&~%^*_`[]()<>|\\-+={};'\"wGH") | st.characters()))
def test_any_text_is_read_as_itself(block: Callable[[str], Block], text: str) -> None:
    markdown = to_markdown([block(text)])
    assert not COMMAND.search(markdown)
    found = page(markdown)
    assert plain(found.text) == plain(tame(text))
    assert set(found.tags) <= {"p", "ul", "li", "h2"}
    assert not MADE_LATER.search(found.text)


@given(st.text(st.sampled_from("ab1 .:@#!*_`[]<>|\\") | st.characters()))
def test_any_text_stays_in_its_cell(text: str) -> None:
    found = page(to_markdown([Table(("a", "b"), ((text, "end"), ("x", text)))]))
    assert found.tags.count("td") == 4
    assert set(found.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert plain(found.text) == plain(f"a b {tame(text)} end x {tame(text)}")


def test_the_report_is_readable_as_text_too() -> None:
    for text in (
        "accuracy 0.945 >= 0.80", "gain +0.021 (95% CI 0.006 to 0.037)", "staging: hidden_units",
        "ctflow rollback staging", "at 12:30, run r-4w4u; file://x is not a link",
    ):  # fmt: skip
        escaped = escape(text).replace(ZERO_WIDTH, "")
        assert escaped == text.replace(">", "\\>")


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
    assert "report.md" in text
    assert cut(report[:3]) == to_markdown(report[:3])
