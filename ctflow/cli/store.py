"""Share models with the team: copy what the releases in git name to another store, or from it.

A store is a folder that others see, or a bucket and prefix: s3://, gs:// or az://. Where all use
one store, `store.models` in ctflow.yaml names it and nothing has to be copied.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.errors import OutsideError

if TYPE_CHECKING:
    from ctflow.stages.share import Shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verbs of ``ctflow store``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in (
        ("push", "copy the releases' models from here to another store"),
        ("pull", "copy those that are missing here from another store"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument(
            "other", metavar="STORE", help="a folder that others see too, or s3://bucket/prefix"
        )
        add_project_flags(verb)
        add_json_flag(verb)


def run(args: argparse.Namespace) -> int:
    """Copy, and fail where a model is in neither."""
    from dataclasses import asdict

    from ctflow.stages.share import share

    tools = tools_of(args)
    other = tools.store_at(args.other)
    pair = (tools.store, other) if args.verb == "push" else (other, tools.store)
    done = share(tools.project, tools.scm, *pair)
    if args.json:
        print_json([asdict(one) for one in done])
    else:
        _render(done)
    missing = [one for one in done if one.state == "missing"]
    if missing:
        raise OutsideError(
            f"{len(missing)} of {len(done)} models are in neither store",
            next="push them from the clone that promoted them, or run that commit again",
        )
    return 0


def _render(done: list[Shared]) -> None:
    from ctflow.lib.digests import short

    for one in done:
        size = f"   {one.size:,} bytes" if one.state == "copied" else ""
        text = f"{short(one.digest)} of run {one.run}   {one.state}{size}"
        line("store", f"{one.environment}   {text}")
    if not done:
        line("store", "no release names a model yet")
