"""Ask the gate about a run: is its model good enough, and really better than the champion?

Exit code 0: promote; 3: hold or reject. With --plan no run is judged: from the champion's kept
predictions it says what the evaluation sets can show, before anything is trained.
"""

from __future__ import annotations

import argparse
import sys

from ctflow.cli.common import (
    add_json_flag,
    add_project_flags,
    clean,
    line,
    painted,
    print_json,
    sign,
    tools_of,
)
from ctflow.cli.progress import marks
from ctflow.model import Run, Verdict, deciding_first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow gate``."""
    parser.add_argument(
        "run", nargs="?", default="latest", help="a run's id; default: the latest run"
    )
    add_project_flags(parser)
    add_json_flag(parser)
    add_gate_flags(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="the run: the output of `ctflow run --json`")  # fmt: skip
    parser.add_argument("--plan", nargs="?", const="", metavar="ENV",
                        help="show how small a gain the evaluation sets can detect")  # fmt: skip


def add_gate_flags(parser: argparse.ArgumentParser) -> None:
    """What ``gate``, ``promote`` and ``ct`` have in common."""
    parser.add_argument("--to", metavar="ENV", help="the environment; default: the first one")
    parser.add_argument("--override", action="store_true", help="promote although the gate says no")
    parser.add_argument("--reason", metavar="TEXT", help="why you override; the release records it")


def run(args: argparse.Namespace) -> int:
    """Judge, and print the verdict; or print the plan."""
    from ctflow.cli.given import documents, override_of
    from ctflow.cli.progress import show
    from ctflow.evaluation.candidates import Candidate, RunCandidate
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.stages.evaluate import gate
    from ctflow.stages.promote import candidate_for

    if args.plan is not None:
        return _plan(args)
    tools = tools_of(args)
    override = override_of(tools, args.override, args.reason)
    environment = args.to or tools.project.first_environments()[0]
    check_environment(tools, environment)
    candidate: Candidate
    if done := documents(args.files, "run").get("run"):
        candidate = RunCandidate(done, tools.project, tools.runner)
    else:
        candidate = candidate_for(tools, args.run, environment)
    if not args.json:
        line("run", which(candidate.run))
    with show(plain=args.json) as watch:
        verdict = gate(tools, candidate, environment, watch, override)
    if args.json:
        print_json(verdict)
    else:
        render(verdict)
    return 0 if verdict.passes else 3


def _plan(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ctflow.errors import UsageError
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.report.plan import plan_report
    from ctflow.report.text import to_text
    from ctflow.stages.planning import plan

    if args.run != "latest" or args.files or args.override or args.reason:
        raise UsageError("--plan takes no run", next="write `ctflow gate --plan [ENV]`")
    if args.plan and args.to:
        raise UsageError("--plan and --to both name an environment", next="leave out --to")
    tools = tools_of(args)
    environment = args.plan or args.to or tools.project.first_environments()[0]
    check_environment(tools, environment)
    tools.scm.fetch()
    done = plan(
        tools.project,
        environment,
        scm=tools.scm,
        store=tools.store,
        looks=tools.looks,
        functions=tools.functions,
    )
    if args.json:
        print_json(asdict(done))
    else:
        print(to_text(plan_report(done), sys.stdout.isatty()), end="")
    return 0


def which(done: Run) -> str:
    """A run in a few words: ``r-7k2m  of commit 2a5f220269``."""
    return f"{done.id}  of commit {done.commit.sha[:10]}" if done.commit else done.id


def render(verdict: Verdict) -> None:
    """The verdict in lines, the deciding reasons first."""
    signs = {"promote": "✓", "hold": "–", "reject": "✗"}
    if marks(sys.stdout)["succeeded"] != "✓":
        signs = {"promote": "ok", "hold": "--", "reject": "no"}
    for index, reason in enumerate(deciding_first(verdict)):
        stage, decision = ("gate", verdict.decision) if index == 0 else ("", "")
        mark = sign(signs[reason.decision], sys.stdout)
        line(stage, f"{decision:<8}  {mark} {clean(reason.text)}")
    for note in verdict.notes:
        line("", f"{'':<8}    {clean(note)}")
    if verdict.override:
        who = f"{verdict.override.by}: {verdict.override.reason}"
        line("", painted(f"OVERRIDDEN by {clean(who)}", "1;31", sys.stdout))
