"""docker: BuildKit through the buildx plug-in, and the classic builder where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError
from ctflow.images.builders.buildctl import plain
from ctflow.images.builders.commands import ask, execute
from ctflow.images.builders.engine import (
    Line,
    Options,
    Target,
    feed_context,
    lay_out,
    step_cache,
)


def buildx_argv(target: Target, options: Options, output: str, work: Path) -> list[str]:
    """BuildKit's command line.

    Its context is a folder, for BuildKit does not apply ``.dockerignore`` to a tar stream.

    Args:
        output: ``cacheonly``, ``load`` (into docker's own images) or ``push``.
        work: has the context, and gets the image's id.
    """
    context = work / "context"
    argv = ["docker", "buildx", "build", "--file", str(context / "Dockerfile"),
            "--progress", "plain", "--provenance=false", "--tag", target.reference]  # fmt: skip
    argv += _common(options)
    if options.platforms:
        argv += ["--platform", ",".join(options.platforms)]
    for name, file in options.secrets.items():
        argv += ["--secret", f"type=file,id={name},src={file}"]
    if options.created is not None:
        argv += ["--build-arg", f"SOURCE_DATE_EPOCH={options.created}"]
    if cache := step_cache(target, options):
        cache += plain(cache, options)
        argv += ["--cache-from", f"type=registry,ref={cache}"]
        if output == "push":
            argv += ["--cache-to", f"type=registry,ref={cache},mode=max"]
    if output == "push":
        # Docker's containerd image store would unpack, which excludes rewritten time stamps.
        image = "type=image,push=true,unpack=false,rewrite-timestamp=true"
        argv += ["--output", f"{image}{plain(target.name, options)}"]
    elif output == "load":
        argv += ["--load", "--iidfile", str(work / "id")]
    else:
        argv += ["--output", "type=cacheonly"]
    return [*argv, str(context)]


def classic_argv(target: Target, options: Options, id_file: Path) -> list[str]:
    """The classic builder's command line.

    Raises:
        ConfigError: for what only BuildKit can do.
    """
    for wanted, what in ((options.secrets, "build secrets"), (options.cache, "a build cache"),
                         (options.platforms[1:], "several platforms")):  # fmt: skip
        if wanted:
            raise ConfigError(
                f"docker's classic builder has no {what}",
                next="install the buildx plug-in (Debian: `apt-get install docker-buildx`), "
                "or use `images: {builder: podman}`",
            )
    # A build that fails would leave its container behind.
    argv = ["docker", "build", "--force-rm", "--file", "Dockerfile", "--tag", target.reference,
            "--iidfile", str(id_file), *_common(options)]  # fmt: skip
    if options.platforms:
        argv += ["--platform", options.platforms[0]]
    return [*argv, "-"]


def _common(options: Options) -> list[str]:
    argv: list[str] = []
    for name, value in options.args.items():
        argv += ["--build-arg", f"{name}={value}"]
    for name, value in options.labels.items():
        argv += ["--label", f"{name}={value}"]
    return argv


class DockerEngine:
    """Implements ``Engine`` with the docker client.

    Args:
        local: keep images in docker's own store even with buildx (nothing will be pushed).
    """

    name = "docker"

    def __init__(self, environ: Mapping[str, str], *, local: bool = False) -> None:
        # Its lines go into a log.
        self._environ = {**environ, "NO_COLOR": "1"}
        self._local = local
        self._has_buildx: bool | None = None

    @property
    def _buildx(self) -> bool:
        if self._has_buildx is None:
            self._has_buildx = ask(["docker", "buildx", "version"], self._environ) is not None
        return self._has_buildx

    def build(self, target: Target, options: Options, work: Path, line: Line) -> str:
        """As the protocol says; with buildx and a push to follow, into its cache only."""
        id_file = work / "id"
        what = f"step {target.step}: docker build"
        if self._buildx:
            lay_out(target, work / "context")
            output = "load" if self._local else "cacheonly"
            argv = buildx_argv(target, options, output, work)
            execute(argv, line, what=what, environ=self._environ)
        else:
            execute(
                classic_argv(target, options, id_file), line, what=what,
                environ=self._environ | {"DOCKER_BUILDKIT": "0"},
                feed=lambda stream: feed_context(target, stream),
            )  # fmt: skip
        if not id_file.exists():
            return ""
        # Docker's containerd image store knows it by another digest than buildx tells.
        return self.find(target) or id_file.read_text(encoding="utf-8").strip()

    def push(self, target: Target, options: Options, work: Path, line: Line) -> None:
        """As the protocol says; buildx takes what was built from its cache."""
        buildx = self._buildx and not self._local
        execute(
            buildx_argv(target, options, "push", work)
            if buildx
            else ["docker", "push", target.reference],
            line, what=f"step {target.step}: docker push", environ=self._environ,
            fails=OutsideError,
        )  # fmt: skip

    def find(self, target: Target) -> str | None:
        """As the protocol says."""
        argv = ["docker", "image", "inspect", "--format", "{{.Id}}", target.reference]
        return ask(argv, self._environ) or None
