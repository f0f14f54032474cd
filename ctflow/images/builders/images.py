"""Builds real images, and only those that the registry does not have.

An image's tag names its content (``engine.content_tag``): the step's context, the digests of its
bases, the build arguments and the platforms. Layout below ``<state>/images``::

    stat.json              file digests by (path, size, times, inode)
    bases.json             the bases' digests as last seen
    logs/<step>-<tag>.log  each build's output
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ctflow.errors import ConfigError, CtflowError, StateError
from ctflow.images.builders.bases import Bases
from ctflow.images.builders.claims import Claims, owner_of
from ctflow.images.builders.commands import stopped
from ctflow.images.builders.dockerfile import bases as bases_of
from ctflow.images.builders.engine import Engine, Options, Target
from ctflow.images.builders.order import in_order
from ctflow.images.registry import Broken, OciRegistry
from ctflow.lib.locks import holding
from ctflow.lib.secrets import KNOWN, LEAST
from ctflow.model import Image
from ctflow.ports import Event, StepSource, Watch, ignore
from ctflow.scm.git_folders import files_of_a_clone
from ctflow.steps.context import DOCKERFILE, content_digest, context_files
from ctflow.steps.snapshot import StatCache

if TYPE_CHECKING:
    from ctflow.config.project import ImagesConfig

#: Requests to the registry at the same time.
_ASKING = 16


@dataclass(frozen=True)
class Provenance:
    """What the images' annotations say of the commit: OCI's source, revision, created."""

    source: str = ""
    revision: str = ""
    created: int | None = None

    def labels(self) -> dict[str, str]:
        """The annotations, by OCI's keys."""
        from datetime import datetime, timezone

        found = {"source": self.source, "revision": self.revision}
        if self.created is not None:
            moment = datetime.fromtimestamp(self.created, timezone.utc)
            found["created"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {f"org.opencontainers.image.{key}": value for key, value in found.items() if value}


@dataclass(frozen=True)
class Mode:
    """What becomes of a built image: ``push`` it, ``keep`` it in the engine's store, or neither."""

    push: bool = True
    keep: bool = True


class ImageBuilder:
    """Implements ``Builder`` with real images.

    Args:
        folder: the state's place for images.
        prefix: registry and path, or ``ctflow.local/<project>`` where there is none.
        locks: a folder of the user's, so that two processes do not build the same image.
        engine: gives the engine; called only when something is to be built.
        provenance: tells of the commit; called only then too.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        locks: Path,
        config: ImagesConfig,
        registry: OciRegistry,
        bases: Bases,
        engine: Callable[[Sequence[Target]], Engine],
        provenance: Callable[[], Provenance],
        environ: Mapping[str, str],
        mode: Mode,
    ) -> None:
        self._folder = folder
        self._prefix = prefix.rstrip("/")
        self._locks = locks
        self._config = config
        self._registry = registry
        self._bases = bases
        self._engine = engine
        self._provenance = provenance
        self._environ = environ
        self._mode = mode
        self._remote = config.registry is not None
        self._stop = threading.Event()

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        """As the port says. Raises ConfigError, StateError, RunFailed, OutsideError."""
        targets = self.targets(steps, watch)
        digests = self.existing(targets)
        missing = [
            target for target, digest in zip(targets, digests, strict=True) if digest is None
        ]
        made = self._make(missing, watch) if missing else {}
        return tuple(
            Image(target.step, f"{target.name}@{digest or made[target.step][0]}", target.content,
                  built=digest is None and made[target.step][1])
            for target, digest in zip(targets, digests, strict=True)
        )  # fmt: skip

    def plan(self, steps: Sequence[StepSource]) -> tuple[Image, ...]:
        """As the port says: of an image that would be built, the digest is its content's."""
        targets = self.targets(steps, ignore)
        return tuple(
            Image(one.step, f"{one.name}@{digest or one.content}", one.content, digest is None)
            for one, digest in zip(targets, self.existing(targets), strict=True)
        )

    def targets(self, steps: Sequence[StepSource], watch: Watch) -> list[Target]:
        """What the images of these steps are called, from what goes into them."""
        cache = StatCache(self._folder / "stat.json")
        found = [self._target(step, cache, watch) for step in steps]
        self._folder.mkdir(parents=True, exist_ok=True)
        cache.save()
        self._bases.save()
        return found

    def existing(self, targets: Sequence[Target]) -> list[str | None]:
        """The manifest digests that the registry has for these."""
        if not self._remote:
            return [None] * len(targets)
        if len(targets) == 1:
            return [self._lookup(targets[0])]
        with ThreadPoolExecutor(min(_ASKING, max(1, len(targets)))) as pool:
            return list(pool.map(self._lookup, targets))

    def _lookup(self, target: Target) -> str | None:
        try:
            return self._registry.digest(target.reference)
        except CtflowError as error:
            if self._mode.push and isinstance(error, Broken):
                # A damaged tag, if the registry is well otherwise: pushing mends it.
                self._registry.check_push(target.name)
            elif self._mode.push or self._mode.keep:
                raise
            # Without access a pull request's check can still build.
            return None

    def _target(self, step: StepSource, cache: StatCache, watch: Watch) -> Target:
        base = self._bases.pin(self._config.base, watch)
        args = {**self._config.args, "BASE": base}
        text = _dockerfile(step)
        try:
            pinned = sorted(self._bases.pin(one, watch) for one in bases_of(text, args))
        except ConfigError as error:
            raise ConfigError(f"step {step.name}: {error.fact}", next=error.next) from None
        parts = [*pinned, *(f"{k}={v}" for k, v in sorted(self._config.args.items())),
                 *sorted(self._config.platforms)]  # fmt: skip
        try:
            files = context_files(step, files_of_a_clone)
            content = content_digest(files, "\0".join(parts), cache.digest)
        except FileNotFoundError as error:
            raise StateError(
                f"step {step.name}: {error.filename} was removed while it was read",
                next="run the same command again",
            ) from None
        return Target(step.name, files, content, f"{self._prefix}/{step.name}", base)

    def _make(self, missing: Sequence[Target], watch: Watch) -> dict[str, tuple[str, bool]]:
        """(digest, whether it was built here) by step."""
        engine = self._engine(missing)
        provenance = self._provenance()
        with self._options(provenance) as options:
            pool = ThreadPoolExecutor(self._config.parallel)
            try:
                done = in_order(
                    missing,
                    lambda *one: pool.submit(self._one, engine, options, watch, *one),
                )
            except BaseException as error:
                # What is at work may end, unless the process must stop; what waits is not begun.
                self._stop.set()
                with contextlib.nullcontext() if isinstance(error, Exception) else stopped():
                    pool.shutdown(wait=True, cancel_futures=True)
                raise
            pool.shutdown()
        return done

    def _one(
        self, engine: Engine, options: Options, watch: Watch, target: Target, patient: bool
    ) -> tuple[str, bool]:
        """(digest, whether it was built here). Raises Busy, if not ``patient``."""
        with holding(self._locks / f"{target.tag}.lock"):
            # Another process may have made it while this one waited.
            if self._remote and (digest := self._lookup(target)) is not None:
                return digest, False
            if self._mode.push:
                return self._shared(engine, target, options, watch, patient)
            if self._mode.keep and (found := engine.find(target)):
                return found, False
            with self._work(target) as work, self._log(target, watch) as line:
                self._say(engine, target, watch)
                return engine.build(target, options, work, line) or target.content, True

    def _shared(
        self, engine: Engine, target: Target, options: Options, watch: Watch, patient: bool
    ) -> tuple[str, bool]:
        """An image for all machines: built and pushed by one of those that want it."""

        def waiting() -> None:
            text = f"another machine is building step {target.step}: waiting for its image"
            watch(Event("note", target.step, text))

        claims = Claims(self._registry, owner_of(self._locks), self._stop)
        look = partial(self._lookup, target)
        with claims.held(target.name, target.content, look, waiting if patient else None) as found:
            if found is not None:
                return found, False
            self._say(engine, target, watch)
            with self._work(target) as work, self._log(target, watch) as line:
                engine.build(target, options, work, line)
                # A machine that our claim did not stop may have pushed: the first is the image.
                if (digest := self._lookup(target)) is not None:
                    return digest, False
                self._push(engine, target, options, work, line)
            digest = self._registry.digest(target.reference)
        if digest is None:
            raise StateError(
                f"step {target.step}: {target.reference} was pushed, but is not in the registry",
                cause="something removes images from the registry",
                next="see the registry's own log",
            )
        return digest, True

    def _say(self, engine: Engine, target: Target, watch: Watch) -> None:
        watch(Event("note", target.step, f"building step {target.step} with {engine.name}"))

    def _push(
        self,
        engine: Engine,
        target: Target,
        options: Options,
        work: Path,
        line: Callable[[str], None],
    ) -> None:
        try:
            engine.push(target, options, work, line)
        except CtflowError as error:
            if error.details:
                # A program tells a bare status; asked by us, the registry may say what is wrong.
                self._registry.check_push(target.name)
            raise

    @contextlib.contextmanager
    def _options(self, provenance: Provenance) -> Iterator[Options]:
        """The options, with the secrets in files that only we can read, for as long as needed."""
        config = self._config
        folder = Path(tempfile.mkdtemp(prefix="ctflow-secrets-"))
        try:
            secrets = {}
            for name in config.secrets:
                if name not in self._environ:
                    raise ConfigError(
                        f"the build secret {name} is not set",
                        cause="images.secrets names environment variables",
                        next=f"set the variable {name}",
                    )
                if len(self._environ[name].strip()) < LEAST:
                    raise ConfigError(
                        f"the build secret {name} has fewer than {LEAST} characters",
                        cause="so short a value cannot be masked in logs",
                        next=f"set {name} to the real secret, or use images.args",
                    )
                KNOWN.add(self._environ[name])
                secrets[name] = folder / name
                secrets[name].write_text(self._environ[name], encoding="utf-8")
                secrets[name].chmod(0o600)
            base = self._bases.pin(config.base, lambda event: None)
            yield Options(
                {**config.args, "BASE": base}, config.platforms, secrets, provenance.labels(),
                config.cache, config.insecure, provenance.created,
            )  # fmt: skip
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _work(self, target: Target) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=f"build-{target.step}-", dir=self._folder) as work:
            yield Path(work)

    @contextlib.contextmanager
    def _log(self, target: Target, watch: Watch) -> Iterator[Callable[[str], None]]:
        folder = self._folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        lock = threading.Lock()
        with (folder / f"{target.step}-{target.tag}.log").open("w", encoding="utf-8") as file:

            def line(text: str) -> None:
                text = KNOWN.mask(text)
                with lock:
                    _write(file, text)
                watch(Event("log", target.step, text))

            yield line


def _write(file: TextIO, text: str) -> None:
    file.write(text + "\n")
    file.flush()


def _dockerfile(step: StepSource) -> str:
    try:
        return (step.folder / DOCKERFILE).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"step {step.name}: cannot read its {DOCKERFILE}: {error}") from None
