"""What building, compiling and running leave: images, a package, a run with its tasks.

Times are seconds since the epoch (UTC, float); digests are ``sha256:`` and 64 hexadecimal digits.
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any, ClassVar, Literal

from ctflow.lib.digests import digest_bytes
from ctflow.lib.quick import dataclass

Value = Any  # a KFP parameter value: str, int, float, bool, None, list or dict of those
TaskState = Literal["pending", "running", "succeeded", "cached", "skipped", "failed", "canceled"]
RunState = Literal["pending", "running", "succeeded", "failed", "canceled"]


@dataclass(frozen=True)
class Commit:
    """What a run was made from. ``dirty`` names the uncommitted files (none: a clean tree)."""

    sha: str
    branch: str | None = None
    dirty: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """A step's image. ``reference`` is ``name@sha256:...``; ``digest`` is that of its content."""

    step: str
    reference: str
    digest: str
    built: bool = False


@dataclass(frozen=True)
class RegistryImage:
    """An image in the registry. ``when`` is its creation, as ISO 8601, ``""`` where it is unknown.

    ``used``: the checkout, a release or a recorded run names it.
    """

    step: str
    name: str
    tag: str
    digest: str
    when: str = ""
    used: bool = False


@dataclass(frozen=True)
class Images:
    """What the build stage leaves."""

    kind: ClassVar[str] = "images"
    project: str
    images: tuple[Image, ...]
    commit: Commit | None = None
    #: The predictor's, where it was built too.
    predictor: Image | None = None


@dataclass(frozen=True)
class Package:
    """What the compile stage leaves: one compiled KFP IR YAML file, and the images that it names.

    ``path`` is where the file is here; ``content`` carries it to another machine (None in memory).
    """

    kind: ClassVar[str] = "package"
    project: str
    pipeline: str
    digest: str
    path: str
    images: tuple[Image, ...]
    commit: Commit | None = None
    built: bool = False
    content: str | None = None


@dataclass(frozen=True)
class Upload:
    """What the upload stage leaves: a pipeline version on a server.

    ``uploaded``: whether it was made now. ``package`` is the digest of what the server has.
    """

    kind: ClassVar[str] = "upload"
    project: str
    pipeline: str
    pipeline_id: str
    version: str
    version_id: str
    package: str
    uploaded: bool = False
    url: str = ""
    commit: Commit | None = None


@dataclass(frozen=True)
class Artifact:
    """An output artifact. ``type`` is KFP's schema title, such as ``system.Model``.

    ``digest`` is that of the file, or of the folder's sorted (path, file digest) list; ``size`` is
    in bytes. ``metadata`` holds scalar metrics for ``system.Metrics``.
    """

    name: str
    type: str
    uri: str
    digest: str = ""
    size: int = 0
    metadata: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task of a run. ``name`` is its path in the pipeline, such as ``loop-1.0.train``."""

    name: str
    state: TaskState
    step: str | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    attempts: int = 0
    error: str = ""
    inputs: dict[str, Value] = field(default_factory=dict)
    input_artifacts: dict[str, tuple[Artifact, ...]] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    artifacts: dict[str, tuple[Artifact, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    #: Why the cache had no answer for it; empty where it did, or where caching is off.
    cache_miss: str = ""
    log: str = ""
    #: The digests of what its results were made of: the step's content, the command, each input.
    made_of: dict[str, str] = field(default_factory=dict)
    #: What a Python component installs, as its component says; a step's are in its folder.
    packages: tuple[str, ...] = ()
    #: Whether it stands for other tasks: a condition, a loop, a nested pipeline.
    group: bool = False


@dataclass(frozen=True)
class Run:
    """What the run stage leaves. ``metrics``: the scalars of all its Metrics artifacts."""

    kind: ClassVar[str] = "run"
    id: str
    project: str
    pipeline: str
    package: str
    state: RunState
    created: float
    ended: float | None = None
    commit: Commit | None = None
    parameters: dict[str, Value] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    tasks: tuple[Task, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    #: Where a person sees it, and the pipeline version that it is of; empty on this machine.
    url: str = ""
    version: str = ""
    #: Its name where runs have one besides their id.
    name: str = ""

    def task(self, name: str) -> Task | None:
        """The task of that name, or None."""
        return next((task for task in self.tasks if task.name == name), None)

    def failures(self) -> tuple[Task, ...]:
        """The tasks that failed themselves, not only because of others inside them."""
        failed = (task for task in self.tasks if task.state == "failed")
        return tuple(task for task in failed if task.error or not task.group)

    def artifact(self, where: str) -> Artifact | None:
        """The artifact at ``task.output``, as ``ctflow.yaml`` names it, or None."""
        task_name, _, output = where.rpartition(".")
        task = self.task(task_name)
        found = task.artifacts.get(output, ()) if task else ()
        return found[0] if len(found) == 1 else None


def making_digest(run: Run, output: str, model: Artifact) -> str:
    """The digest of what the predictions at ``task.output`` were made of, but for the model.

    Two models' predictions can be compared only where this is the same: the same code scored both,
    with the same other inputs and parameters. Empty where the run does not say.
    """
    task = run.task(output.rpartition(".")[0])
    if task is None or not task.made_of:
        return ""
    scored = {
        f"artifact {name}"
        for name, some in task.input_artifacts.items()
        if any(one.uri == model.uri for one in some)
    }
    rows = sorted((name, digest) for name, digest in task.made_of.items() if name not in scored)
    return digest_bytes(json.dumps(rows).encode())
