"""Build the images of the steps whose content changed; all others are left as they are."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.model import Images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow build``."""
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="only this one")


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    from ctflow import flow
    from ctflow.cli.progress import show

    tools = tools_of(args)
    with show(plain=args.json) as watch:
        images = flow.build(tools, watch, args.only)
    if args.json:
        print_json(images)
    else:
        line("build", summary(images))
        for image in images.images:
            line("", f"{image.step}  {image.reference}")
    return 0


def summary(images: Images) -> str:
    """``4 steps   1 built, 3 unchanged``."""
    built = sum(image.built for image in images.images)
    count = len(images.images)
    return f"{count} step{'s'[: count != 1]}   {built} built, {count - built} unchanged"
