"""The steps' images in the registry: list them, lock their bases, prune old ones."""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs of ``ctflow images``."""
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="list|lock|prune")
    listing = nouns.add_parser("list", help="list each step's images in the registry")
    lock = nouns.add_parser("lock", help="write the base images' digests to ctflow.lock")
    prune = nouns.add_parser("prune", help="delete images that are not in use")
    for one in (listing, lock, prune):
        add_project_flags(one)
        add_json_flag(one)
    prune.add_argument("--keep", type=int, default=10, metavar="N",
                       help="also keep the N newest of each step (default: 10)")  # fmt: skip
    prune.add_argument("--dry-run", action="store_true", help="show what would be deleted")


def run(args: argparse.Namespace) -> int:
    """Call the sub-verb."""
    return {"list": _list, "lock": _lock, "prune": _prune}[args.noun](args)


def _list(args: argparse.Namespace) -> int:
    from ctflow.stages.images import list_images

    found = list_images(tools_of(args))
    if args.json:
        from ctflow.model import to_json

        print_json([to_json(one) for one in found])
        return 0
    for one in found:
        mark = "in use" if one.used else ""
        line(one.step, f"{one.tag}  {one.digest[:19]}  {one.when}  {mark}".rstrip())
    if not found:
        line("images", "none in the registry")
    return 0


def _lock(args: argparse.Namespace) -> int:
    from ctflow.stages.images import lock_bases

    digests, changed = lock_bases(tools_of(args))
    if args.json:
        print_json({"changed": changed, "bases": dict(digests)})
        return 0
    for name, digest in digests.items():
        line("lock", f"{name}  {digest}")
    line("", "wrote ctflow.lock: commit it" if changed else "ctflow.lock is up to date")
    return 0


def _prune(args: argparse.Namespace) -> int:
    from ctflow.errors import UsageError
    from ctflow.stages.images import prune_images

    if args.keep < 0:
        raise UsageError("--keep is less than 0")
    gone = prune_images(tools_of(args), args.keep, dry_run=args.dry_run)
    if args.json:
        from ctflow.model import to_json

        print_json({"dry_run": args.dry_run, "deleted": [to_json(one) for one in gone]})
        return 0
    for one in gone:
        line(one.step, f"{one.tag}  {one.digest[:19]}")
    verb = "would be deleted" if args.dry_run else "deleted"
    line("prune", f"{len(gone)} image{'s'[: len(gone) != 1]} {verb}")
    return 0
