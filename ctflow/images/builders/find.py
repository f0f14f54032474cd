"""Which engine builds: the one that ctflow.yaml names, or the first that works here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence

from ctflow.errors import CtflowError, OutsideError
from ctflow.images.builders.buildctl import BuildctlEngine
from ctflow.images.builders.commands import ask, complaint
from ctflow.images.builders.docker import DockerEngine
from ctflow.images.builders.engine import Engine, Target
from ctflow.images.builders.podman import PodmanEngine

#: engine -> (what asks whether it works, how to get it, how to make it answer)
ENGINES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "docker": (
        ("docker", "version", "--format", "{{.Server.Version}}"),
        "`apt-get install docker.io` (or https://docs.docker.com/engine/install)",
        "start its daemon with `systemctl start docker`, or set DOCKER_HOST",
    ),
    "podman": (
        ("podman", "version"),
        "`apt-get install podman` (macOS: `brew install podman`)",
        "see what `podman info` says",
    ),
    "buildah": (
        ("buildah", "version"),
        "`apt-get install buildah`",
        "see what `buildah info` says",
    ),
    "buildctl": (
        ("buildctl", "debug", "workers"),
        # `go install ...@latest` refuses the exclude directives of its go.mod.
        (
            "`git clone --depth 1 https://github.com/moby/buildkit && cd buildkit && "
            "go install ./cmd/buildctl` (macOS: `brew install buildkit`)"
        ),
        "set BUILDKIT_HOST to where buildkitd listens (tcp://..., unix://...)",
    ),
}


def works(name: str, environ: Mapping[str, str]) -> bool:
    """Whether an engine is here and answers."""
    if shutil.which(name, path=environ.get("PATH", os.defpath)) is None:
        return False
    return ask(ENGINES[name][0], environ) is not None


def no_engine(name: str, environ: Mapping[str, str], otherwise: str) -> OutsideError:
    """What to say where an engine does not work: how to get it, or how to make it answer."""
    probe, get, wake = ENGINES[name]
    if shutil.which(name, path=environ.get("PATH", os.defpath)) is None:
        return OutsideError(
            f"{name} is not on the PATH", next=f"install it with {get}; or {otherwise}"
        )
    return OutsideError(
        f"{name} is installed, but does not answer",
        cause=complaint(probe, environ),
        next=f"{wake}; or {otherwise}",
    )


def find_engine(
    name: str,
    environ: Mapping[str, str],
    targets: Sequence[Target],
    layers: Callable[[], Engine] | None,
    *,
    local: bool,
    push: bool = True,
) -> Engine:
    """The engine of this name; ``auto``: the first that works, else without an engine.

    Args:
        layers: makes the engine that needs none; None where it cannot do what is wanted.
        local: nothing is going to be pushed, and the images are to stay here.
        push: something is going to be pushed; else nothing goes into a build cache either.

    Raises:
        OutsideError: it is not here; with the command that gets it.
    """
    if name == "layers" and layers is not None:
        return layers()
    for one in ENGINES if name == "auto" else (name,):
        if works(one, environ):
            return _make(one, environ, local=local, push=push)
    if name != "auto":
        raise no_engine(name, environ, "use `images: {builder: auto}`")
    reason = "it cannot leave images on this machine"
    if layers is not None:
        from ctflow.images.builders.simple import read_simple_target

        engine = layers()
        try:
            for target in targets:
                read_simple_target(target)
        except CtflowError as error:
            reason = error.fact
        else:
            return engine
    raise OutsideError(
        "there is no container engine on this machine (docker, podman, buildah, buildctl)",
        cause=f"and `builder: layers` cannot build them: {reason}",
        next=f"install one with {ENGINES['podman'][1]}",
    )


def _make(name: str, environ: Mapping[str, str], *, local: bool, push: bool) -> Engine:
    if name == "docker":
        return DockerEngine(environ, local=local)
    if name == "buildctl":
        return BuildctlEngine(environ)
    return PodmanEngine(name, environ, push=push)
