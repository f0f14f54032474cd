"""What the verbs share: common flags, the settings, and how results are printed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ctflow.lib.text import clean as clean

if TYPE_CHECKING:
    from ctflow.config.settings import Settings
    from ctflow.wiring import ProjectTools


def add_project_flags(parser: argparse.ArgumentParser) -> None:
    """``-C`` and ``--set``: where the project is, and values that outrank its file."""
    parser.add_argument(
        "-C", dest="folder", default=".", metavar="DIR", help="the project's folder"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of ctflow.yaml, such as --set parameters.epochs=5",
    )  # fmt: skip


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """``--json``: the result as a JSON document on standard output."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of the project that the command stands in."""
    from ctflow.config.settings import load_settings
    from ctflow.lib.user_cache import cache_root

    cache = cache_root(os.environ)
    return load_settings(Path(args.folder), os.environ, args.settings, cache=cache)


def tools_of(args: argparse.Namespace) -> ProjectTools:
    """The stages' tools (adapters behind ports) for this project."""
    from ctflow.wiring import wire

    settings = settings_of(args)
    if not getattr(args, "dry_run", False):
        _keep_out_of_git(settings.state)
    return wire(settings)


def _keep_out_of_git(state: Path) -> None:
    """Local state ignores itself, so that it never counts as an uncommitted change."""
    mark = state / ".gitignore"
    if not mark.exists():
        state.mkdir(parents=True, exist_ok=True)
        mark.write_text("*\n", encoding="utf-8")


def print_json(data: Any) -> None:
    """A document, or plain data, as JSON on standard output."""
    from dataclasses import is_dataclass

    from ctflow.lib.secrets import KNOWN
    from ctflow.model import to_json

    plain = to_json(data) if is_dataclass(data) and not isinstance(data, type) else data
    # Masked first: in JSON a secret's quotes and newlines look otherwise.
    print(json.dumps(KNOWN.masked(plain), indent=2, ensure_ascii=False, default=str))


def line(stage: str, text: str) -> None:
    """One line of a stage's progress, aligned as in the README."""
    print(f"  {stage:<9} {text}", flush=True)


def painted(text: str, how: str, stream: TextIO) -> str:
    """Text in colour (``how``: ANSI codes such as ``1;31``) where the stream shows colours.

    Not with NO_COLOR (https://no-color.org), nor on a terminal that says it is dumb.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\x1b[{how}m{text}\x1b[0m"


#: How the signs of what went well, or did not, are painted.
SIGNS = {"✓": "32", "✗": "31", "ok": "32", "no": "31", "FAILED": "31", "–": "33", "--": "33"}


def sign(text: str, stream: TextIO) -> str:
    """A sign in its colour."""
    return painted(text, SIGNS[text], stream) if text in SIGNS else text
