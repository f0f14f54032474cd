"""A remote buildkitd, through its client ``buildctl`` (``BUILDKIT_HOST`` says where it is)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ctflow.adapters.builders.engine import Line, Options, Target, execute, insecure_host
from ctflow.errors import OutsideError, RunFailed


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
    plain = ",registry.insecure=true" if insecure_host(target.name, options) else ""
    if options.cache:
        argv += ["--import-cache", f"type=registry,ref={options.cache}{plain}"]
        if push:
            argv += ["--export-cache", f"type=registry,ref={options.cache},mode=max{plain}"]
    if push:
        image = f"type=image,name={target.reference},push=true,rewrite-timestamp=true"
        argv += ["--output", f"{image}{plain}"]
    return argv


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


def lay_out(target: Target, folder: Path) -> None:
    """Copy a context to a folder: buildctl takes no tar streams."""
    for one in target.files:
        place = folder / one.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if one.kind == "folder":
            place.mkdir(exist_ok=True)
            continue
        if one.kind == "link":
            place.symlink_to(one.target)
            continue
        shutil.copyfile(one.source, place)
        place.chmod(0o755 if one.kind == "exec" else 0o644)
