"""The outside world as Protocols: what a stage may ask for, whoever answers.

``ctflow.wiring`` alone chooses the adapters. Every adapter translates its library's exceptions into
``ctflow.errors`` and says in its own docstring which it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ctflow.model import (
    Artifact,
    Check,
    Commit,
    Deployment,
    Image,
    ModelRef,
    Package,
    PredictionsKey,
    Run,
    Task,
    Value,
)


@dataclass(frozen=True)
class Event:
    """Something that happened during long work, for whoever renders progress.

    ``kind`` ``log`` carries one line of a task's output in ``text``; ``task`` a task's new state;
    ``note`` a line for people.
    """

    kind: Literal["task", "log", "note"]
    name: str = ""
    text: str = ""
    task: Task | None = None


Watch = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A Watch that shows nothing."""


# -- building ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepSource:
    """A step's source: its folder and the includes, as paths of the checkout."""

    name: str
    folder: Path
    include: tuple[Path, ...] = ()


class Builder(Protocol):
    """Turns steps into images, building only content that it has not seen."""

    def build(self, steps: Sequence[StepSource], watch: Watch) -> tuple[Image, ...]:
        """Build what is missing; in the order given. Raises RunFailed or OutsideError."""
        ...


class Registry(Protocol):
    """An OCI registry, seen from the build stage."""

    def digest(self, reference: str) -> str | None:
        """The manifest digest of ``reference``, or None where the registry has no such image."""
        ...


class Compiler(Protocol):
    """Compiles a pipeline definition to a KFP package, in a process of its own."""

    def fingerprint(self) -> str:
        """Names the compiler and its version; a package of another fingerprint is stale."""
        ...

    def compile(
        self,
        root: Path,
        pipeline: str,
        images: Mapping[str, str],
        output: Path,
        watch: Watch = ...,
    ) -> tuple[Path, ...]:
        """Write the package of ``pipeline`` (``file.py:function``), whole or not at all.

        Returns the project's files that the definition read, relative to ``root``, the pipeline's
        own first: what a cached package depends on. Raises ConfigError with the user's own
        line when the definition is wrong, OutsideError when no compiler can be had.
        """
        ...


@dataclass(frozen=True)
class Environment:
    """A Python environment of its own. ``variables`` are what a process in it needs to have set.

    ``variables["PATH"]`` is complete: the environment's ``bin`` before the caller's own path.
    """

    key: str
    path: Path
    python: Path
    variables: Mapping[str, str]


class Environments(Protocol):
    """Makes Python environments from requirements: once per content, for all projects."""

    def ensure(self, requirements: str, watch: Watch, python: str = "") -> Environment:
        """The environment of these requirements (the text of a requirements.txt), made if missing.

        Args:
            python: a version such as ``3.13``; empty: that of this process. One that cannot be had
                is replaced by ours, and said.

        Safe when several processes ask for the same one at once, and after a kill while making it.
        Raises ConfigError when the requirements cannot be had together, OutsideError when the
        package index or the disk fails.
        """
        ...

    def find(self, requirements: str, python: str = "") -> Environment | None:
        """The environment if it is there and whole; never makes one."""
        ...


@dataclass(frozen=True)
class Workspace:
    """Where a step's process runs: its context as the image would hold it, and its environment.

    ``key`` is a digest of both, for the cache of task results; ``requirements`` is the text that
    the environment was made of.
    """

    step: str
    folder: Path
    environment: Environment
    key: str
    requirements: str = ""


class Workspaces(Protocol):
    """Finds what the local builder has built."""

    def open(self, reference: str) -> Workspace | None:
        """The workspace of an image reference, or None where this project has no such step."""
        ...


class ContainerEngine(Protocol):
    """Runs tasks in containers of their images, on this machine."""

    name: str

    def words(self, reference: str, cpu: float, memory: int, watch: Watch) -> tuple[str, ...]:
        """The words before a task's command that run it in a container of the image.

        The container's variables are the process's that begin with ``CTFLOW_CONTAINER_``; it may
        write to the process's working directory, and to what ``CTFLOW_MOUNTS`` names.
        Pulls the image if it is not here.

        Args:
            cpu: limit in CPUs (0: none).
            memory: limit in bytes (0: none).

        Raises OutsideError when the engine is missing or cannot get the image.
        """
        ...

    def guard(self, run: str) -> AbstractContextManager[None]:
        """While a run goes on: at its end, or the end of this process, no container is left."""
        ...


# -- running -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRequest:
    """What to run. ``parameters`` override the package's defaults."""

    project: str
    package: Package
    parameters: Mapping[str, Value] = field(default_factory=dict)
    commit: Commit | None = None
    caching: bool = True


class Runner(Protocol):
    """Runs packages and keeps the record of the runs."""

    def run(self, request: RunRequest, watch: Watch) -> Run:
        """Run to the end. A failed step is a Run with state ``failed``, not an exception.

        Raises ConfigError before the first task when the package, or a parameter, cannot be run.
        """
        ...

    def resume(self, run_id: str, watch: Watch) -> Run:
        """Go on with an interrupted or failed run from what has finished."""
        ...

    def get(self, run_id: str) -> Run:
        """A recorded run, by its id, a unique prefix of it, or ``latest``. Raises StateError."""
        ...

    def list(self, limit: int = 20, state: str | None = None) -> list[Run]:
        """The newest runs first, without their tasks' details where those cost time."""
        ...

    def logs(self, run_id: str, task: str | None = None) -> Iterator[tuple[str, str]]:
        """(task name, line) of the kept logs, task after task."""
        ...

    def score_again(self, run: Run, task: str, artifact: str, content: Path, watch: Watch) -> Task:
        """Run one task of a finished run again with another input.

        Args:
            run: a succeeded run.
            task: the task to run again, such as ``evaluate``.
            artifact: ``producer.output`` whose place ``content`` takes, such as ``train.model``.
            content: the file or folder to read instead (the champion).

        Returns the finished task with its output artifacts; ``run`` itself stays as it is.
        Raises RunFailed when the task fails on it, StateError when it reads no such artifact.
        """
        ...


# -- git and forges ----------------------------------------------------------------------------


@dataclass(frozen=True)
class LogEntry:
    """A commit, as ``git log`` tells it. ``at`` is the committer's time."""

    sha: str
    parents: tuple[str, ...]
    author: str
    at: float
    subject: str
    body: str


@dataclass(frozen=True)
class TreeFile:
    """A file as git keeps it: its mode (``100644``, ``100755``, ``120000``) and its blob's id."""

    mode: str
    blob: str


class Scm(Protocol):
    """The project's git repository. Nothing here touches the user's index or uncommitted files."""

    def head(self) -> Commit:
        """The checked-out commit; raises StateError in a repository without commits."""
        ...

    def identity(self) -> str:
        """``Name <mail>`` of whoever commits here; raises StateError when git does not know."""
        ...

    def fetch(self) -> None:
        """Bring the remote's branches in, where there is a remote. Raises OutsideError."""
        ...

    def tip(self, branch: str) -> str | None:
        """The newest commit of a branch: the remote's where there is a remote, else the local."""
        ...

    def branches(self, prefix: str) -> dict[str, str]:
        """Branches under ``prefix`` and their tips, seen as ``tip`` sees them."""
        ...

    def read(self, rev: str, path: str) -> bytes | None:
        """A file's bytes at a commit, or None."""
        ...

    def files(self, rev: str, folder: str) -> dict[str, TreeFile]:
        """Paths below a folder at a commit, with what git keeps of each."""
        ...

    def changes(self, old: str, new: str) -> dict[str, TreeFile | None]:
        """What differs between two commits, by paths from the repository's top; None: removed."""
        ...

    def written_by(
        self, rev: str, path: str, file: TreeFile, since: str | None = None
    ) -> str | None:
        """The newest first-parent commit of ``rev`` that gave ``path`` this content, or None.

        Args:
            since: only commits that this one does not hold.
        """
        ...

    def check_push(self, branch: str) -> None:
        """Raise OutsideError where the remote does not take a push to the branch from here.

        What a hook or a protection rule of the remote says is only known when really pushing.
        """
        ...

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        ...

    def is_published(self, commit: str) -> bool:
        """Whether a branch of the remote holds the commit; True where there is no remote.

        Branches below ``ctflow/`` do not count: they go when their proposal is answered.
        """
        ...

    def export(self, rev: str, folder: str, target: Path) -> None:
        """Write a folder as it is at ``rev`` to ``target`` (made; must not exist)."""
        ...

    def commit_files(
        self,
        parent: str,
        changes: Mapping[str, bytes | TreeFile | None],
        message: str,
        at: float | None = None,
    ) -> str:
        """A new commit on ``parent`` with files written (None: removed); no branch moves.

        A ``TreeFile`` is a file that the repository holds already. With ``at`` the dates are
        fixed, so that the same call gives the same commit.
        """
        ...

    def merge_commit(self, into: str, other: str, message: str) -> str:
        """A merge commit of two commits; no branch moves. Raises StateError on a conflict."""
        ...

    def move(self, branch: str, new: str | None, old: str | None, *, force: bool = False) -> bool:
        """Move a branch from ``old`` to ``new`` (None: it does not exist), there and here.

        Where there is a remote the remote's branch moves, and the local one follows if it can.
        False when the branch was not at ``old`` any more: somebody else was first. Raises
        OutsideError when the remote refuses or cannot be reached.
        """
        ...

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether ``newer`` holds ``older``."""
        ...

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor."""
        ...

    def log(self, rev: str, path: str, limit: int = 0) -> list[LogEntry]:
        """The first-parent history of a path, newest first."""
        ...

    def diff(self, old: str, new: str, path: str) -> str:
        """A unified diff of a path between two commits."""
        ...


class Forge(Protocol):
    """Where promotions are reviewed."""

    def publish(self, branch: str, title: str, body: str) -> str | None:
        """Open the branch's pull request, or update it; its URL (None: there is no forge)."""
        ...

    def close(self, branch: str, comment: str) -> None:
        """Close the branch's pull request unmerged."""
        ...


# -- models and serving ------------------------------------------------------------------------


class ModelStore(Protocol):
    """Keeps models and their predictions under their content digest."""

    def put(self, artifact: Artifact, format: str) -> ModelRef:
        """Keep a model; the same content twice is kept once. Raises StateError if it changed."""
        ...

    def has(self, digest: str) -> bool:
        """Whether it holds the model; its content is not looked at."""
        ...

    def fetch(self, digest: str) -> Path:
        """A local path of the model's content, checked against its digest. Raises OutsideError."""
        ...

    def put_predictions(self, key: PredictionsKey, content: Path) -> tuple[str, str]:
        """Keep a model's predictions, in the place of what was kept before; (URI, digest)."""
        ...

    def fetch_predictions(self, key: PredictionsKey) -> tuple[Path, str] | None:
        """A local path of a model's predictions and their digest, checked against it; or None.

        Raises OutsideError when they are damaged.
        """
        ...


class Looks(Protocol):
    """Remembers which models were judged here, whatever became of them."""

    def models(self, environment: str) -> Mapping[str, tuple[str, ...]]:
        """The digests of models, in the order they were first judged in, by evaluation set."""
        ...

    def add(self, environment: str, evaluation_set: str, model: str) -> None:
        """Remember a model; once. It is on the disk when this returns."""
        ...


@dataclass(frozen=True)
class ServeRequest:
    """What an environment shall serve.

    Attributes:
        model: the model; ``path`` is its content on this machine.
        code: a folder with predictor.py, requirements.txt and golden.json.
        commit: the commit of the default branch that says so.
        canary: traffic percentages to go through, each held for ``pause`` seconds; empty: at once.
        port: the port on 127.0.0.1, or None for any free one (kept from then on).
    """

    project: str
    environment: str
    model: ModelRef
    path: Path
    code: Path
    predictor: str
    golden: str
    commit: str
    canary: tuple[int, ...] = ()
    pause: float = 0.0
    port: int | None = None


#: Told the times so far, in milliseconds, and the seconds they took: whether to time another.
WantsMore = Callable[[Sequence[float], float], bool]


@dataclass(frozen=True)
class GoldenRequest:
    """A model to be tried once with its serving code, before anybody is served by it.

    Attributes:
        project: the name that the model is served under.
        path: the model's content on this machine.
        code: a folder with the predictor, requirements.txt and the golden requests.
        more: what says, given the times so far, whether another answer is to be timed, once all are
            right; None: nothing is timed.
    """

    project: str
    path: Path
    code: Path
    predictor: str
    golden: str
    more: WantsMore | None = None


@dataclass(frozen=True)
class Timed:
    """How long a model's answers took.

    Attributes:
        times: in milliseconds, in the order of the requests.
        seconds: what they took in all.
        fault: why there are no more of them, where a request failed.
    """

    times: tuple[float, ...] = ()
    seconds: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class Trial:
    """What trying a model told; ``timed`` is None where nothing was timed."""

    checks: tuple[Check, ...]
    timed: Timed | None = None


#: ``Server.try_model``, for who needs nothing else of a serving target.
GoldenCheck = Callable[[GoldenRequest, Watch], Trial]


class Server(Protocol):
    """A serving target."""

    def deploy(self, request: ServeRequest, watch: Watch) -> Deployment:
        """Serve it: start, check with the golden requests, then switch without a dropped request.

        The result's state is ``ready``, or ``failed`` with the last good model still serving and
        the reason in ``message``. Asking for what already serves changes nothing.
        """
        ...

    def status(self, environment: str) -> Deployment:
        """What really runs there now."""
        ...

    def stop(self, environment: str) -> Deployment:
        """Serve nothing there."""
        ...

    def try_model(self, request: GoldenRequest, watch: Watch) -> Trial:
        """Start a model once, apart from every environment, and send the golden requests.

        Where all answers are right and the request asks for it, time them too.

        Raises RunFailed when it does not start, ConfigError when the golden requests are wrong.
        """
        ...

    def check(self, environment: str) -> tuple[Check, ...]:
        """Send the golden requests to what serves now."""
        ...


def state_places(state: Path) -> Mapping[str, Path]:
    """Where in the local state each part keeps its files: the one list of those names."""
    names = ("runs", "packages", "steps", "models", "serving", "trigger", "tmp", "images", "looks")
    return {name: state / name for name in names} | {"record": state / "record.db"}


Json = Mapping[str, Any]
