"""The nouns of ctflow as frozen dataclasses, and their JSON form.

Data flows one way: project -> images -> package -> run -> verdict -> promotion -> deployment. Each
stage's result is one of the documents below (a class with ``kind``); ``dump`` writes it as JSON and
``load`` reads it back, so that a stage may end on one machine and the next go on from the file.
Times are seconds since the epoch (UTC, float); digests are ``sha256:`` and 64 hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from ctflow.digests import digest_bytes
from ctflow.documents import upgraded, version_of
from ctflow.errors import UsageError

Value = Any  # a KFP parameter value: str, int, float, bool, None, list or dict of those
TaskState = Literal["pending", "running", "succeeded", "cached", "skipped", "failed", "canceled"]
RunState = Literal["pending", "running", "succeeded", "failed", "canceled"]
Decision = Literal["promote", "hold", "reject"]
PromotionState = Literal["open", "merged", "rejected", "none"]
DeploymentState = Literal["ready", "absent", "failed", "stopped", "outdated"]


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
class Images:
    """What the build stage leaves."""

    kind: ClassVar[str] = "images"
    project: str
    images: tuple[Image, ...]
    commit: Commit | None = None


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


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same examples. ``gain`` is positive when better.

    ``groups`` is the number of groups of examples, where the rule has ``group``; ``differ`` that of
    the examples on which the two differ in what the metric sees.
    """

    metric: str
    challenger: float
    champion: float
    gain: float
    low: float
    high: float
    confidence: float
    method: str
    examples: int
    p_value: float | None = None
    groups: int | None = None
    differ: int | None = None


@dataclass(frozen=True)
class Estimate:
    """One model's metric, and the interval that says what it may be on all examples there are.

    ``groups`` as in ``Comparison``.
    """

    metric: str
    value: float
    low: float
    high: float
    confidence: float
    method: str
    examples: int
    groups: int | None = None


@dataclass(frozen=True)
class Reason:
    """One rule's answer. ``text`` is plain text for people, with the figures in it.

    A rule over the champion has a ``comparison``; a bound has an ``estimate``, where predictions
    give one.
    """

    rule: str
    decision: Decision
    text: str
    slice: str = ""
    comparison: Comparison | None = None
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Override:
    """A person let it through against the rules."""

    reason: str
    by: str


#: The rule of the only reason of a verdict on what serves already.
SAME = "champion"


@dataclass(frozen=True)
class Verdict:
    """What the gate leaves."""

    kind: ClassVar[str] = "verdict"
    project: str
    environment: str
    run: str
    decision: Decision
    reasons: tuple[Reason, ...]
    champion: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    evaluation_set: str = ""
    examples: int = 0
    #: The evaluation sets by the ``task.output`` of the predictions that answer them.
    evaluated: dict[str, str] = field(default_factory=dict)
    #: The models that each evaluation set has compared with a champion, this one the last.
    looks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: The models that the rules' margins will count from once this one serves, by rule.
    anchors: dict[str, str] = field(default_factory=dict)
    override: Override | None = None
    notes: tuple[str, ...] = ()
    #: The digest of the rules that judged (``ctflow.policy``), of the serving code whose golden
    #: requests were answered, and of the champion's serving code; empty: not known.
    rules: str = ""
    serving: str = ""
    champion_serving: str = ""
    #: In what these rules are not the default branch's; empty: they are.
    trial: str = ""

    @property
    def serves_already(self) -> bool:
        """Whether this very model serves there, as it would be served: nothing is to be done."""
        return [reason.rule for reason in self.reasons] == [SAME]

    @property
    def passes(self) -> bool:
        """Whether the challenger may be proposed."""
        return self.decision == "promote" or self.override is not None


_FROM_WORST: tuple[Decision, ...] = ("reject", "hold", "promote")


def worst(decisions: Iterable[Decision]) -> Decision:
    """The worst of one decision or more: that of the verdict they belong to."""
    return min(decisions, key=_FROM_WORST.index)


def deciding_first(verdict: Verdict) -> tuple[Reason, ...]:
    """The verdict's reasons, the worst first, else in the rules' order."""
    return tuple(sorted(verdict.reasons, key=lambda reason: _FROM_WORST.index(reason.decision)))


@dataclass(frozen=True)
class ModelRef:
    """A model in the model store: immutable, for ``digest`` is part of ``uri``."""

    uri: str
    digest: str
    format: str
    size: int = 0


@dataclass(frozen=True)
class PredictionsKey:
    """Which predictions: whose, of which ``task.output``, on which examples, made by what.

    ``made`` is as ``making_digest`` gives it.
    """

    model: str
    output: str
    evaluation_set: str
    made: str


@dataclass(frozen=True)
class PredictionsRef:
    """A model's per-example predictions in the store; ``digest`` is that of the kept file."""

    uri: str
    digest: str
    evaluation_set: str
    output: str
    made: str

    def key(self, model: str) -> PredictionsKey:
        """The key of this model's predictions, or of another's that they can be compared with."""
        return PredictionsKey(model, self.output, self.evaluation_set, self.made)


@dataclass(frozen=True)
class ServingRef:
    """The code that serves the model, kept beside the release in git.

    ``digest`` is that of the folder's paths, modes and blobs, and of the two names; ``predictor``
    and ``golden`` are files in ``folder``.
    """

    folder: str
    predictor: str
    golden: str
    digest: str


@dataclass(frozen=True)
class Release:
    """The desired state of one environment, as ``release.yaml`` holds it in git."""

    kind: ClassVar[str] = "release"
    project: str
    environment: str
    model: ModelRef
    run: str
    pipeline: str
    pipeline_version: str
    package: str
    commit: str
    created: float
    verdict: Verdict
    parameters: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    predictions: tuple[PredictionsRef, ...] = ()
    serving: ServingRef | None = None


@dataclass(frozen=True)
class Hold:
    """The mark that keeps a model from being proposed again for an environment.

    With ``serving`` the model is on hold only together with that serving code (its digest).
    ``at`` is a time as people read it in ``holds.yaml``: ISO 8601, UTC.
    """

    digest: str
    reason: str
    by: str
    at: str
    serving: str = ""


@dataclass(frozen=True)
class Promotion:
    """What the promote stage leaves: a proposed change of one environment's release.

    ``id`` names what is proposed: run, model, commit and every changed file.
    """

    kind: ClassVar[str] = "promotion"
    project: str
    environment: str
    branch: str
    state: PromotionState
    run: str
    model: str
    base: str
    commit: str | None = None
    url: str | None = None
    changed: bool = False
    created: float = 0.0
    id: str = ""


@dataclass(frozen=True)
class Check:
    """One golden request's answer."""

    name: str
    passed: bool
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Deployment:
    """What the serving target really runs; ``wanted`` is what git says it should."""

    kind: ClassVar[str] = "deployment"
    project: str
    environment: str
    state: DeploymentState
    model: str | None = None
    wanted: str | None = None
    url: str | None = None
    release_commit: str | None = None
    since: float | None = None
    message: str = ""
    #: The last lines of the model server's log, where it did not start.
    log: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    #: Share of the traffic, in percent, by model digest.
    traffic: dict[str, int] = field(default_factory=dict)
    changed: bool = False


Document = Images | Package | Run | Verdict | Release | Promotion | Deployment
D = TypeVar("D")


def to_json(document: Any) -> dict[str, Any]:
    """The JSON form of a document, with ``kind`` and ``version`` first."""
    if not is_dataclass(document) or isinstance(document, type):
        raise TypeError(f"not a document: {document!r}")
    head: dict[str, Any] = {}
    if kind := getattr(document, "kind", None):
        head = {"kind": kind, "version": version_of(kind)}
    return head | asdict(document)


def iso(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the second."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def dump(document: Any) -> str:
    """A document as JSON text, ending in a newline; NaN stays as Python writes it."""
    return json.dumps(to_json(document), indent=2, ensure_ascii=False) + "\n"


def from_json(cls: type[D], data: Any, where: str = "the document") -> D:
    """Build ``cls`` from its JSON form.

    Raises:
        UsageError: the data is another kind of document, or does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = getattr(cls, "kind", None)
    if not isinstance(data, dict):
        raise UsageError(f"{where} is not a JSON object", next=f"give the {kind} that ctflow wrote")
    data = dict(data)
    if kind is not None:
        found = data.pop("kind", None)
        if found != kind:
            raise UsageError(f"{where} holds {found or 'no document'}, not a {kind}")
        data = upgraded(kind, data, where)
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where} is no {kind} document: {place}: {first['msg']}") from None


def load(cls: type[D], path: Path) -> D:
    """Read a document from a file.

    Raises:
        UsageError: no such file, not JSON, or not that kind of document.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    return from_json(cls, data, str(path))
