"""Tell from git alone which model an environment serves: from what, on what evidence, by whom."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, print_json, tools_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow why``."""
    parser.add_argument("environment", help="such as production")
    add_project_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answer."""
    import sys
    from dataclasses import asdict

    from ctflow.evaluation.preconditions import check_environment
    from ctflow.report.text import to_text
    from ctflow.report.why import why_report
    from ctflow.stages.why import why

    tools = tools_of(args)
    check_environment(tools, args.environment)
    tools.scm.fetch()
    answer = why(tools.project, args.environment, tools.scm)
    if args.json:
        print_json(asdict(answer))
        return 0
    report = why_report(
        answer.release, answer.commit, answer.at, answer.approved_by, answer.subject, answer.holds
    )
    print(to_text(report, sys.stdout.isatty()), end="")
    return 0
