"""The only place that chooses adapters. Each is made when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import ConfigError
from ctflow.model import Commit, Run
from ctflow.ports import state_places
from ctflow.wiring.choices import FORGES, RUNNERS, RUNS, STORES, TARGETS, choose

if TYPE_CHECKING:
    from ctflow.agent.local_schedule import LocalSchedule
    from ctflow.agent.local_trigger import LocalTrigger
    from ctflow.config.settings import Settings
    from ctflow.images.builders.images import ImageBuilder
    from ctflow.images.image_list import RegistryImages
    from ctflow.ports import (
        Builder,
        Compiler,
        ContainerEngine,
        Forge,
        Functions,
        Looks,
        ModelStore,
        Pipelines,
        PredictorImages,
        Runner,
        Runs,
        Scm,
        Server,
        StepSource,
        Watch,
    )
    from ctflow.ports.schedules import Schedules
    from ctflow.runners.local.run_records import RunRecords
    from ctflow.stages.new import Scaffold
    from ctflow.steps.environments import UvEnvironments
    from ctflow.steps.local_builder import LocalBuilder
    from ctflow.steps.step_cache import CachedStep
    from ctflow.stores.local_copies import LocalCopies


class ProjectTools:
    """A project's ports, filled in from its settings: ``ctflow.tools.Tools``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.project = settings.project
        self.root = settings.root
        self.places = state_places(settings.state)
        #: What runs steps in containers; None where they are processes.
        self.containers: ContainerEngine | None = None
        self.ask: Callable[[str], bool] | None = None
        self.timeout: float | None = None
        self._targets: dict[str, Server] = {}

    @cached_property
    def environments(self) -> UvEnvironments:
        """Python environments, for all of the user's projects."""
        return environments()

    @property
    def builder(self) -> Builder:
        """Builds steps for the runner that ctflow.yaml names."""
        if self.containers is not None:
            # An image for a run here need not leave this machine, but where it lives elsewhere.
            push = self.project.images.registry is not None
            return self.image_builder(push=push, engine=None if push else self.containers.name)
        if self.project.runner == "local" or self.project.images.builder == "local":
            return self.workspaces
        return self.image_builder(push=True)

    def image_builder(
        self, *, push: bool, keep: bool = True, locked: bool = False, engine: str | None = None
    ) -> ImageBuilder:
        """Builds real images; see ``ctflow.wiring.images``."""
        from ctflow.wiring.images import image_builder

        return image_builder(self, push=push, keep=keep, locked=locked, engine=engine)

    @cached_property
    def image_list(self) -> RegistryImages:
        """The steps' images in the registry; ConfigError where there is none."""
        from ctflow.wiring.images import image_list

        return image_list(self)

    @cached_property
    def predictors(self) -> PredictorImages:
        """The images of the project's predictor, as commits have it."""
        from ctflow.wiring.images import predictors

        return predictors(self, self.workspaces)

    @cached_property
    def workspaces(self) -> LocalBuilder:
        """Builds steps for the embedded runner, and finds them again."""
        from ctflow.config.values import size_in_bytes
        from ctflow.steps.local_builder import LocalBuilder

        return LocalBuilder(
            self.places["steps"],
            self.project.project,
            self.project.images.registry,
            self.project.images.base,
            self.environments,
            needed=self._needed_steps,
            bound=size_in_bytes(self.project.store.cache),
        )

    def cached_steps(self) -> list[CachedStep]:
        """The snapshots of this project's steps."""
        from ctflow.steps.step_cache import entries

        return entries(self.places["steps"])

    def prune_steps(self, older: float | None, *, dry_run: bool) -> list[CachedStep]:
        """Remove the snapshots that nobody needs; what was, or would be, removed."""
        from ctflow.steps.step_cache import prune

        return prune(self.places["steps"], self._needed_steps(), older, dry_run=dry_run)

    def _needed_steps(self) -> set[str]:
        from ctflow.runners.local.record import needed_images

        return needed_images(self.places["record"])

    @cached_property
    def compiler(self) -> Compiler:
        """The KFP compiler in a child process."""
        from ctflow.compiler.kfp_compiler import KfpCompiler

        return KfpCompiler(self.environments)

    @cached_property
    def pipelines(self) -> Pipelines:
        """Kubeflow Pipelines as ctflow.yaml names it; ConfigError where it names none."""
        from ctflow.wiring.kubeflow import pipelines

        return pipelines(self)

    @cached_property
    def runner(self) -> Runner:
        """The runner that ctflow.yaml names; ConfigError where it is not in this version."""
        return choose(RUNNERS, "runner", self.project.runner)(self)

    def functions(self, run: Run, watch: Watch) -> AbstractContextManager[Functions]:
        """The functions of the project that a run is judged by; their processes end with it."""
        from ctflow.runners.local.functions import local_functions

        return local_functions(
            run,
            watch,
            workspaces=self.workspaces,
            steps=self.steps,
            root=self.root,
            pass_env=self.project.pass_env,
        )

    @cached_property
    def runs(self) -> Runs:
        """The record of that runner's runs; ConfigError where it is not in this version."""
        return choose(RUNS, "runner", self.project.runner)(self)

    @cached_property
    def local_runs(self) -> RunRecords:
        """The record of the runs on this machine, which can be pruned."""
        from ctflow.runners.local.run_records import RunRecords

        return RunRecords(self.settings.state)

    def watch_runs(self, ask: Callable[[str], bool] | None, timeout: float | None) -> None:
        """How runs on a cluster are waited for; before the runner is asked for.

        Args:
            ask: asked on Ctrl-C whether to terminate the run; None: nobody is there.
            timeout: seconds; None: until the run ends.
        """
        self.ask, self.timeout = ask, timeout

    def use_engine(self, engine: str | None, network: str | None = None) -> None:
        """Run steps in containers of ``docker`` or ``podman``; before the runner is asked for."""
        if engine is not None:
            from ctflow.wiring.images import containers_of

            self.containers = containers_of(self, engine, network)

    @cached_property
    def scm(self) -> Scm:
        """The project's git repository."""
        from ctflow.scm.git import GitScm

        return GitScm(self.root, self.places["tmp"])

    @cached_property
    def forge(self) -> Forge:
        """Where promotions are reviewed; ConfigError where it is not in this version."""
        return choose(FORGES, "forge.kind", self.project.forge.kind)(self)

    @cached_property
    def store(self) -> ModelStore:
        """Where models are kept."""
        from ctflow.stores.folder_store import FolderStore

        place = self.project.store.models
        return FolderStore(self.places["models"]) if place is None else self.store_at(place)

    @cached_property
    def looks(self) -> Looks:
        """Which models were judged here."""
        from ctflow.stores.folder_looks import FolderLooks

        return FolderLooks(self.places["looks"])

    def store_at(self, place: str) -> ModelStore:
        """The model store at a folder, relative to the project's, or at an object store's URL.

        Raises ConfigError for other places, and OutsideError where nothing says who asks.
        """
        from ctflow.model.store_url import check_place

        try:
            scheme, colon, _ = check_place(place).partition("://")
        except ValueError as error:
            raise ConfigError(f"a model store: {error}", next="name another") from None
        return choose(STORES, "a model store's scheme", scheme if colon else "file")(self, place)

    def target(self, environment: str) -> Server:
        """The serving target of an environment; ConfigError for one that is not in this version."""
        kind = self.project.environments[environment].target
        make = choose(TARGETS, f"environments.{environment}.target", kind)
        if kind not in self._targets:
            self._targets[kind] = make(self)
        return self._targets[kind]

    @cached_property
    def trigger(self) -> LocalTrigger:
        """Pushes to a bare repository on this machine."""
        from ctflow.agent.local_trigger import LocalTrigger

        return LocalTrigger(self.root, self.settings.state, self.project.branch)

    @cached_property
    def schedules(self) -> Schedules:
        """Recurring runs of Kubeflow Pipelines; ConfigError where ctflow.yaml names none."""
        from ctflow.wiring.kubeflow import schedules

        return schedules(self)

    @cached_property
    def local_schedule(self) -> LocalSchedule:
        """Schedules on this machine."""
        from ctflow.agent.local_schedule import LocalSchedule

        return LocalSchedule(self.root, self.settings.state)

    def steps(self) -> tuple[StepSource, ...]:
        """The project's steps."""
        from ctflow.steps.context import discover_steps

        return discover_steps(self.root, self.project.steps)

    def predictor(self) -> StepSource | None:
        """The predictor in the checkout; None where it has no Dockerfile, or does not serve."""
        from ctflow.steps.context import discover_predictor

        serving = self.project.serving
        if serving.runtime == "standard":
            return None
        if not (self.root / serving.folder / serving.predictor).is_file():
            return None
        return discover_predictor(self.root, serving.folder, serving.include, self.steps())

    def sources(self) -> tuple[StepSource, ...]:
        """All that images are built of: the steps, and the predictor."""
        own = self.predictor()
        return self.steps() if own is None else (*self.steps(), own)

    def head(self) -> Commit:
        """The checked-out commit and what is uncommitted; quick."""
        from ctflow.scm.git_head import read_head

        return read_head(self.root)


def wire(settings: Settings) -> ProjectTools:
    """The tools of a project."""
    return ProjectTools(settings)


def environments() -> UvEnvironments:
    """The user's Python environments; needs no project."""
    from ctflow.lib.user_cache import cache_root
    from ctflow.steps.environments import UvEnvironments

    return UvEnvironments(cache_root(os.environ))


def checkout(url: str, commit: str, target: Path, token: str) -> Path:
    """Clone a repository and check out a commit; git here logs in with the token from then on.

    Raises StateError where there is no such commit, OutsideError where git fails.
    """
    from ctflow.scm.checkout import checkout as clone
    from ctflow.scm.checkout import use_login

    use_login(url, token, os.environ)
    return clone(url, commit, target)


def model_copies(project: Path | None) -> LocalCopies:
    """The user's local copies of models in object stores.

    Args:
        project: the local state of the project here; None outside of one.
    """
    from ctflow.lib.user_cache import cache_root
    from ctflow.stores.local_copies import LocalCopies

    return LocalCopies(cache_root(os.environ) / "models", project)


def artifact_copies() -> LocalCopies:
    """The user's local copies of what runs on clusters wrote."""
    from ctflow.lib.user_cache import cache_root
    from ctflow.stores.local_copies import LocalCopies

    return LocalCopies(cache_root(os.environ) / "artifacts")


def checked_out_branch(root: Path) -> str:
    """The branch that is checked out, ``master`` on none; StateError outside a repository."""
    from ctflow.scm.git_head import read_head

    return read_head(root).branch or "master"


@contextmanager
def scaffold(template: str = "digits") -> Iterator[Scaffold]:
    """What writes a new project from a template; raises UsageError where there is no such one."""
    from ctflow.scaffold.cookiecutter import TemplateScaffold, found_template

    with found_template(template) as folder:
        yield TemplateScaffold(folder)
