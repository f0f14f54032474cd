"""Build the images of the steps, and of the predictor, whose content changed.

Without flags it builds what the configured runner needs: for `runner: local` a folder and a Python
environment for each, else images in images.registry. `--push`, `--no-push`, `--check` and
`images.builder` ask for images whatever the runner is.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.model import Images

if TYPE_CHECKING:
    from ctflow.ports import Builder, Watch
    from ctflow.wiring import ProjectTools


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow build``."""
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="STEP", help="only this step"
    )
    parser.add_argument(
        "--since", metavar="REF", help="only the steps that changed since this commit"
    )
    parser.add_argument("--check", action="store_true", help="build what changed, then discard it")
    parser.add_argument(
        "--push", action=argparse.BooleanOptionalAction, default=None,
        help="push the images, or leave them in the engine's store",
    )  # fmt: skip
    parser.add_argument(
        "--locked", action="store_true", help="fail if a base image is not the one in ctflow.lock"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be built")


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    from ctflow.cli.progress import show
    from ctflow.errors import UsageError
    from ctflow.stages.images import touched
    from ctflow.stages.train import build, head_or_none

    if args.check and args.push is not None:
        raise UsageError(
            "--check does not push", next="use only one of --check, --push and --no-push"
        )
    tools = tools_of(args)
    only = args.only
    if args.since is not None:
        only = touched(tools, args.since, only)
    with show(plain=args.json) as watch:
        if args.since is not None and not only:
            images = Images(tools.project.project, (), head_or_none(tools))
        elif args.dry_run:
            return _dry_run(tools, args, only, watch)
        else:
            images = build(tools, watch, only, _builder(tools, args), predictor=True)
    if args.json:
        print_json(images)
    else:
        line("build", summary(images))
        for image in (*images.images, *([images.predictor] if images.predictor else [])):
            # What was only tried is nowhere: its name would lead to nothing.
            tried = args.check and image.built
            line("", f"{image.step}  {'builds; not pushed' if tried else image.reference}")
    return 0


def _builder(tools: ProjectTools, args: argparse.Namespace) -> Builder:
    config = tools.project.images
    asked = args.check or args.push is not None or args.locked
    if asked or config.builder not in ("auto", "local"):
        push = not args.check and args.push is not False
        engine = "auto" if config.builder == "local" else None
        return tools.image_builder(
            push=push, keep=not args.check, locked=args.locked, engine=engine
        )
    return tools.builder


def _dry_run(tools: ProjectTools, args: argparse.Namespace, only: list[str], watch: Watch) -> int:
    """What would be built: asks the registry where images are wanted, and nothing else."""
    from ctflow.ports import PREDICTOR
    from ctflow.stages.train import chosen

    steps = chosen(tools.sources(), only)
    if _builder(tools, args) is tools.workspaces:
        found: list[dict[str, Any]] = [
            {"step": one.step, "image": one.reference, "digest": one.digest, "build": one.built}
            for one in tools.workspaces.plan(steps)
        ]
    else:
        builder = tools.image_builder(push=False, keep=False, locked=args.locked)
        targets = builder.targets(steps, watch)
        found = [
            {"step": one.step, "image": one.reference, "digest": digest, "build": digest is None}
            for one, digest in zip(targets, builder.existing(targets), strict=True)
        ]
    if args.json:
        print_json({"dry_run": True, "images": found})
        return 0
    count = sum(bool(one["build"]) for one in found)
    others = [one for one in found if one["step"] != PREDICTOR]
    line("build", f"{counted(len(others), len(others) < len(found))}   {count} would be built")
    for one in found:
        line("", f"{one['step']}  {one['image']}  {'would be built' if one['build'] else 'there'}")
    return 0


def summary(images: Images) -> str:
    """``4 steps   1 built, 3 unchanged``."""
    found = [*images.images, *([images.predictor] if images.predictor else [])]
    built = sum(image.built for image in found)
    what = counted(len(images.images), images.predictor is not None)
    return f"{what}   {built} built, {len(found) - built} unchanged"


def counted(steps: int, predictor: bool) -> str:
    """``4 steps and the predictor``."""
    text = f"{steps} step{'s'[: steps != 1]}"
    return f"{text} and the predictor" if predictor else text
