"""podman and buildah: the same library behind two programs, so the same arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.images.builders.commands import ask, execute
from ctflow.images.builders.engine import (
    Line,
    Options,
    Target,
    feed_context,
    insecure_host,
)


def build_argv(
    program: str, target: Target, options: Options, id_file: Path, *, push: bool = True
) -> list[str]:
    """The build's command line; the context comes as a tar stream on standard input.

    Without ``push`` the build cache is read only.
    """
    argv = [program, "build", "--file", "Dockerfile", "--layers"]
    if len(options.platforms) > 1:
        argv += ["--manifest", target.reference]
    else:
        argv += ["--tag", target.reference, "--iidfile", str(id_file)]
    if options.platforms:
        argv += ["--platform", ",".join(options.platforms)]
    for name, value in options.args.items():
        argv += ["--build-arg", f"{name}={value}"]
    for name, value in options.labels.items():
        argv += ["--label", f"{name}={value}"]
    for name, file in options.secrets.items():
        # Without the type, a variable of the id's name would be taken for the source.
        argv += ["--secret", f"type=file,id={name},src={file}"]
    if options.created is not None:
        argv += ["--timestamp", str(options.created)]
    if options.cache:
        argv += ["--cache-from", options.cache]
        if push:
            argv += ["--cache-to", options.cache]
    spoken_to = (target.name, target.base, options.cache)
    if any(insecure_host(one, options) for one in spoken_to if one):
        argv.append("--tls-verify=false")
    return [*argv, "-"]


def push_argv(program: str, target: Target, options: Options) -> list[str]:
    """The push's command line."""
    argv = [program]
    if len(options.platforms) > 1:
        argv += ["manifest", "push", "--all"]
    else:
        argv += ["push"]
    if insecure_host(target.name, options):
        argv.append("--tls-verify=false")
    return [*argv, target.reference, f"docker://{target.reference}"]


class PodmanEngine:
    """Implements ``Engine`` with ``podman`` or ``buildah``; ``push``: something will be pushed."""

    def __init__(self, program: str, environ: Mapping[str, str], *, push: bool = True) -> None:
        self.name = program
        self._environ = environ
        self._push = push

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """As the protocol says."""
        id_file = work / "id"
        if len(options.platforms) > 1:
            # A list of this name, left by a build that was stopped, would be added to.
            ask([self.name, "manifest", "rm", target.reference], self._environ)
        execute(
            build_argv(self.name, target, options, id_file, push=self._push), line,
            what=f"step {target.step}: {self.name} build", environ=self._environ,
            feed=lambda stream: feed_context(target, stream),
        )  # fmt: skip
        return id_file.read_text(encoding="utf-8").strip() if id_file.exists() else ""

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """As the protocol says."""
        execute(
            push_argv(self.name, target, options), line,
            what=f"step {target.step}: {self.name} push", environ=self._environ, fails=OutsideError,
        )  # fmt: skip

    def find(self, target: Target) -> str | None:
        """As the protocol says."""
        form = "{{.FromImageID}}" if self.name == "buildah" else "{{.Id}}"
        words = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        found = ask([self.name, *words, "--format", form, target.reference], self._environ)
        return f"sha256:{found.removeprefix('sha256:')}" if found else None
