"""Continuous training: build, compile, run, gate and promote, here and now.

Stops where a stage says no: exit code 4 a step failed, 3 the gate said no. A model that serves
already is no failure. `--from` goes on from another stage's result.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.cli.gate import add_gate_flags
from ctflow.cli.run import add_run_flags
from ctflow.errors import GateHeld, NothingToPropose

if TYPE_CHECKING:
    from ctflow.model import Run
    from ctflow.ports import Watch
    from ctflow.wiring import Tools


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow ct``."""
    add_project_flags(parser)
    add_json_flag(parser)
    add_run_flags(parser)
    add_gate_flags(parser)
    _add_exit_code(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="go on from images, a package, a run or a verdict")  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="build, run and propose nothing; say what would be"
    )


def _add_exit_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exit-code", action="store_true", help="end with 6 where there is nothing to propose"
    )


def run(args: argparse.Namespace) -> int:
    """All stages, each printing its line."""
    from ctflow import flow
    from ctflow.cli.progress import show

    tools = tools_of(args)
    tools.use_engine(args.engine, args.network)
    parameters = flow.parameters_of(args.param)
    override = flow.override_of(tools, args.override, args.reason)
    if args.to:
        flow.check_environment(tools, args.to)
    given = flow.documents(args.files, "images", "package", "run", "verdict")
    if not given:
        # Before the training is paid for: what promoting would refuse at the end.
        flow.check_promotable(tools, args.to)
        flow.check_checkout(tools)
    if args.dry_run and "run" not in given and "verdict" not in given:
        return _say(tools, args)
    results: dict[str, Any] = dict(given)
    with show(plain=args.json) as watch:
        done = _train(tools, given, parameters, args, watch, results)
    flow.check_run(tools, done)
    code = 0
    for environment in [args.to] if args.to else flow.first_environments(tools):
        code = max(code, _promote(tools, done, environment, override, args, results))
    if args.json:
        from ctflow.model import to_json

        print_json({
            kind: {name: to_json(one) for name, one in found.items()}
            if isinstance(found, dict) else to_json(found)
            for kind, found in results.items()
        })  # fmt: skip
    return code


def _say(tools: Tools, args: argparse.Namespace) -> int:
    """What would be done; nothing is built, run or proposed."""
    from ctflow import flow

    plan = tools.workspaces.plan(tools.steps())
    count = sum(image.built for image in plan)
    where = [args.to] if args.to else list(flow.first_environments(tools))
    if args.json:
        steps = {image.step: image.built for image in plan}
        print_json({"dry_run": True, "build": steps, "promote": where})
        return 0
    line("build", f"{len(plan)} step{'s'[: len(plan) != 1]}   {count} would be built")
    line("run", f"would run {tools.project.pipeline} of commit {tools.head().sha[:10]}")
    for environment in where:
        line("promote", f"{environment}   would be judged, and proposed if the gate says promote")
    return 0


def _train(
    tools: Tools,
    given: dict[str, Any],
    parameters: dict[str, Any],
    args: argparse.Namespace,
    watch: Watch,
    results: dict[str, Any],
) -> Run:
    from ctflow import flow
    from ctflow.cli import build
    from ctflow.cli import compile as compile_verb

    def say(stage: str, text: str) -> None:
        if not args.json:
            line(stage, text)

    if "verdict" in given:
        return given.get("run") or tools.runner.get(given["verdict"].run)
    if "run" in given:
        done: Run = given["run"]
        return done
    package = given.get("package")
    if package is None:
        images = given.get("images")
        if images is None:
            images = results["images"] = flow.build(tools, watch)
            say("build", build.summary(images))
        package = results["package"] = flow.compile_pipeline(tools, images, watch)
        say("compile", compile_verb.summary(package))
    done = flow.run(tools, package, watch, parameters, caching=not args.no_cache)
    results["run"] = done
    return done


def _promote(
    tools: Tools,
    done: Run,
    environment: str,
    override: Any,
    args: argparse.Namespace,
    results: dict[str, Any],
) -> int:
    from ctflow import flow
    from ctflow.cli import gate, promote
    from ctflow.cli.progress import show

    verdict = results.get("verdict")
    verdicts, promotions = results.setdefault("verdicts", {}), results.setdefault("promotions", {})
    if verdict is None or verdict.environment != environment:
        with show(plain=args.json) as watch:
            verdict = results["verdict"] = flow.gate(
                tools, done, environment, watch, override, dry_run=args.dry_run
            )
    verdicts[environment] = verdict
    if not args.json:
        gate.render(verdict)
    if verdict.serves_already and not verdict.passes:
        results.pop("promotion", None)
        if not args.dry_run:
            flow.finish(tools, environment)
        return NothingToPropose.exit_code if args.exit_code else 0
    if not verdict.passes:
        results.pop("promotion", None)
        return GateHeld.exit_code
    promotion = promotions[environment] = results["promotion"] = flow.promote(
        tools, done, verdict, args.dry_run
    )
    if not args.json:
        promote.render(promotion, args.dry_run)
    return 0
