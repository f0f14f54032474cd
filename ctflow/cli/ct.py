"""Continuous training: build, compile, run, gate and promote, here and now.

Stops where a stage says no: exit code 4 a step failed, 3 the gate said no. A model that serves
already is no failure. `--from` goes on from another stage's result.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json
from ctflow.cli.gate import add_gate_flags
from ctflow.cli.run import add_run_flags, tools_to_run
from ctflow.errors import GateHeld, NothingToPropose

if TYPE_CHECKING:
    from ctflow.model import Commit, Images, Package, Run
    from ctflow.ports import Watch
    from ctflow.wiring import ProjectTools


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow ct``."""
    add_project_flags(parser)
    add_json_flag(parser)
    add_run_flags(parser)
    add_gate_flags(parser)
    _add_exit_code(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="continue from images, a package, a run or a verdict")  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and change nothing"
    )


def _add_exit_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 6 if there is nothing to propose"
    )


def run(args: argparse.Namespace) -> int:
    """All stages, each printing its line."""
    from ctflow.cli.given import documents, override_of, parameters_of
    from ctflow.cli.progress import show
    from ctflow.evaluation.preconditions import (
        check_checkout,
        check_environment,
        check_promotable,
        first_environments,
    )
    from ctflow.stages.train import check_run

    tools = tools_to_run(args)
    parameters = parameters_of(args.param)
    override = override_of(tools, args.override, args.reason)
    if args.to:
        check_environment(tools, args.to)
    given = documents(args.files, "images", "package", "run", "verdict")
    if not given:
        # Before the training is paid for: what promoting would refuse at the end.
        check_promotable(tools, args.to)
        commit = check_checkout(tools, args.to)
    if args.dry_run and "run" not in given and "verdict" not in given:
        return _say(tools, args)
    results: dict[str, Any] = dict(given)
    with show(plain=args.json) as watch:
        if not given:
            # Before the training too: an image that does not build.
            _build_predictor(tools, commit, watch, args)
        done = _train(tools, given, parameters, args, watch, results)
    if not args.wait:
        return _started(done, args)
    check_run(tools, done)
    code = 0
    for environment in [args.to] if args.to else first_environments(tools):
        code = max(code, _promote(tools, done, environment, override, args, results))
    if args.json:
        from ctflow.model import to_json

        print_json({
            kind: {name: to_json(one) for name, one in found.items()}
            if isinstance(found, dict) else to_json(found)
            for kind, found in results.items()
        })  # fmt: skip
    return code


def _started(done: Run, args: argparse.Namespace) -> int:
    """The run goes on elsewhere; its gate and its promotion are the pipeline's, or come later."""
    from ctflow.cli.run import say_started

    if args.json:
        print_json(done)
        return 0
    say_started(done)
    line("", f"then judge and propose it with `ctflow promote {done.id}`")
    return 0


def _build_predictor(
    tools: ProjectTools, commit: Commit, watch: Watch, args: argparse.Namespace
) -> None:
    from ctflow.model import is_local_image
    from ctflow.stages.train import build_predictor

    image = build_predictor(tools, commit.sha, watch)
    if image and not is_local_image(image) and not args.json:
        line("predictor", image)


def _say(tools: ProjectTools, args: argparse.Namespace) -> int:
    """What would be done; nothing is built, run or proposed."""
    from ctflow.evaluation.preconditions import first_environments

    plan = tools.workspaces.plan(tools.steps())
    count = sum(image.built for image in plan)
    where = [args.to] if args.to else list(first_environments(tools))
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
    tools: ProjectTools,
    given: dict[str, Any],
    parameters: dict[str, Any],
    args: argparse.Namespace,
    watch: Watch,
    results: dict[str, Any],
) -> Run:
    from ctflow.stages.train import train

    if "verdict" in given:
        return given.get("run") or tools.runner.get(given["verdict"].run)
    if "run" in given:
        done: Run = given["run"]
        return done

    def note(result: Images | Package | Run) -> None:
        results[result.kind] = result
        if not args.json:
            _say_result(result)

    return train(
        tools,
        watch,
        parameters,
        images=given.get("images"),
        package=given.get("package"),
        caching=not args.no_cache,
        wait=args.wait,
        done=note,
    )


def _say_result(result: Images | Package | Run) -> None:
    from ctflow.cli import build
    from ctflow.cli import compile as compile_verb
    from ctflow.model import Images, Package

    if isinstance(result, Images):
        line("build", build.summary(result))
    elif isinstance(result, Package):
        line("compile", compile_verb.summary(result))


def _promote(
    tools: ProjectTools,
    done: Run,
    environment: str,
    override: Any,
    args: argparse.Namespace,
    results: dict[str, Any],
) -> int:
    from ctflow.cli import gate as gate_verb
    from ctflow.cli import promote as promote_verb
    from ctflow.cli.progress import show
    from ctflow.evaluation.candidates import Candidate, RunCandidate
    from ctflow.evaluation.kept_evidence import kept_evidence
    from ctflow.stages.evaluate import gate
    from ctflow.stages.promote import promote_candidate
    from ctflow.stages.review import finish

    candidate: Candidate
    verdict = results.get("verdict")
    kept = kept_evidence(tools.project, environment, done.id, tools.store)
    if kept is not None and override is None and verdict is None:
        # A gate inside the pipeline has judged it already.
        candidate, verdict = kept, kept.verdict
        results["verdict"] = verdict
    else:
        candidate = RunCandidate(done, tools.project, tools.runner)
    verdicts, promotions = results.setdefault("verdicts", {}), results.setdefault("promotions", {})
    if verdict is None or verdict.environment != environment:
        with show(plain=args.json) as watch:
            verdict = results["verdict"] = gate(
                tools, candidate, environment, watch, override, dry_run=args.dry_run
            )
    verdicts[environment] = verdict
    if not args.json:
        gate_verb.render(verdict)
    if verdict.serves_already and not verdict.passes:
        results.pop("promotion", None)
        if not args.dry_run:
            finish(tools.project, environment, tools.scm)
        return NothingToPropose.exit_code if args.exit_code else 0
    if not verdict.passes:
        results.pop("promotion", None)
        return GateHeld.exit_code
    promotion = promotions[environment] = results["promotion"] = promote_candidate(
        tools, candidate, verdict, args.dry_run
    )
    if not args.json:
        promote_verb.render(promotion, args.dry_run)
    return 0
