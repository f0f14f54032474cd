"""The programs on this machine: git, uv, a container engine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence

from ctflow.errors import OutsideError
from ctflow.images.builders.commands import ask
from ctflow.images.builders.find import ENGINES, no_engine
from ctflow.model.doctor import Finding, Skipped
from ctflow.steps.uv_tool import find_uv

_VERSION = re.compile(r"\d+(\.\d+)+[\w.+-]*")


class Git:
    """git itself."""

    system, needed = "git", True

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def look(self) -> Sequence[Finding] | Skipped:
        """Whether it is here."""
        said = ask(("git", "--version"), self._environ)
        if said is None:
            raise OutsideError("git is not installed", next="install git")
        return [Finding(self.system, "ok", "", version=_version(said))]


class Uv:
    """uv, which makes the Python environments of local runs and of the compiler."""

    system, needed = "uv", True

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def look(self) -> Sequence[Finding] | Skipped:
        """Whether it is here."""
        said = ask((find_uv(self._environ), "--version"), self._environ)
        if said is None:
            raise OutsideError("uv does not answer", next="see what `uv --version` says")
        return [Finding(self.system, "ok", "", version=_version(said))]


class Engine:
    """What builds images.

    Args:
        builder: as ctflow.yaml names it.
        images: whether images are built at all.
    """

    system = "engine"

    def __init__(self, builder: str, images: bool, environ: Mapping[str, str]) -> None:
        self.needed = images and builder in ENGINES
        self._builder, self._images, self._environ = builder, images, environ

    def look(self) -> Sequence[Finding] | Skipped:
        """Which of them answers."""
        if not self._images:
            return Skipped("steps run as processes, no image is built")
        if self._builder in ("layers", "local"):
            return Skipped(f"images.builder is {self._builder}, which needs none")
        names = [self._builder] if self._builder in ENGINES else list(ENGINES)
        for name in names:
            said = ask(ENGINES[name][0], self._environ)
            if said is not None:
                version = said if name == "docker" else _version(said)
                return [Finding(self.system, "ok", "", version=version, mode=name)]
        if self._builder in ENGINES:
            raise no_engine(self._builder, self._environ, "use `images: {builder: auto}`")
        installed = [name for name in names if shutil.which(name, path=self._environ.get("PATH"))]
        text = f"{' and '.join(installed)} do not answer" if installed else "none is installed"
        return [
            Finding(
                self.system,
                "warning",
                f"{text}: only simple Dockerfiles can be built",
                next=f"install one with {ENGINES['podman'][1]}",
            )
        ]


def _version(said: str) -> str:
    match = _VERSION.search(said)
    return match[0] if match else ""
