"""Runs a task in a container of its image, with docker or podman, on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.images.builders.commands import ask, execute
from ctflow.images.builders.find import no_engine, works
from ctflow.ports import Event, Watch
from ctflow.rest.loopback import is_loopback
from ctflow.runners.containers.reap import ENDED

_LAUNCH = Path(__file__).with_name("launch.py")
_REAP = Path(__file__).with_name("reap.py")


class ContainerPrograms:
    """Implements ``ContainerEngine`` with the ``docker`` or ``podman`` program.

    A container sees the project's local state read-only, and the task's own folder, which it may
    write to, both under their paths here; it runs as the caller, so that what it writes is theirs.

    Args:
        program: ``docker`` or ``podman``.
        see: the project's local state, and where its models are.
        network: the engine's network for the containers; None: its default.
        insecure: pull in plain HTTP from hosts that are not this machine.
    """

    def __init__(
        self,
        program: str,
        see: Sequence[Path],
        environ: Mapping[str, str],
        *,
        network: str | None = None,
        insecure: bool = False,
    ) -> None:
        self.name = program
        self._see = tuple(see)
        self._environ = environ
        self._network = network
        self._insecure = insecure
        self._found: dict[str, str] = {}
        self._checked = False

    def words(self, reference: str, cpu: float, memory: int, watch: Watch) -> tuple[str, ...]:
        """As the port says."""
        image = self._image(reference, watch)
        words = [sys.executable, "-I", "-S", str(_LAUNCH), self.name]
        for folder in self._see:
            if folder.is_dir():
                words += ["--see", str(folder)]
        if self._network is not None:
            words += ["--network", self._network]
        if cpu:
            words += ["--cpus", f"{cpu:g}"]
        if memory:
            words += ["--memory", str(memory)]
        return (*words, "--", image)

    @contextmanager
    def guard(self, run: str) -> Iterator[None]:
        """As the port says: a process of its own, which sees our end by a closing pipe."""
        reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_REAP), self.name, run],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/", env=dict(self._environ),
        )  # fmt: skip
        assert reaper.stdin is not None  # noqa: S101 (it is a pipe)
        try:
            yield
            with suppress(BrokenPipeError):
                reaper.stdin.write(ENDED)
                reaper.stdin.flush()
        finally:
            reaper.stdin.close()
            reaper.wait()

    def _image(self, reference: str, watch: Watch) -> str:
        """What the engine calls the image, pulled if it is not here."""
        if reference in self._found:
            return self._found[reference]
        self._check()
        digest = reference.partition("@")[2]
        inspect = [self.name, "image", "inspect", "--format", "{{.Id}}"]
        # What was built and not pushed is named by the engine's own id.
        for name in (digest, reference):
            if name and ask([*inspect, name], self._environ):
                self._found[reference] = name
                return name
        watch(Event("note", "pull", f"pulling {reference} with {self.name}"))
        argv = [self.name, "pull", "--quiet", reference]
        plain = self._insecure or is_loopback(reference.partition("/")[0])
        if plain and self.name == "podman":
            argv.insert(2, "--tls-verify=false")
        execute(
            argv, lambda line: None, what=f"pulling {reference}", environ=self._environ,
            fails=OutsideError,
        )  # fmt: skip
        self._found[reference] = reference
        return reference

    def _check(self) -> None:
        if self._checked:
            return
        if not works(self.name, self._environ):
            raise no_engine(self.name, self._environ, "run without --engine")
        self._checked = True
