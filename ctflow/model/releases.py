"""What promoting and deploying leave: releases, promotions, holds, deployments."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from ctflow.lib.digests import digest_bytes
from ctflow.lib.quick import dataclass
from ctflow.model.runs import Value
from ctflow.model.runtimes import OWN
from ctflow.model.verdicts import Verdict

PromotionState = Literal["open", "merged", "rejected", "none"]
DeploymentState = Literal["ready", "absent", "failed", "stopped", "outdated"]


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
    """What serves the model: the project's code, or the standard runtime of the model's format.

    Attributes:
        folder: where the files are kept beside the release in git.
        predictor: the predictor's file there; empty for a standard runtime.
        golden: the golden requests' file there; empty: a standard runtime without any.
        digest: that of all files that decide how it answers. Of an own predictor: the folder's
            paths, modes and blobs, and the two names. Of a standard runtime: its name, its
            requirements and the golden requests.
        runtime: ``predictor``, or the model format whose standard runtime it is.
        requirements: what a standard runtime on this machine has installed beside the server.
        image: the predictor's image, ``name@sha256:...``. Without a registry it names the content
            that an image would be made of. Empty: a standard runtime, or no Dockerfile.
    """

    folder: str
    predictor: str
    golden: str
    digest: str
    runtime: str = OWN
    requirements: tuple[str, ...] = ()
    image: str = ""

    @property
    def identity(self) -> str:
        """The digest of all that decides how it answers, the image too."""
        if not self.image:
            return self.digest
        return digest_bytes(f"{self.digest}\0{self.image}".encode())


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
    #: Summaries of the training data that the gate's rules name, by the digest of the data.
    summaries: tuple[PredictionsRef, ...] = ()
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
    #: The predictor's image that git wants there; empty: none, or a standard runtime.
    image: str = ""
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
