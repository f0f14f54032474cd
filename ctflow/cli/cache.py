"""Show what is cached for this user, for all projects, and remove what is not used any more."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ctflow.cli.common import add_json_flag, clean, print_json

if TYPE_CHECKING:
    from ctflow.adapters.environments import CachedEnvironment

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow cache``."""
    parser.add_argument("action", choices=("show", "prune"), help="list it, or remove from it")
    parser.add_argument(
        "--older", metavar="AGE", type=_age,
        help="prune only what was not used for so long, such as 30d or 12h (default: everything)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="prune: say what would go")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Show, or prune."""
    from ctflow.wiring import environments

    cache = environments()
    if args.action == "show":
        entries = cache.entries()
    else:
        entries = cache.pruned(args.older, dry_run=args.dry_run)
    if args.json:
        total = sum(entry.size for entry in entries)
        print_json({"action": args.action, "dry_run": args.dry_run, "bytes": total,
                    "environments": [vars(entry) for entry in entries]})  # fmt: skip
        return 0
    for entry in entries:
        print(_row(entry))
    print(_summary(args, entries))
    return 0


def _summary(args: argparse.Namespace, entries: list[CachedEnvironment]) -> str:
    count = f"{len(entries)} environment{'' if len(entries) == 1 else 's'}"
    size = _size(sum(entry.size for entry in entries))
    if args.action == "show":
        return f"{count}, {size}"
    return f"{'would remove' if args.dry_run else 'removed'} {count}, {size}"


def _row(entry: CachedEnvironment) -> str:
    import time

    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    what = clean(" ".join(entry.requirements)) or "no requirements"
    if not entry.complete:
        what = "(half made)"
    shown = what if len(what) <= 60 else f"{what[:57]}..."
    return f"{entry.key[:12]}  {_size(entry.size):>9}  used {used}  {shown}"


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
