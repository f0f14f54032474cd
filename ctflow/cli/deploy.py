"""Make the serving target match git: serve what the default branch says, checked before the switch.

Without an environment: every one that has a release. Exit code 5: a deployment failed, and the last
good model serves on.
"""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, clean, line, print_json, tools_of
from ctflow.errors import CtflowError, OutsideError
from ctflow.model import Deployment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow deploy``."""
    parser.add_argument("environment", nargs="?", help="default: all with a release")
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be deployed")
    parser.add_argument("--stop", action="store_true", help="stop serving")


def run(args: argparse.Namespace) -> int:
    """Deploy, and fail if one of them did."""
    from ctflow.cli.progress import show
    from ctflow.evaluation.preconditions import check_environment
    from ctflow.stages.deliver import deploy_in, released

    tools = tools_of(args)
    if args.environment:
        check_environment(tools, args.environment)
    names = [args.environment] if args.environment else released(tools)
    results = []
    errors: dict[str, CtflowError] = {}
    for name in names:
        try:
            if args.stop:
                target = tools.target(name)
                stop = target.status if args.dry_run else target.stop
                results.append(stop(name))
                continue
            with show(plain=args.json) as watch:
                results.append(deploy_in(tools, name, watch, args.dry_run))
        except CtflowError as error:
            if len(names) == 1:
                raise
            errors[name] = error  # the others are deployed all the same
    if args.json:
        from ctflow.model import to_json

        print_json([to_json(one) for one in results])
    else:
        for one in results:
            render(one, args.dry_run, stop=args.stop)
        for name, problem in errors.items():
            line("deploy", f"{name}   not deployed: {clean(problem.message())}")
    failed = [one for one in results if one.state == "failed"]
    if failed:
        first = failed[0]
        raise OutsideError(
            f"deploying {first.environment} failed: {clean(first.message)}",
            next="see `ctflow status`",
            details=tuple(map(clean, first.log)),
        )
    if errors:
        raise max(errors.values(), key=lambda error: error.exit_code)
    return 0


def render(one: Deployment, dry_run: bool = False, *, stop: bool = False) -> None:
    """What serves now."""
    from ctflow.lib.digests import short

    if dry_run and stop:
        serves = one.state not in ("absent", "stopped")
        text = f"would stop {short(one.model)}" if serves else f"{one.state} already"
    elif dry_run:
        text = f"would serve {short(one.wanted)}; serves {short(one.model)}"
        if one.wanted == one.model and one.state == "ready":
            text = f"serves {short(one.model)} already"
    elif one.state == "ready":
        passed = sum(check.passed for check in one.checks)
        text = f"{short(one.model)} serves at {one.url}"
        text += f"   golden {passed}/{len(one.checks)}" if one.checks else ""
        text += "" if one.changed else "   unchanged"
    else:
        text = f"{one.state}   {short(one.model)}"
    line("deploy", f"{one.environment}   {text}")
    if one.image and not stop and one.state == "ready":
        line("", f"predictor {clean(one.image)}")
