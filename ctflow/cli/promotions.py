"""Review what is proposed: list, show, approve, reject."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ctflow.cli.common import (
    add_json_flag,
    add_project_flags,
    clean,
    line,
    print_json,
    tools_of,
)
from ctflow.cli.promote import render
from ctflow.errors import StateError, UsageError

if TYPE_CHECKING:
    from ctflow.release.proposals import Proposal
    from ctflow.wiring import ProjectTools


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verbs of ``ctflow promotions``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in (
        ("list", "list the open proposals"),
        ("show", "show a proposal: what changes, and the evidence"),
        ("approve", "approve a proposal, and merge it"),
        ("reject", "close a proposal, and put its model on hold"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        if name != "list":
            verb.add_argument("environment", help="such as staging")
        if name == "approve":
            verb.add_argument(
                "id", nargs="?", help="the id that `promotions show` prints; default: ask"
            )
        if name == "show":
            verb.add_argument("--markdown", action="store_true", help="print markdown")
        if name == "reject":
            verb.add_argument("--reason", required=True, help="why; recorded with the hold in git")
        add_project_flags(verb)
        add_json_flag(verb)


def run(args: argparse.Namespace) -> int:
    """Call the verb."""
    tools = tools_of(args)
    return {"list": _list, "show": _show, "approve": _approve, "reject": _reject}[args.verb](
        tools, args
    )


def _list(tools: ProjectTools, args: argparse.Namespace) -> int:
    from ctflow.model import to_json
    from ctflow.release.proposals import proposals

    tools.scm.fetch()
    found = proposals(tools.project, tools.scm)
    if args.json:
        print_json([to_json(one.promotion) | {"stale": one.stale} for one in found])
        return 0
    if not found:
        print("nothing is proposed")
    for one in found:
        print(f"{one.promotion.environment:<12} {one.id}  {_summary(one)}")
    return 0


def _summary(one: Proposal) -> str:
    from ctflow.lib.digests import short
    from ctflow.model import deciding_first

    reasons = deciding_first(one.release.verdict)
    # The gain over the champion says most, where there is one.
    first = next((reason for reason in reasons if reason.comparison), reasons[0])
    text = f"run {one.release.run}  model {short(one.release.model.digest)}  {clean(first.text)}"
    return f"{text}  STALE: it {one.stale}" if one.stale else text


def _show(tools: ProjectTools, args: argparse.Namespace) -> int:
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.model import to_json
    from ctflow.release import files as files
    from ctflow.release.proposals import proposal
    from ctflow.report import promotion_report
    from ctflow.report.text import to_text
    from ctflow.stages.review import evidence_in

    check_environment(tools, args.environment)
    tools.scm.fetch()
    one = proposal(tools.project, args.environment, tools.scm)
    if args.json:
        print_json(to_json(one.promotion) | {"release": to_json(one.release), "stale": one.stale})
        return 0
    if args.markdown:
        path = files.path(args.environment, files.REPORT)
        text = (tools.scm.read(one.commit, path) or b"").decode("utf-8")
    else:
        text = to_text(promotion_report(evidence_in(tools, one)), sys.stdout.isatty())
    print(text, end="")
    if not args.markdown:
        approved = _approved(tools, one)
        print(f"\nTo merge it: ctflow promotions approve {args.environment} {one.id}{approved}")
    if one.stale:
        print(f"\nSTALE: it {one.stale}; run `ctflow promote {one.release.run}` again")
    return 0


def _approve(tools: ProjectTools, args: argparse.Namespace) -> int:
    from ctflow.stages.review import approve_in

    promotion = approve_in(tools, args.environment, args.id or _asked(tools, args.environment))
    if args.json:
        print_json(promotion)
        return 0
    if promotion.state == "open":
        waits = f"to be merged: {promotion.url}" if promotion.url else "for another person"
        line("approve", f"{promotion.environment}   {promotion.id} waits {waits}")
        return 0
    render(promotion)
    if not tools.trigger.deploys():
        print(f"  Next: ctflow deploy {args.environment}", file=sys.stderr)
    return 0


def _asked(tools: ProjectTools, environment: str) -> str:
    """The id of what a person at the terminal says yes to."""
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.release.proposals import proposal

    check_environment(tools, environment)
    tools.scm.fetch()
    one = proposal(tools.project, environment, tools.scm)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "approve needs the id of the proposal that you reviewed",
            next=f"run `ctflow promotions approve {environment} ID` with the id that"
            f" `ctflow promotions show {environment}` prints",
        )
    print(f"{environment}: {one.id}  {_summary(one)}", file=sys.stderr)
    print(f"{'':<{len(environment)}}  commit {one.release.commit[:10]}", file=sys.stderr)
    print("Merge it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StateError("nothing was merged", next=f"see `ctflow promotions show {environment}`")
    return one.id


def _approved(tools: ProjectTools, one: Proposal) -> str:
    """Who has approved it so far, where that is not enough."""
    from ctflow.release import files as files

    path = files.path(one.promotion.environment, files.APPROVALS)
    names = files.read_approvals(tools.scm.read(one.commit, path), one.id)
    return f"\nApproved by {clean(', '.join(names))} so far" if names else ""


def _reject(tools: ProjectTools, args: argparse.Namespace) -> int:
    import time

    from ctflow.evaluation.preconditions import check_environment
    from ctflow.stages.review import reject

    check_environment(tools, args.environment)
    promotion = reject(
        tools.project,
        args.environment,
        args.reason,
        scm=tools.scm,
        forge=tools.forge,
        now=time.time(),
    )
    if args.json:
        print_json(promotion)
    elif promotion.state == "open":
        line("reject", f"{promotion.environment}   the hold waits to be merged: {promotion.url}")
    else:
        render(promotion)
    return 0
