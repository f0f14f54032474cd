"""List what is cached, and remove what is not used any more: the Python environments of this user
and the local copies of models in buckets and of the artifacts of runs on clusters, for all
projects, and the snapshots of this project's steps.

What a run that goes on, or a model server, needs is never removed. Snapshots of a run whose files
are still there stay too: it could not be gone on with; see `ctflow runs prune`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, clean, print_json, tools_of

if TYPE_CHECKING:
    from ctflow.steps.cached_environment import CachedEnvironment
    from ctflow.steps.step_cache import CachedStep
    from ctflow.stores.local_copies import CachedModel

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow cache``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the cache, the most recently used first")
    prune = actions.add_parser("prune", help="remove what no process needs")
    prune.add_argument(
        "--older", metavar="AGE", type=_age,
        help="only what was not used for this time, such as 30d or 12h (default: all)",
    )  # fmt: skip
    prune.add_argument("--dry-run", action="store_true", help="show what would be removed")
    for action in (listing, prune):
        add_project_flags(action)
        add_json_flag(action)


def run(args: argparse.Namespace) -> int:
    """List, or prune."""
    from ctflow.config.settings import in_project
    from ctflow.wiring import artifact_copies, environments, model_copies

    cache = environments()
    tools = tools_of(args) if in_project(Path(args.folder)) else None
    copies = model_copies(tools.settings.state if tools else None)
    outputs = artifact_copies()
    steps: list[CachedStep] = []
    if args.action == "list":
        found, models, dry = cache.entries(), copies.entries(), False
        artifacts = outputs.entries()
        if tools:
            steps = tools.cached_steps()
    else:
        dry = args.dry_run
        if tools:  # first, because it may fail: then nothing is removed without a word
            steps = tools.prune_steps(args.older, dry_run=dry)
        found = cache.pruned(args.older, dry_run=dry)
        models = copies.prune(args.older, dry_run=dry)
        artifacts = outputs.prune(args.older, dry_run=dry)
    if args.json:
        print_json({"action": args.action, "dry_run": dry,
                    "bytes": _total(found, models, artifacts, steps),
                    "environments": [vars(one) for one in found],
                    "models": [vars(one) for one in models],
                    "artifacts": [vars(one) for one in artifacts],
                    "steps": [vars(one) for one in steps]})  # fmt: skip
        return 0
    for entry in found:
        print(_row(entry.key, entry, _what(entry)))
    for model in models:
        print(_row(model.digest, model, "copy of a model in a bucket"))
    for artifact in artifacts:
        print(_row(artifact.digest, artifact, "copy of an artifact of a run"))
    for step in steps:
        print(_row(step.digest, step, "snapshot of a step"))
    verb = {"list": "", "prune": "would remove " if dry else "removed "}[args.action]
    print(f"{verb}{_summary(found, models, artifacts, steps, project=tools is not None)}")
    return 0


def _summary(
    found: list[CachedEnvironment],
    models: list[CachedModel],
    artifacts: list[CachedModel],
    steps: list[CachedStep],
    *,
    project: bool,
) -> str:
    counts = [f"{len(found)} environment{'s'[: len(found) != 1]}"]
    if models:
        counts.append(f"{len(models)} model{'s'[: len(models) != 1]}")
    if artifacts:
        counts.append(f"{len(artifacts)} artifact{'s'[: len(artifacts) != 1]}")
    if project:
        counts.append(f"{len(steps)} step snapshot{'s'[: len(steps) != 1]}")
    return f"{', '.join(counts)}, {_size(_total(found, models, artifacts, steps))}"


def _total(*cached: Sequence[Any]) -> int:
    return sum(one.size for some in cached for one in some)


def _row(name: str, one: Any, what: str) -> str:
    import time

    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.used))
    return f"{name[:12]}  {_size(one.size):>9}  used {used}  {what}"


def _what(entry: CachedEnvironment) -> str:
    if not entry.complete:
        return "(half made)"
    text = clean(" ".join(entry.requirements)) or "no requirements"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _size(count: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def _age(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    try:
        age = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        age = -1.0
    if not 0 <= age < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 30d, 12h or 90m")
    return age
