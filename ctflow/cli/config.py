"""Show each value of the configuration and where it came from."""

from __future__ import annotations

import argparse
import json

from ctflow.cli.common import add_json_flag, add_project_flags, print_json, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow config``."""
    add_project_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the values."""
    from ctflow.config.settings import flatten, origin_of

    settings = settings_of(args)
    rows = [
        (key, value, origin_of(key, settings.origins))
        for key, value in flatten(settings.project).items()
    ]
    if args.json:
        print_json({key: {"value": value, "from": origin} for key, value, origin in rows})
        return 0
    shown = [(key, json.dumps(value, ensure_ascii=False), origin) for key, value, origin in rows]
    keys, values = (max(len(row[i]) for row in shown) for i in (0, 1))
    for key, value, origin in shown:
        print(f"{key:<{keys}}  {value:<{min(values, 40)}}  {origin}")
    return 0
