"""Go back to the release before this one, hold the model that is taken back, and deploy it.

The held model is never proposed again for the environment until its hold is removed in git.
"""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, clean, line, print_json, tools_of
from ctflow.errors import OutsideError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow rollback``."""
    parser.add_argument("environment", help="such as staging")
    parser.add_argument("--reason", required=True, help="why; recorded with the hold in git")
    parser.add_argument("--to-run", metavar="RUN", help="restore the release of this run")
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done")
    parser.add_argument("--no-deploy", action="store_true", help="change git, but do not deploy")


def run(args: argparse.Namespace) -> int:
    """Change git, then deploy what it says."""
    from dataclasses import asdict

    from ctflow.cli import deploy
    from ctflow.cli.progress import show
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.lib.digests import short
    from ctflow.stages.deliver import also_serving, deploy_in
    from ctflow.stages.rollback import roll_back

    tools = tools_of(args)
    check_environment(tools, args.environment)
    done = roll_back(tools, args.environment, args.reason, args.to_run, args.dry_run)
    if not args.json:
        verb = "is back already at" if done.already else "back to"
        if args.dry_run or done.pending:
            verb = "would go back to" if not done.already else verb
        line(
            "rollback",
            f"{args.environment}   {verb} {short(done.restored.model.digest)} of run"
            f" {done.restored.run}; {short(done.taken.model.digest)} on hold",
        )
        serving = done.restored.serving
        if serving and serving.image:
            line("", f"predictor {clean(serving.image)}")
        if done.pending:
            line("", f"it waits to be merged: {done.pending}")
        for text in done.skipped:
            line("", f"skipped a release that cannot be read: {clean(text)}")
        for other in also_serving(tools, args.environment, done.taken.model.digest):
            line(
                "",
                f"{other} still has that model: to roll it back too, run `ctflow rollback {other}`",
            )
        if done.already and (args.dry_run or args.no_deploy):
            line("", f"it is not deployed yet: run `ctflow deploy {args.environment}`")
            line("", "to go back further, deploy it first, or use --to-run RUN")
    if args.dry_run or args.no_deploy or done.pending:
        if args.json:
            print_json(asdict(done))
        return 0
    with show(plain=args.json) as watch:
        deployment = deploy_in(tools, args.environment, watch)
    if args.json:
        print_json(deployment)
    else:
        deploy.render(deployment)
    if deployment.state == "failed":
        raise OutsideError(
            f"git is rolled back, but the deployment failed: {deployment.message}",
            next=f"fix that and run `ctflow deploy {args.environment}`",
        )
    return 0
