"""The documentation says what the code does: tables, links, verbs and flags."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ctflow.cli import VERBS
from ctflow.config.project import Project
from ctflow.config.settings import NOT_SETTINGS
from ctflow.errors import CtflowError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_what_is_written_from_the_code_is_up_to_date() -> None:
    stale = load(ROOT / "docs" / "generate.py").stale()
    assert stale == [], "run `python docs/generate.py`"


def test_every_exit_code_is_in_the_readme() -> None:
    codes = {one.exit_code for one in subclasses(CtflowError)} | {0, 1}
    shown = re.findall(r"^\| (\d+) \|", text_of(ROOT / "README.md"), re.M)
    assert sorted(codes) == sorted(map(int, shown))


def subclasses(cls: type[CtflowError]) -> Iterator[type[CtflowError]]:
    for one in cls.__subclasses__():
        # Those of tests are of no interest.
        if one.__module__ == "ctflow.errors":
            yield one
        yield from subclasses(one)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(text_of(file)), target


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_every_page_is_read_from_the_readme() -> None:
    readme = text_of(ROOT / "README.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page: Path) -> None:
    """Every ``ctflow VERB ...`` in a code span or block has a verb and flags that are there."""
    for command in commands(text_of(page)):
        verb, *words = command.split()
        if verb in ("VERB", "--help", "--version", "..."):
            continue
        assert verb in VERBS, command
        parser = parser_of(verb)
        if words and words[0] in actions(parser):
            parser = actions(parser)[words.pop(0)]
        known = {flag for action in parser._actions for flag in action.option_strings}
        for flag in re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", " " + " ".join(words)):
            assert flag in known | {"-v", "--verbose"}, f"{command}: no {flag}"


def commands(text: str) -> Iterator[str]:
    """What follows ``ctflow`` up to the end of the command."""
    code = "\n".join(
        [
            *(found[1] for found in re.finditer(r"^```\w*\n(.*?)^```", text, re.M | re.S)),
            *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_code(text)),
        ]
    )
    # A command starts a line, after a prompt, variables or `&&`; what it prints is not one.
    for line in code.splitlines():
        for part in re.split(r"&&|\|\||[;|#]", line):
            found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*ctflow ([a-zA-Z-][^<>]*)", part)
            if found:
                yield re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", found[1])


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"ctflow {verb}")
    importlib.import_module(f"ctflow.cli.{VERBS[verb][0]}").add_arguments(parser)
    return parser


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a verb's own verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_commands_are_found_and_refused() -> None:
    text = "Say `ctflow gate --to x`.\n```console\n$ ctflow ct --nonsense # so\nctflow: no\n```\n"
    assert list(commands(text)) == ["ct --nonsense ", "gate --to x"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_variables_exist(page: Path) -> None:
    """Every ``CTFLOW_...`` variable is a setting or one that is known not to be."""
    for name in re.findall(r"\bCTFLOW_[A-Z_]+[A-Z]\b", text_of(page)):
        if name in NOT_SETTINGS | {"CTFLOW_CI"}:
            continue
        assert name.removeprefix("CTFLOW_").lower().split("__")[0] in Project.model_fields, name


def literals() -> set[str]:
    """The text between the placeholders of every string in ctflow."""
    found = set()
    for file in (ROOT / "ctflow").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.strip(" '"))
    return {text for text in found if len(text) >= 8}


def test_messages_are_what_ctflow_says() -> None:
    """Each part of a message in the table is a part of a text in the code, or holds one."""
    page = text_of(ROOT / "docs" / "troubleshooting.md")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 15
    known = literals()
    for message in messages:
        parts = [part.strip(" '") for part in re.split(r"\.\.\.|; | '[^']*'", message)]
        for part in (one for one in parts if len(one) >= 8):
            # Half of it at least, so that a few common words do not count.
            held = any(part in one or (one in part and 2 * len(one) > len(part)) for one in known)
            assert held, (message, part)
