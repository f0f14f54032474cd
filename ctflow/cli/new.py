"""Write a new project from ctflow's template, and commit it.

Asks a few questions, or takes the answers as `key=value` words with `--no-input`: project,
description, repository, registry, branch. Nothing that exists is overwritten.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ctflow.cli.common import clean
from ctflow.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow new``."""
    parser.add_argument(
        "words", nargs="*", metavar="DIR or KEY=VALUE",
        help="the folder to create (default: the project's name), and answers",
    )  # fmt: skip
    parser.add_argument(
        "--template", default="digits", metavar="NAME",
        help="digits (default): steps, tests, workflows; minimal: a few files; tabular: a CSV"
        " file with categories; or a folder or git URL with your own template",
    )  # fmt: skip
    parser.add_argument("--branch", help="the default branch (default: master)")
    parser.add_argument(
        "--no-input", nargs="*", metavar="KEY=VALUE",
        help="do not ask: use these answers, and defaults for the others",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Ask, create, and say what comes next."""
    from ctflow.stages import new
    from ctflow.wiring import scaffold as wired_scaffold

    words = [*args.words, *(args.no_input or [])]
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1:
        raise UsageError(
            f"{' and '.join(folders)} cannot both be the folder",
            next="write `ctflow new DIR --no-input key=value ...`",
        )
    given = new.parse([word for word in words if "=" in word])
    if args.branch is not None and given.setdefault("branch", args.branch) != args.branch:
        raise UsageError(f"branch is given twice, as {given['branch']!r} and {args.branch!r}")
    if folders:
        target = Path(os.path.abspath(folders[0]))  # noqa: PTH100 (keeps symbolic links)
        new.require_free(target)
        given.setdefault("project", target.name)
    asks = args.no_input is None
    if asks and not sys.stdin.isatty():
        raise UsageError(
            "ctflow new asks questions, but there is no terminal",
            next="give the answers with `ctflow new --no-input key=value ...`",
        )
    with wired_scaffold(args.template) as scaffold:
        scaffold.require_identity()
        fixed = set(given) - ({"project"} if folders else set())
        own = scaffold.defaults()
        answers = new.complete(_ask(given, fixed, own) if asks else given, own)
        if not folders:
            target = Path.cwd() / answers["project"]
        made = new.create(target, answers, scaffold)
    _next_steps(made.folder, answers, made.commit)
    return 0


def _ask(given: dict[str, str], fixed: set[str], own: Mapping[str, str]) -> dict[str, str]:
    """Ask for what is not given, again after an answer that is not valid."""
    from ctflow.stages import new

    answers: dict[str, str] = {}
    for question in new.QUESTIONS:
        key = question.key
        if key not in own and key == "runner":
            continue  # a template that knows no other runner
        if key in fixed:
            answers[key] = given[key]
            continue
        proposed = given.get(key, new.default(key, answers, own))
        if key == "project":
            proposed = new.suggest(proposed) or "digits"
        while True:
            shown = f" [{proposed}]" if proposed else ""
            try:
                answer = input(f"{question.text}{shown}: ").strip() or proposed
            except EOFError:
                print()
                raise UsageError("the input ended before the last question") from None
            try:
                new.check(key, answer)
            except UsageError as error:
                print(f"  {clean(error.message())}", file=sys.stderr)
                continue
            answers[key] = answer
            break
    return answers


def _next_steps(folder: Path, answers: dict[str, str], commit: str) -> None:
    place = os.path.relpath(folder)
    print(f"{answers['project']} is in {clean(place)}, commit {commit[:12]} on {answers['branch']}")
    print()
    print(f"  cd {clean(place)}")
    print("  ctflow ct                          # build, compile, run, gate, promote")
    print("  ctflow promotions show staging     # show the proposal and its evidence")
    print("  ctflow promotions approve staging ID")
    print("  ctflow deploy staging              # serve it")
