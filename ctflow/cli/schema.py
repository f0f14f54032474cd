"""Print the JSON schema of ctflow.yaml, for editors to complete and check it."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from ctflow.config.project import Project

    schema = Project.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ctflow.yaml"
    print(json.dumps(schema, indent=2))
    return 0
