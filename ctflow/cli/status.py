"""Show what serves where, what is proposed, what is on hold, and what waits."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, clean, print_json, tools_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow status``."""
    add_project_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """One block an environment."""
    from ctflow.lib.digests import short
    from ctflow.stages.overview import status

    rows = status(tools_of(args))
    if args.json:
        print_json([row.to_json() for row in rows])
        return 0
    for row in rows:
        one = row.deployment
        print(f"{one.environment}")
        print(f"  git        {short(one.wanted)}{f'  run {row.run}' if row.run else ''}")
        where = f"  at {one.url}" if one.url else ""
        print(f"  serves     {short(one.model)}  {one.state}{where}")
        shares = [f"{share}% {short(model)}" for model, share in one.traffic.items()]
        if len(shares) > 1:
            print(f"  traffic    {', '.join(shares)}")
        if one.message:
            print(f"  message    {clean(one.message)}")
        if row.proposed:
            print(f"  proposed   {clean(row.proposed)}")
        for hold in row.holds:
            print(f"  hold       {short(hold.digest)}  {clean(hold.reason)} ({clean(hold.by)})")
    return 0
