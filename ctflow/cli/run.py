"""Run the pipeline: build and compile what changed, then run it where ctflow.yaml says."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, print_json, tools_of
from ctflow.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow run``."""
    add_project_flags(parser)
    add_json_flag(parser)
    add_run_flags(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="images or a package: the output of --json")  # fmt: skip
    parser.add_argument("--resume", "--retry-failed", metavar="RUN",
                        help="continue an interrupted or failed run")  # fmt: skip
    parser.add_argument("--rebuild", action="store_true",
                        help="with --resume: build the steps again and start a new run;"
                        " unchanged tasks come from the cache")  # fmt: skip


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """What ``run`` and ``ct`` have in common."""
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE",
                        help="a parameter of the pipeline")  # fmt: skip
    parser.add_argument("--engine", choices=("docker", "podman"),
                        help="run the steps in containers of their images")  # fmt: skip
    parser.add_argument("--network", help="with --engine: the containers' network")
    parser.add_argument("--no-cache", action="store_true", help="run every task again")


def run(args: argparse.Namespace) -> int:
    """Run, and fail with the failed task's last lines if it did."""
    from ctflow.cli.given import documents, parameters_of
    from ctflow.cli.progress import show
    from ctflow.stages.train import check_run, note_changed_steps, train

    if args.rebuild and not args.resume:
        raise UsageError("--rebuild needs --resume RUN")
    tools = tools_of(args)
    tools.use_engine(args.engine, args.network)
    given = documents(args.files, "images", "package")
    parameters = parameters_of(args.param)
    with show(plain=args.json) as watch:
        if args.resume and not args.rebuild:
            note_changed_steps(tools, tools.runner.get(args.resume), watch)
            done = tools.runner.resume(args.resume, watch)
        else:
            if args.resume:
                parameters = {**tools.runner.get(args.resume).parameters, **parameters}
            done = train(
                tools,
                watch,
                parameters,
                images=given.get("images"),
                package=given.get("package"),
                caching=not args.no_cache,
            )
    if args.json:
        print_json(done)
    check_run(tools, done)
    return 0
