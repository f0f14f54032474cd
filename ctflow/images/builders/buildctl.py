"""A remote buildkitd, through its client ``buildctl`` (``BUILDKIT_HOST`` says where it is)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import OutsideError, RunFailed
from ctflow.images.builders.commands import execute
from ctflow.images.builders.engine import (
    Line,
    Options,
    Target,
    insecure_host,
    lay_out,
    step_cache,
)


def argv_of(target: Target, options: Options, context: Path, *, push: bool) -> list[str]:
    """The command line; without ``push`` the result stays in buildkitd's cache."""
    argv = ["buildctl", "build", "--progress", "plain", "--frontend", "dockerfile.v0",
            "--local", f"context={context}", "--local", f"dockerfile={context}"]  # fmt: skip
    for name, value in options.args.items():
        argv += ["--opt", f"build-arg:{name}={value}"]
    if options.created is not None:
        argv += ["--opt", f"build-arg:SOURCE_DATE_EPOCH={options.created}"]
    for name, value in options.labels.items():
        argv += ["--opt", f"label:{name}={value}"]
    if options.platforms:
        argv += ["--opt", f"platform={','.join(options.platforms)}"]
    for name, file in options.secrets.items():
        argv += ["--secret", f"id={name},src={file}"]
    if cache := step_cache(target, options):
        cache += plain(cache, options)
        argv += ["--import-cache", f"type=registry,ref={cache}"]
        if push:
            argv += ["--export-cache", f"type=registry,ref={cache},mode=max"]
    if push:
        image = f"type=image,name={target.reference},push=true,rewrite-timestamp=true"
        argv += ["--output", f"{image}{plain(target.name, options)}"]
    return argv


def plain(reference: str, options: Options) -> str:
    """BuildKit's attribute for a registry that is spoken to without TLS."""
    return ",registry.insecure=true" if insecure_host(reference, options) else ""


class BuildctlEngine:
    """Implements ``Engine``; it has no store of its own, so nothing is ever found there."""

    name = "buildctl"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """As the protocol says."""
        self._run(target, options, work, line, push=False)
        return ""

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """As the protocol says; what was built comes from buildkitd's cache."""
        self._run(target, options, work, line, push=True)

    def find(self, target: Target) -> str | None:
        """As the protocol says."""
        return None

    def _run(self, target: Target, options: Options, work: Path, line: Line, *, push: bool) -> None:
        context = work / "context"
        if not context.exists():
            lay_out(target, context)
        execute(
            argv_of(target, options, context, push=push), line,
            what=f"step {target.step}: buildctl", environ=self._environ,
            fails=OutsideError if push else RunFailed,
        )  # fmt: skip
