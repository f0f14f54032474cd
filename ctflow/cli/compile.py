"""Compile the pipeline to a KFP package, with every image pinned by its digest."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.model import Package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow compile``."""
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="the images: the output of `ctflow build --json`")  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="also write the package to this file"
    )


def run(args: argparse.Namespace) -> int:
    """Compile, and say which package it is."""
    from pathlib import Path

    from ctflow.cli.given import documents
    from ctflow.cli.progress import show
    from ctflow.stages.train import build, compile_pipeline
    from ctflow.stages.train.packages import with_content

    tools = tools_of(args)
    with show(plain=args.json) as watch:
        images = documents(args.files, "images").get("images") or build(tools, watch)
        package = compile_pipeline(tools, images, watch)
    if args.output:
        Path(args.output).write_bytes(Path(package.path).read_bytes())
    if args.json:
        print_json(with_content(package))
    else:
        line("compile", summary(package))
        line("", args.output or package.path)
    return 0


def summary(package: Package) -> str:
    """``digits   sha256:9f2c...``; the package holds the pipeline's own name."""
    return f"{package.project}   {package.digest[:19]}{'' if package.built else '   unchanged'}"
