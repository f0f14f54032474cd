"""Which engine builds: the one that ctflow.yaml names, or the first that works here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence

from ctflow.adapters.builders.buildctl import BuildctlEngine
from ctflow.adapters.builders.docker import DockerEngine
from ctflow.adapters.builders.engine import Engine, Target, ask
from ctflow.adapters.builders.podman import PodmanEngine
from ctflow.errors import CtflowError, OutsideError

#: engine -> (what asks whether it works, how to get it)
ENGINES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "docker": (
        ("docker", "version", "--format", "{{.Server.Version}}"),
        "`apt-get install docker.io` (or https://docs.docker.com/engine/install), its daemon up",
    ),
    "podman": (("podman", "version"), "`apt-get install podman` (macOS: `brew install podman`)"),
    "buildah": (("buildah", "version"), "`apt-get install buildah`"),
    "buildctl": (
        ("buildctl", "debug", "workers"),
        "`go install github.com/moby/buildkit/cmd/buildctl@latest`, and set BUILDKIT_HOST",
    ),
}


def works(name: str, environ: Mapping[str, str]) -> bool:
    """Whether an engine is here and answers."""
    if shutil.which(name, path=environ.get("PATH")) is None:
        return False
    return ask(ENGINES[name][0], environ) is not None


def find_engine(
    name: str,
    environ: Mapping[str, str],
    targets: Sequence[Target],
    layers: Callable[[], Engine] | None,
    *,
    local: bool,
) -> Engine:
    """The engine of this name; ``auto``: the first that works, else without an engine.

    Args:
        layers: makes the engine that needs none; None where it cannot do what is wanted.
        local: nothing is going to be pushed.

    Raises:
        OutsideError: it is not here; with the command that gets it.
    """
    if name == "layers" and layers is not None:
        return layers()
    for one in ENGINES if name == "auto" else (name,):
        if works(one, environ):
            return _make(one, environ, local=local)
    if name != "auto":
        here = shutil.which(name, path=environ.get("PATH")) is not None
        raise OutsideError(
            f"{name} {'is here but does not answer' if here else 'is not on the path'}",
            next=f"get it with {ENGINES[name][1]}; or use `images: {{builder: auto}}`",
        )
    reason = "they are not for images that stay here"
    if layers is not None:
        from ctflow.adapters.builders.simple import read_simple_target

        engine = layers()
        try:
            for target in targets:
                read_simple_target(target)
        except CtflowError as error:
            reason = error.fact
        else:
            return engine
    raise OutsideError(
        "there is no container engine here (docker, podman, buildah, buildctl)",
        cause=f"layers without one cannot be made: {reason}",
        next=f"get one with {ENGINES['podman'][1]}",
    )


def _make(name: str, environ: Mapping[str, str], *, local: bool) -> Engine:
    if name == "docker":
        return DockerEngine(environ, local=local)
    if name == "buildctl":
        return BuildctlEngine(environ)
    return PodmanEngine(name, environ)
