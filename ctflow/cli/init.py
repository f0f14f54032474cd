"""Take an existing repository with a KFP pipeline under ctflow: write its ctflow.yaml.

Nothing of yours is changed. Finds the pipelines by reading the source, and asks where there are
several; off a terminal --pipeline says which.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctflow.cli.common import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow init``."""
    parser.add_argument("-C", dest="folder", default=".", metavar="DIR", help="the repository")
    parser.add_argument("--pipeline", metavar="FILE:FUNCTION", help="such as pipeline.py:pipeline")
    parser.add_argument("--project", metavar="NAME", help="default: the folder's name")
    parser.add_argument(
        "--model", metavar="TASK.OUTPUT", help="the output that is the model, such as train.model"
    )


def run(args: argparse.Namespace) -> int:
    """Find, ask, write."""
    from ctflow.config.settings import project_of
    from ctflow.config.values import check_name
    from ctflow.errors import UsageError
    from ctflow.stages import adopt
    from ctflow.stages.new import suggest
    from ctflow.wiring import checked_out_branch

    root = Path(args.folder).resolve()
    if (root / adopt.FILE).exists():
        raise adopt.already(root)
    branch = checked_out_branch(root)
    found = adopt.pipelines(root)
    wanted = args.pipeline
    if wanted is None and len(found) > 1 and sys.stdin.isatty():
        wanted = _asked("Which pipeline?", [one.place for one in found])
    pipeline = adopt.chosen(found, wanted)
    model = args.model
    if model is None and len(pipeline.models) > 1 and sys.stdin.isatty():
        model = _asked("Which output is the model?", list(pipeline.models))
    model = model or next(iter(pipeline.models), "train.model")
    name = args.project or suggest(root.name) or "project"
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error), next="give another with --project") from None
    text = adopt.configuration(name, branch, pipeline, model)
    project_of(text, adopt.FILE)  # refuses now what every later verb would
    print(f"wrote {adopt.write(root, text)}")
    print(f"  pipeline  {clean(pipeline.place)}")
    sure = "" if model in pipeline.models else "   (a guess: correct it in ctflow.yaml)"
    print(f"  model     {clean(model)}{sure}")
    print("Next: try `ctflow run`. Before `ctflow ct`, write rules under `gate:`")
    return 0


def _asked(question: str, choices: list[str]) -> str:
    for number, choice in enumerate(choices, 1):
        print(f"  {number}  {clean(choice)}", file=sys.stderr)
    while True:
        print(f"{question} [1] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer.strip():
            return choices[0]
        if answer.strip().isdigit() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]
