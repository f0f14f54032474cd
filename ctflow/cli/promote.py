"""Propose a run's model for an environment: a branch, one commit, the evidence in it.

Calling it again for the same run changes nothing. Exit code 3: the gate says no.
"""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.cli.gate import add_gate_flags
from ctflow.model import Promotion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow promote``."""
    parser.add_argument(
        "run",
        nargs="?",
        help="a run's id; default: the latest, or the run that the environment in `after` serves",
    )
    add_project_flags(parser)
    add_json_flag(parser)
    add_gate_flags(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="the run and the verdict: the output of --json")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show what would be proposed")


def run(args: argparse.Namespace) -> int:
    """Judge unless a verdict is given, then propose."""
    from ctflow.cli import gate as gate_verb
    from ctflow.cli.given import documents, override_of
    from ctflow.cli.progress import show
    from ctflow.evaluation.candidates import Candidate, RunCandidate
    from ctflow.evaluation.preconditions import check_promotable
    from ctflow.stages.evaluate import gate
    from ctflow.stages.promote import candidate_for, promote_candidate

    tools = tools_of(args)
    override = override_of(tools, args.override, args.reason)
    given = documents(args.files, "run", "verdict")
    verdict = given.get("verdict")
    environment = args.to or tools.project.first_environments()[0]
    check_promotable(tools, environment)
    name = verdict.run if verdict else args.run
    candidate: Candidate
    if "run" in given:
        candidate = RunCandidate(given["run"], tools.project, tools.runner)
    else:
        candidate = candidate_for(tools, name, environment)
    if not args.json:
        line("run", gate_verb.which(candidate.run))
    if verdict is None:
        with show(plain=args.json) as watch:
            verdict = gate(tools, candidate, environment, watch, override, dry_run=args.dry_run)
        if not args.json:
            gate_verb.render(verdict)
    promotion = promote_candidate(tools, candidate, verdict, args.dry_run)
    if args.json:
        print_json(promotion)
    else:
        render(promotion, args.dry_run)
    return 0


def render(promotion: Promotion, dry_run: bool = False) -> None:
    """One line on what is proposed where."""
    texts = {
        "none": "serves this model already",
        "open": f"{'would be proposed' if dry_run else f'proposed as {promotion.id}'}"
        f" on branch {promotion.branch}",
        "merged": f"merged ({(promotion.commit or '')[:10]})",
        "rejected": "rejected",
    }
    text = texts[promotion.state]
    if promotion.state == "open" and not promotion.changed and not dry_run:
        text = text.replace("proposed", "proposed already", 1)
    line("promote", f"{promotion.environment}   {text}")
    if promotion.url:
        line("", promotion.url)
