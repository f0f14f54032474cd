"""Run the pipeline: build and compile what changed, then run it where ctflow.yaml says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.errors import UsageError

if TYPE_CHECKING:
    from ctflow.model import Run
    from ctflow.wiring import ProjectTools


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
    parser.add_argument("--on", choices=("local", "kubeflow"),
                        help="where to run; default: `runner` of ctflow.yaml")  # fmt: skip
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--no-wait", dest="wait", action="store_false",
                      help="on Kubeflow Pipelines: only start the run")  # fmt: skip
    wait.add_argument("--wait", dest="wait", action="store_true", default=True,
                      help="wait until the run ends (default)")  # fmt: skip
    parser.add_argument("--timeout", metavar="TIME",
                        help="on Kubeflow Pipelines: wait at most so long, such as 2h")  # fmt: skip


def tools_to_run(args: argparse.Namespace) -> ProjectTools:
    """The project's tools, as the flags of a run say.

    Raises:
        UsageError: a flag that goes with Kubeflow Pipelines only, or is no time.
    """
    from ctflow.lib.durations import seconds

    if args.on:
        args.settings.append(f"runner={args.on}")
    tools = tools_of(args)
    cluster = tools.project.runner != "local"
    if cluster and args.engine:
        raise UsageError("--engine goes with local runs", next="use --on local")
    tools.use_engine(args.engine, args.network)
    for flag, given in (("--no-wait", not args.wait), ("--timeout", args.timeout is not None)):
        if given and not cluster:
            raise UsageError(
                f"{flag} goes with Kubeflow Pipelines; a local run ends with this command",
                next="use --on kubeflow, or set `runner: kubeflow`",
            )
    try:
        timeout = None if args.timeout is None else seconds(args.timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    tools.watch_runs(ask_to_terminate(), timeout)
    return tools


def ask_to_terminate() -> Callable[[str], bool] | None:
    """Asks the person at the terminal what is to become of a run; None: nobody is there."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(run_id: str) -> bool:
        print(f"\nrun {run_id} goes on. Terminate it? [y/N] ", end="", file=sys.stderr, flush=True)
        try:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        except KeyboardInterrupt:
            return False

    return ask


def run(args: argparse.Namespace) -> int:
    """Run, and fail with the failed task's last lines if it did."""
    from ctflow.cli.given import documents, parameters_of
    from ctflow.cli.progress import show
    from ctflow.stages.train import check_run, note_changed_steps, train

    if args.rebuild and not args.resume:
        raise UsageError("--rebuild needs --resume RUN")
    tools = tools_to_run(args)
    given = documents(args.files, "images", "package")
    parameters = parameters_of(args.param)
    with show(plain=args.json) as watch:
        if args.resume and not args.rebuild:
            if tools.project.runner == "local":
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
                wait=args.wait,
            )
    if args.json:
        print_json(done)
    if not args.wait:
        if not args.json:
            say_started(done)
        return 0
    check_run(tools, done)
    return 0


def say_started(done: Run) -> None:
    """How to come back to a run that nobody waits for."""
    line("run", f"{done.id}   started")
    line("", f"follow it with `ctflow runs wait {done.id}`")
