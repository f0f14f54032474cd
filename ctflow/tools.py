"""A project and its ports: what a stage is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ctflow.model import Commit, Run
from ctflow.ports import (
    Builder,
    Compiler,
    Forge,
    Functions,
    ImageList,
    Looks,
    ModelStore,
    Pipelines,
    PredictorImages,
    Runner,
    Runs,
    Scm,
    Server,
    StepPlans,
    StepSource,
    Watch,
)

if TYPE_CHECKING:
    from ctflow.config.project import Project
    from ctflow.config.settings import Settings


class Tools(Protocol):
    """A project with its ports, as its settings choose them; each is made when first asked for.

    Attributes:
        places: where in the local state each part keeps its files.
    """

    settings: Settings
    project: Project
    root: Path
    places: Mapping[str, Path]

    @property
    def builder(self) -> Builder:
        """Builds steps for the runner that ctflow.yaml names."""
        ...

    @property
    def workspaces(self) -> StepPlans:
        """What the embedded runner has of the steps."""
        ...

    @property
    def image_list(self) -> ImageList:
        """The steps' images in the registry."""
        ...

    @property
    def predictors(self) -> PredictorImages:
        """The images of the project's predictor, as commits have it."""
        ...

    @property
    def compiler(self) -> Compiler:
        """Compiles the pipeline."""
        ...

    @property
    def pipelines(self) -> Pipelines:
        """Where pipelines are uploaded, whatever runs them."""
        ...

    @property
    def runner(self) -> Runner:
        """The runner that ctflow.yaml names."""
        ...

    @property
    def runs(self) -> Runs:
        """The record of that runner's runs, without what runs them."""
        ...

    @property
    def scm(self) -> Scm:
        """The project's git repository."""
        ...

    @property
    def forge(self) -> Forge:
        """Where promotions are reviewed."""
        ...

    @property
    def store(self) -> ModelStore:
        """Where models are kept."""
        ...

    @property
    def looks(self) -> Looks:
        """Which models were judged here."""
        ...

    def target(self, environment: str) -> Server:
        """The serving target of an environment, as ctflow.yaml names it."""
        ...

    def functions(self, run: Run, watch: Watch) -> AbstractContextManager[Functions]:
        """The functions of the project that a run is judged by; their processes end with it."""
        ...

    def steps(self) -> tuple[StepSource, ...]:
        """The project's steps."""
        ...

    def predictor(self) -> StepSource | None:
        """The predictor in the checkout; None where it has no Dockerfile, or does not serve."""
        ...

    def sources(self) -> tuple[StepSource, ...]:
        """All that images are built of: the steps, and the predictor."""
        ...

    def head(self) -> Commit:
        """The checked-out commit and what is uncommitted; quick. StateError where there is none."""
        ...
