"""What the tasks of ctflow.components run, inside a pipeline. Not for use by hand.

gate judges the model of the run that it is a task of; promote proposes what gate judged.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctflow.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ctflow.evaluation.given import GivenOutput
    from ctflow.model import Commit, Run
    from ctflow.wiring import ProjectTools

#: Set by the embedded runner: the project that the run is of.
PROJECT = "CTFLOW_TASK_ROOT"
_TOKEN = "CTFLOW_GIT_TOKEN"  # noqa: S105 (the variable's name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the tasks, as ``ctflow.components`` writes them."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    gate = actions.add_parser("gate", help="judge the run's model")
    for name in ("--run", "--pipeline", "--created", "--commit", "--package", "--parameters",
                 "--images", "--to"):  # fmt: skip
        gate.add_argument(name, default="")
    gate.add_argument("--output", dest="outputs", action="append", nargs=6, default=[],
                      metavar=("NAME", "TYPE", "MADE", "PATH", "URI", "METADATA"))  # fmt: skip
    gate.add_argument("--no-golden", dest="golden", action="store_false")
    gate.add_argument("--decision", type=Path, required=True)
    promote = actions.add_parser("promote", help="propose what gate judged")
    promote.add_argument("--promotion", type=Path, required=True)
    for action in (gate, promote):
        action.add_argument("--repository", default="")
        action.add_argument("--folder", default="")
        action.add_argument("--evidence", type=Path, required=True)


def run(args: argparse.Namespace) -> int:
    """Do what the task is for."""
    return _gate(args) if args.action == "gate" else _promote(args)


def _gate(args: argparse.Namespace) -> int:
    from ctflow.cli import gate as gate_verb
    from ctflow.cli.progress import show
    from ctflow.evaluation.candidates import RunCandidate
    from ctflow.evaluation.given import GivenOutputs
    from ctflow.evaluation.kept_evidence import keep_evidence, kept_release
    from ctflow.stages.evaluate import champion, gate
    from ctflow.stages.promote import commit_of

    with _project(args, args.commit) as (tools, commit):
        done = _run(args, tools, commit)
        environment = args.to or tools.project.first_environments()[0]
        candidate = RunCandidate(done, tools.project, GivenOutputs())
        _check_store(tools)
        with show() as watch:
            verdict = gate(
                tools, candidate, environment, watch, outputs=GivenOutputs(), golden=args.golden
            )
        gate_verb.render(verdict)
        # What nobody else can have is judged, but cannot become a release.
        sha = commit_of(done, tools.scm) if verdict.passes else commit.sha
        current = champion(environment, tools.project.branch, tools.scm)
        release = kept_release(
            candidate, verdict, tools.project, sha, current.release if current else None,
            tools.store,
        )  # fmt: skip
        _write(args.evidence, keep_evidence(release, tools.store))
        _write(args.decision, verdict.decision.encode())
    return 0


def _promote(args: argparse.Namespace) -> int:
    from ctflow.cli import promote as promote_verb
    from ctflow.evaluation.candidates import ReleaseCandidate
    from ctflow.evaluation.kept_evidence import read_evidence
    from ctflow.model import dump
    from ctflow.stages.promote import promote_candidate

    release = read_evidence(args.evidence.read_bytes(), str(args.evidence))
    with _project(args, release.commit) as (tools, _):
        promotion = promote_candidate(
            tools, ReleaseCandidate(release, tools.store), release.verdict
        )
        promote_verb.render(promotion)
        _write(args.promotion, dump(promotion).encode())
    return 0


@contextmanager
def _project(args: argparse.Namespace, sha: str) -> Iterator[tuple[ProjectTools, Commit]]:
    """The project's tools and the commit: of a clone, or of the project on this machine."""
    import tempfile

    from ctflow.config.settings import load_settings
    from ctflow.lib.user_cache import cache_root
    from ctflow.model import Commit
    from ctflow.wiring import checkout, wire

    cache = cache_root(os.environ)
    if here := os.environ.get(PROJECT):
        tools = wire(load_settings(Path(here), os.environ, cache=cache))
        yield tools, tools.head()
        return
    if not args.repository:
        raise ConfigError(
            "the task does not know the project's repository",
            next="give `repository=` to ctflow.components.gate and promote",
        )
    if not sha:
        raise ConfigError(
            "the run does not say which commit it is of",
            next="give the pipeline a parameter `ctflow_commit: str = ''` and pass it to"
            " ctflow.components.gate",
        )
    with tempfile.TemporaryDirectory(prefix="ctflow-task-") as scratch:
        top = checkout(args.repository, sha, Path(scratch) / "project", os.environ.get(_TOKEN, ""))
        root = (top / args.folder).resolve()
        if not root.is_relative_to(top.resolve()):
            raise UsageError(f"the folder {args.folder} is not in the repository")
        yield wire(load_settings(root, os.environ, cache=cache)), Commit(sha)


def _run(args: argparse.Namespace, tools: ProjectTools, commit: Commit) -> Run:
    from datetime import datetime

    from ctflow.evaluation.given import run_given

    try:
        created = datetime.fromisoformat(args.created.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise UsageError(f"{args.created!r} is no time") from None
    return run_given(
        args.run,
        tools.project.project,
        args.pipeline.removesuffix(f"-{args.run}"),
        args.package,
        created,
        commit,
        _mapping(args.parameters, "the parameters"),
        _mapping(args.images, "the images"),
        [_output(words) for words in args.outputs],
    )


def _output(words: list[str]) -> GivenOutput:
    from ctflow.evaluation.given import GivenOutput

    name, kind, made, path, uri, metadata = words
    return GivenOutput(name, kind, made, Path(path), uri, _mapping(metadata, f"{name}'s metadata"))


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        data = json.loads(text) if text.strip() else {}
    except ValueError:
        raise UsageError(f"{what} are not JSON") from None
    if not isinstance(data, dict):
        raise UsageError(f"{what} are no JSON object")
    return data


def _check_store(tools: ProjectTools) -> None:
    """In a pod a folder would go with the pod."""
    if PROJECT not in os.environ and "://" not in (tools.project.store.models or ""):
        raise ConfigError(
            "the model store is a folder, which a pod loses at its end",
            next="set store.models to a bucket, such as s3://bucket/models",
        )
    tools.store.check()


def _write(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
