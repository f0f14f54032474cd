"""Print the JSON schema of ctflow.yaml, for editors to complete and check it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_NAME = "ctflow.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Print it: as it was written with the documentation, in the package or else the checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / _NAME, package.parent / "docs" / _NAME):
        if place.is_file():
            print(place.read_text(encoding="utf-8"), end="")
            return 0
    print(schema_text(), end="")
    return 0


def schema_text() -> str:
    """The schema, made from the models."""
    from ctflow.config.project import Project

    schema = Project.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ctflow.yaml"
    return json.dumps(schema, indent=2) + "\n"
